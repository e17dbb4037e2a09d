#include "engine/runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/cpu.h"
#include "base/mem.h"
#include "engine/packed.h"
#include "gemmad/flow.h"
#include "gemmad/log.h"
#include "graph/weights.h"

/* Rows of an embedding run. */
enum { EMBED_ROWS_MIN = 2048, EMBED_ROWS_MAX = 8192 };

void runtime_opts_default(struct runtime_opts *o)
{
    *o = (struct runtime_opts){.profile = "default",
        .isa = "auto",
        .kv_type = "auto",
        .matmul_prefill = "auto",
        .matmul_decode = "auto",
        .quantize = "none",
        .head = "file",
        .screen_head = true,
        .packed_file = "",
        .max_sequences = 16,
        .max_chunk = 512};
}

static int pick_backend(
    enum backend_choice *out, const char *setting, const char *value, struct err *err)
{
    static const char *const names[] = {"auto", "native", "blas"};

    for (int i = 0; i < 3; i++) {
        if (strcmp(value, names[i]) == 0) {
            if (i > 0 || *out == BACKEND_AUTO)
                *out = (enum backend_choice)i; /* "auto" leaves it to gemmad.profile */
            return 0;
        }
    }
    return err_set_at(
        err, GD_EINVAL, setting, "%s: \"%.40s\" is not auto, native or blas", setting, value);
}

static int pick_isa(
    struct runtime *rt, const struct runtime_opts *o, bool reference, struct err *err)
{
    int isa = isa_parse(o->isa);

    if (isa < 0)
        return err_set_at(err, GD_EINVAL, "isa",
            "isa: \"%.40s\" is not auto, c, avx2, avxvnni, avx512 or neon", o->isa);
    if (reference && strcmp(o->isa, "auto") == 0)
        isa = ISA_C; /* the reference is plain C unless told otherwise */
    if (!kernels_has((enum isa)isa))
        return err_set_at(err, GD_ENOTSUP, "isa", "isa: this machine cannot run %s", o->isa);
    kernels_init(&rt->kernels, (enum isa)isa);
    return 0;
}

/* *kv is what the profile wants. */
static int pick_kv(
    const struct runtime *rt, const struct runtime_opts *o, enum flow_kv *kv, struct err *err)
{
    if (strcmp(o->kv_type, "auto") == 0)
        *kv = *kv == FLOW_KV_BF16 && rt->kernels.bf16 ? FLOW_KV_BF16 : FLOW_KV_F32;
    else if (strcmp(o->kv_type, "f32") == 0)
        *kv = FLOW_KV_F32;
    else if (strcmp(o->kv_type, "bf16") == 0)
        *kv = FLOW_KV_BF16;
    else
        return err_set_at(
            err, GD_EINVAL, "kv_type", "kv_type: \"%.40s\" is not auto, f32 or bf16", o->kv_type);
    return 0;
}

/* gemmad.profile in the folder of the weights, where there is one. Both graphs read and write the
 * same pages: the page type is the setting's. */
static int read_profile(
    const struct runtime_opts *o, enum flow_mode mode, struct flow_profile *p, struct err *err)
{
    const char *slash = strrchr(o->model_path, '/');
    enum flow_kv kv = p->kv;
    char path[4096];
    struct stat st;
    int r;

    if (stat(o->model_path, &st) == 0 && S_ISDIR(st.st_mode))
        snprintf(path, sizeof(path), "%s/gemmad.profile", o->model_path);
    else
        snprintf(path, sizeof(path), "%.*sgemmad.profile",
            slash ? (int)(slash + 1 - o->model_path) : 0, o->model_path);
    r = flow_profile_load(p, path, mode, err);
    p->kv = kv;
    return r == GD_ENOENT ? 0 : r;
}

/* The profile of one graph: the built-in one, the file's lines over it, the settings over both. */
static int pick(struct runtime *rt, const struct runtime_opts *o, enum flow_mode mode,
    struct flow_profile *p, struct err *err)
{
    bool reference, prefill = mode == FLOW_PREFILL;
    int r;

