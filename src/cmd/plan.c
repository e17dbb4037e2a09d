/* plan.c - gemmad plan: what the settings take in memory, without loading the model. */
#include <stdio.h>
#include <string.h>

#include "base/cpu.h"
#include "cmd/cmd.h"
#include "engine/kv.h"
#include "gemmad/log.h"
#include "graph/weights.h"
#include "kernels/attention.h"
#include "kernels/kernels.h"
#include "model/hparams.h"
#include "model/source.h"

enum { CHUNK = 512 }; /* prompt tokens of one prefill run */

static const double mib = 1048576;

static void usage(void)
{
    puts("usage: gemmad plan [--model FILE] [--KEY=VALUE ...]\n\n"
         "Prints the memory that gemmad serve would use with these settings: weights, keys and\n"
         "values per token, sequences that fit. Refuses what cannot fit.\n"
         "Exit codes: 0 fits, 2 does not, or bad arguments, settings or model.");
}

/* As the engine picks it for kv_type = auto. */
static enum kv_type pick_kv_type(const struct config *c)
{
    struct kernels k;

    if (strcmp(c->kv_type, "auto") != 0)
        return strcmp(c->kv_type, "bf16") == 0 ? KV_BF16 : KV_F32;
    if (strcmp(c->profile, "default") != 0)
        return KV_F32;
    kernels_init(&k, (enum isa)isa_parse(c->isa));
    return k.bf16 ? KV_BF16 : KV_F32;
}

static void layout_of(struct kv_layout *l, const struct hparams *hp, enum kv_type type)
{
    *l = (struct kv_layout){.type = type};
    for (int i = 0; i < hp->n_layers; i++) {
        const struct hparams_layer *layer = &hp->layers[i];
        struct kv_group *g = &l->group[layer->window ? KV_SLIDING : KV_GLOBAL];

        if (layer->kv_layer != i)
            continue; /* it reads the K and V of another */
        g->n_layers++;
        g->window = layer->window;
        g->page_bytes += kv_layer_bytes(type, layer->n_kv_heads, layer->head_dim);
    }
}

static double weight_bytes(const struct source *src, const struct config *c)
{
    const char *head = source_tensor(src, "output.weight") ? "output.weight" : "token_embd.weight";
    double bytes = 0;

    for (size_t i = 0; i < source_n_tensors(src); i++) {
        const struct tensor *t = source_tensor_at(src, i);
        bool is_head = strcmp(t->name, head) == 0;

        bytes += (double)weight_estimate(
            t, weight_type_named(c->quantize), is_head ? weight_type_named(c->head) : DTYPE_F32);
    }
    return bytes;
}

/* Bytes that one sequence of n tokens holds: its windows in sliding layers, all in global ones. */
static double sequence_bytes(const struct kv_layout *l, int n)
{
    double bytes = 0;

    for (int g = 0; g < KV_GROUPS; g++) {
        const struct kv_group *k = &l->group[g];
        int pages = (n + KV_PAGE - 1) / KV_PAGE, window = (k->window + KV_PAGE - 1) / KV_PAGE + 1;

        if (k->window && pages > window)
            pages = window;
        bytes += (double)pages * (double)k->page_bytes;
    }
    return bytes;
}

static void print_model(
    const struct hparams *hp, const struct kv_layout *l, double weights, const char *packed_file)
{
    printf("model      %s: %s, %d layers, width %d, vocabulary %d, trained for %d tokens\n",
        hp->name, hp->arch_name, hp->n_layers, hp->width, hp->vocab, hp->context);
    printf("weights    %.1f MiB\n", weights / mib);
    if (packed_file[0])
        printf("           as much again on the disk, in %s\n", packed_file);
    for (int g = 0; g < KV_GROUPS; g++) {
        const struct kv_group *k = &l->group[g];

        if (k->n_layers == 0)
            continue;
        printf("per token  %.2f KiB in %d %s layers", (double)k->page_bytes / KV_PAGE / 1024,
            k->n_layers, g == KV_GLOBAL ? "global" : "sliding");
        if (k->window)
            printf(" (the last %d tokens only)", k->window);
        printf(", %s\n", l->type == KV_BF16 ? "bf16" : "f32");
    }
}

static void print_fits(const struct kv_layout *l, const struct kv_plan *p, const struct config *c)
{
    static const int lengths[] = {512, 2048, 8192, 32768, 131072};

    printf("keys and values  %.1f MiB: up to %d tokens a request", (double)p->bytes / mib,
        p->ctx_tokens);
    printf(", %d sequences at once as far as there are pages\n", c->max_sequences);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        double n = (double)p->bytes / sequence_bytes(l, lengths[i]);

        if (lengths[i] > p->ctx_tokens)
            break;
        printf("fits       %d sequences of %d tokens (%.1f MiB each)\n",
            n > c->max_sequences ? c->max_sequences : (int)n, lengths[i],
            sequence_bytes(l, lengths[i]) / mib);
    }
}

static int plan(const struct config *c, const struct source *src, struct err *err)
{
    double weights = weight_bytes(src, c), available = (double)cpu_memory_available(), budget;
    struct kv_need need;
    struct kv_layout l;
    struct kv_plan p;
    struct hparams hp;
    int r = hparams_read(&hp, src, err);

    if (r < 0)
        return r;
    if (hp.warning[0])
        log_warn("%s", hp.warning);
    layout_of(&l, &hp, pick_kv_type(c));
    print_model(&hp, &l, weights, c->packed_file);
    printf("available  %.1f MiB (this machine or container, now)\n", available / mib);
    if (weights > available)
        return err_set(err, GD_ENOTSUP, "the weights take %.0f MiB, but %.0f MiB are available",
            weights / mib, available / mib);
    if (c->ctx_tokens > hp.context)
        return err_set_at(err, GD_EINVAL, "ctx_tokens",
            "ctx_tokens: the model was trained for %d tokens, %d are too many", hp.context,
            c->ctx_tokens);
    budget = c->kv_mib ? (double)c->kv_mib * mib : (available - weights) / 2;
    need = (struct kv_need){.ctx_tokens = c->ctx_tokens ? c->ctx_tokens : hp.context,
        .shrink_ctx = c->ctx_tokens == 0,
        .max_sequences = c->max_sequences,
        .max_chunk = CHUNK};
    r = kv_plan(&p, &l, &need, (size_t)budget, err);
    if (r < 0)
        return r;
    if (weights + (double)p.bytes > available)
        return err_set_at(err, GD_ENOTSUP, "kv_mib",
            "weights (%.0f MiB) and keys and values (%.0f MiB) do not fit into %.0f MiB",
            weights / mib, (double)p.bytes / mib, available / mib);
    print_fits(&l, &p, c);
    printf("total      %.1f MiB\n", (weights + (double)p.bytes) / mib);
    return 0;
}

int cmd_plan(int argc, char **argv)
{
    struct source *src = NULL;
    struct config c;
    struct err err = {0};
    const char *path;
    int r;

    if (cmd_wants_help(argc, argv)) {
        usage();
        return EXIT_OK;
    }
    config_default(&c);
    if (config_args(&c, argc, argv, &err) < 0)
        return cmd_usage_error("plan", "%s", err.msg);
    path = cmd_model_path(&c);
    if (!path)
        return cmd_usage_error("plan", "the demo model is not installed; name one with --model");
    r = source_open(&src, path, &err);
    if (r == 0)
        r = plan(&c, src, &err);
    source_close(src);
    if (r == 0)
        return EXIT_OK;
    cmd_fail("plan", &err);
    return EXIT_USAGE;
}