    if (!flow_profile_named(p, o->profile))
        return err_set_at(err, GD_EINVAL, "profile",
            "profile: \"%.40s\" is not default, precise or reference", o->profile);
    rt->profile = flow_precision_name(p->precision);
    reference = p->precision == FLOW_REFERENCE;
    r = pick_isa(rt, o, reference, err);
    if (r == 0)
        r = pick_kv(rt, o, &p->kv, err);
    if (r == 0 && !reference) /* the reference is what it is */
        r = read_profile(o, mode, p, err);
    if (r == 0)
        r = pick_backend(&p->matmul, prefill ? "matmul_prefill" : "matmul_decode",
            prefill ? o->matmul_prefill : o->matmul_decode, err);
    return r;
}

static int build(struct runtime *rt, struct graph **out, const struct flow_options *fo,
    const struct flow_profile *p, struct err *err)
{
    struct flow *f;
    int r = flow_create(&f, &rt->hp, fo, err);

    if (r < 0)
        return r;
    r = flow_build(out, f, p, rt->weights, &rt->kernels, rt->pool, err);
    flow_destroy(f);
    return r;
}

static int quantise(struct runtime *rt, const char *to, struct err *err)
{
    enum dtype type = weight_type_named(to);

    if (strcmp(to, "none") == 0)
        return 0;
    if (type != DTYPE_Q8_0 && type != DTYPE_Q4_0)
        return err_set_at(
            err, GD_EINVAL, "quantize", "quantize: \"%.40s\" is not none, q8_0 or q4_0", to);
    weight_store_quantize(rt->weights, type);
    return 0;
}

static const char *head_name(const struct runtime *rt)
{
    return rt->hp.separate_head ? "output.weight" : "token_embd.weight";
}

/* What the head is in memory: its type, and whether it lies in planes. */
static int prepare_head(
    struct runtime *rt, const struct runtime_opts *o, bool exact, struct err *err)
{
    const struct tensor *t = source_tensor(rt->src, head_name(rt));
    enum dtype type = weight_type_named(o->head);
    int block = dtype_find(type)->block;

    if (type == DTYPE_F32 && strcmp(o->head, "file") != 0)
        return err_set_at(
            err, GD_EINVAL, "head", "head: \"%.40s\" is not file, q8_0, q6_k or q4_0", o->head);
    if (type != DTYPE_F32 && rt->hp.bidirectional)
        return err_set_at(err, GD_EINVAL, "head", "head: an embedding model has none");
    if (type != DTYPE_F32 && t && !weight_is_float(t->type))
        return err_set_at(err, GD_EINVAL, "head",
            "head: the head of this model is %s already, only F32, F16 and BF16 can become %s",
            dtype_name(t->type), o->head);
    if (rt->hp.width % block != 0)
        return err_set_at(err, GD_EINVAL, "head",
            "head: rows of %d cannot be %s, whose blocks are %d", rt->hp.width, o->head, block);
    weight_store_head(rt->weights, head_name(rt), type,
        o->screen_head && !exact && !rt->hp.bidirectional, "output_norm.weight");
    return 0;
}

/* After the graphs have taken their weights. */
static int announce_quantised(
    const struct runtime *rt, const struct runtime_opts *o, struct err *err)
{
    bool head = strcmp(o->head, "file") != 0, all = strcmp(o->quantize, "none") != 0;
    int n = weight_store_n_quantized(rt->weights) - head;

    if (head)
        log_warn("packed %s as %s while loading; answers differ from the file's own weights",
            rt->hp.separate_head ? "the head" : "the head, which is the embedding too,", o->head);
    if (!all)
        return 0;
    if (n == 0)
        return err_set_at(err, GD_EINVAL, "quantize",
            "quantize: the model has no F32, F16 or BF16 matrices that could become %s",
            o->quantize);
    log_warn("quantised %d matrices to %s while loading; answers differ from the file's own "
             "weights%s",
        n, o->quantize,
        strcmp(o->quantize, "q4_0") == 0 && !head ? " (embedding and head: q8_0)" : "");
    return 0;
}

/* Pieces of prompts, and beside them one token of each answer. Of an embedding model whole
 * sequences: any of them as long as the model takes it, together at least as many rows as pay for
 * reading the weights once. */
static void prefill_options(
    const struct runtime *rt, const struct runtime_opts *o, struct flow_options *fo)
{
    int rows = o->max_chunk + o->max_sequences;

    if (rt->hp.bidirectional) {
        rows = rt->hp.context < EMBED_ROWS_MAX ? rt->hp.context : EMBED_ROWS_MAX;
        rows = rows > EMBED_ROWS_MIN ? rows : EMBED_ROWS_MIN;
    }
    flow_prefill_options(fo, o->max_sequences, (rows + o->max_sequences - 1) / o->max_sequences);
}

static int build_graphs(struct runtime *rt, const struct runtime_opts *o, struct err *err)
{
    struct flow_profile prefill = {0}, decode = {0};
    struct flow_options fo;
    int r = pick(rt, o, FLOW_PREFILL, &prefill, err);

    if (r == 0)
        r = pick(rt, o, FLOW_DECODE, &decode, err);
    if (r == 0)
        r = pool_create(&rt->pool, o->n_threads ? o->n_threads : cpu_allowed(), err);
    if (r < 0)
        return r;
    rt->weights = weight_store_create(rt->src, rt->pool);
    r = quantise(rt, o->quantize, err);
    if (r == 0)
        r = prepare_head(rt, o, decode.precision == FLOW_REFERENCE, err);
    if (r < 0)
        return r;
    if (o->packed_file[0])
        rt->packed = packed_open(o->packed_file, rt->weights, rt->pool);
    prefill_options(rt, o, &fo);
    fo.taps = o->taps;
    r = build(rt, &rt->prefill, &fo, &prefill, err);
    if (r < 0)
        return r;
    rt->max_chunk = rt->hp.bidirectional ? graph_max_tokens(rt->prefill) : o->max_chunk;
    graph_kv_layout(rt->prefill, &rt->kv);
    rt->n_params = weight_store_params(rt->weights);
    rt->weight_bytes = weight_store_bytes(rt->weights);
    if (rt->hp.bidirectional) /* embedding models do not decode */
        return 0;
    flow_decode_options(&fo, o->max_sequences, 0);
    fo.dynamic_past = true;
    return build(rt, &rt->decode, &fo, &decode, err);
}

int runtime_open(struct runtime **out, const struct runtime_opts *o, struct err *err)
{
    struct runtime *rt = xcalloc(1, sizeof(*rt));
    int r = source_open(&rt->src, o->model_path, err);

    if (r == 0)
        r = hparams_read(&rt->hp, rt->src, err);
    if (r == 0 && rt->hp.warning[0])
        log_warn("%s", rt->hp.warning);
    if (r == 0 && !o->ids_only)
        r = tokenizer_open(&rt->tok, rt->src, err);
    if (r == 0)
        r = build_graphs(rt, o, err);
    if (r == 0)
        r = source_unchanged(rt->src, err); /* it was mapped while it was packed */
    if (r == 0)
        r = announce_quantised(rt, o, err);
    if (r == 0 && rt->packed)
        packed_keep(rt->packed);
    if (r == 0)
        *out = rt;
    else
        runtime_close(rt);
    return r;
}

void runtime_close(struct runtime *rt)
{
    if (!rt)
        return;
    graph_destroy(rt->prefill);
    graph_destroy(rt->decode);
    packed_close(rt->packed);
    weight_store_destroy(rt->weights);
    pool_destroy(rt->pool);
    tokenizer_close(rt->tok);
    source_close(rt->src);
    free(rt);
}
