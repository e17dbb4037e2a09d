/* Hyper-parameters: the golden files against their config.json, and files that make no sense. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dtype.h"
#include "model/hparams.h"
#include "test_gguf_build.h"

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

static cJSON *read_json(const char *below)
{
    static char text[65536];
    FILE *f = fopen(golden_path(below), "rb");
    cJSON *json;

    assert_non_null(f);
    text[fread(text, 1, sizeof(text) - 1, f)] = 0;
    fclose(f);
    json = cJSON_Parse(text);
    assert_non_null(json);
    return json;
}

static double number(const cJSON *o, const char *key, double otherwise)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(o, key);

    return cJSON_IsNumber(v) ? v->valuedouble : otherwise;
}

static void load(struct hparams *hp, const char *below)
{
    struct source *s;
    struct err err = {0};

    if (source_open(&s, golden_path(below), &err) < 0 || hparams_read(hp, s, &err) < 0)
        fail_msg("%s: %s", below, err.msg);
    source_close(s);
}

static void check_layers(const struct hparams *hp, const cJSON *text, int period)
{
    int window = (int)number(text, "sliding_window", 0);

    assert_int_equal(hp->n_layers, (int)number(text, "num_hidden_layers", 0));
    for (int i = 0; i < hp->n_layers; i++) {
        const struct hparams_layer *l = &hp->layers[i];
        bool sliding = window > 0 && (i + 1) % period != 0;

        assert_int_equal(l->n_heads, (int)number(text, "num_attention_heads", 0));
        assert_int_equal(l->n_kv_heads, (int)number(text, "num_key_value_heads", 0));
        assert_int_equal(l->head_dim, (int)number(text, "head_dim", 0));
        assert_int_equal(l->ffn, (int)number(text, "intermediate_size", 0));
        assert_int_equal(l->window, sliding ? window : 0);
        assert_int_equal(l->rope_table, sliding && hp->arch == GEMMA_3 ? 1 : 0);
    }
}

static void golden_files_match_their_config(void **state)
{
    static const struct {
        const char *folder, *file;
        enum gemma_arch arch;
        int period;
        float scale, factor; /* of attention, from a GGUF; of the global rope */
    } cases[] = {
        {"gemma1", "model-bf16.gguf", GEMMA_1, 1, 1 / 5.65685425f, 1},
        {"gemma2", "model-f16.gguf", GEMMA_2, 2, 1 / 5.65685425f, 1},
        {"gemma2-27b", "model-bf16.gguf", GEMMA_2, 2, 0.25f, 1},
        {"gemma3", "model-bf16.gguf", GEMMA_3, 6, 1 / 5.65685425f, 1},
        {"gemma3", "model-q4_0.gguf", GEMMA_3, 6, 1 / 5.65685425f, 1},
        {"gemma3-mm", "model-bf16.gguf", GEMMA_3, 6, 1 / 5.65685425f, 8},
        {"mixed", "model-mixed.gguf", GEMMA_3, 6, 0.125f, 1},
    };

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct hparams hp = {0};
        char below[128];
        cJSON *config, *text;

        snprintf(below, sizeof(below), "families/%s/config.json", cases[i].folder);
        config = read_json(below);
        text = cJSON_GetObjectItemCaseSensitive(config, "text_config");
        text = text ? text : config;
        snprintf(below, sizeof(below), "families/%s/%s", cases[i].folder, cases[i].file);
        load(&hp, below);

        assert_int_equal(hp.arch, cases[i].arch);
        assert_int_equal(hp.width, (int)number(text, "hidden_size", 0));
        assert_int_equal(hp.vocab, (int)number(text, "vocab_size", 0));
        assert_int_equal(hp.context, (int)number(text, "max_position_embeddings", 0));
        assert_true(hp.norm_eps == (float)number(text, "rms_norm_eps", 0));
        assert_true(hp.attention_softcap == (float)number(text, "attn_logit_softcapping", 0));
        assert_true(hp.final_softcap == (float)number(text, "final_logit_softcapping", 0));
        assert_true(hp.embed_scale == sqrtf((float)hp.width));
        assert_true(fabsf(hp.attention_scale - cases[i].scale) < 1e-7f);
        assert_int_equal(hp.qk_norm, hp.arch == GEMMA_3);
        assert_int_equal(hp.post_norms, hp.arch != GEMMA_1);
        assert_false(hp.separate_head);
        assert_int_equal(hp.n_rope, hp.arch == GEMMA_3 ? 2 : 1);
        assert_true(hp.rope[0].freq_base == (float)number(text, "rope_theta", 0));
        assert_true(hp.rope[0].freq_scale == 1 / cases[i].factor);
        if (hp.n_rope == 2) {
            assert_true(hp.rope[1].freq_base == (float)number(text, "rope_local_base_freq", 0));
            assert_true(hp.rope[1].freq_scale == 1);
        }
        assert_int_equal(hp.rope[0].n_dims, hp.layers[0].head_dim);
        assert_string_equal(hp.warning, "");
        check_layers(&hp, text, cases[i].period);
        cJSON_Delete(config);
    }
}

/* ---- files made here: the keys of a family, one of them replaced, dropped or added */

static const struct test_key gemma2_keys[] = {
    {"general.architecture", GGUF_STRING, 0, "gemma2"},
    {"gemma2.block_count", GGUF_U32, 4},
    {"gemma2.context_length", GGUF_U32, 8192},
    {"gemma2.embedding_length", GGUF_U32, 64},
    {"gemma2.feed_forward_length", GGUF_U32, 96},
    {"gemma2.attention.head_count", GGUF_U32, 4},
    {"gemma2.attention.head_count_kv", GGUF_U32, 2},
    {"gemma2.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-6},
};

static const struct test_key gemma3_keys[] = {
    {"general.architecture", GGUF_STRING, 0, "gemma3"},
    {"general.name", GGUF_STRING, 0, "Tiny \x01 model"},
    {"gemma3.block_count", GGUF_U32, 8},
    {"gemma3.context_length", GGUF_U32, 32768},
    {"gemma3.embedding_length", GGUF_U32, 64},
    {"gemma3.feed_forward_length", GGUF_U32, 96},
    {"gemma3.attention.head_count", GGUF_U32, 4},
    {"gemma3.attention.head_count_kv", GGUF_U32, 2},
    {"gemma3.attention.key_length", GGUF_U32, 32},
    {"gemma3.attention.value_length", GGUF_U32, 32},
    {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-6},
    {"gemma3.attention.sliding_window", GGUF_U32, 16},
    {"gemma3.rope.freq_base", GGUF_F32, 1e6},
};

enum { DROPPED = -1 }; /* as the type of an override */

struct file {
    const struct test_key *keys;
    size_t n_keys;
    const struct test_key *overrides;
    size_t n_overrides;
    int64_t embd_ne[2];
    const char *tensor; /* name of the only tensor */
};

static void build(struct buf *b, const struct file *f)
{
    struct test_tensor t = {f->tensor, DTYPE_F32, 2, {f->embd_ne[0], f->embd_ne[1]}, 0};
    struct buf keys = {0};
    uint64_t n = 0;

    for (size_t i = 0; i < f->n_keys; i++) {
        bool replaced = false;

        for (size_t k = 0; k < f->n_overrides; k++)
            replaced |= strcmp(f->overrides[k].key, f->keys[i].key) == 0;
        if (!replaced)
            put_key(&keys, &f->keys[i]), n++;
    }
    for (size_t k = 0; k < f->n_overrides; k++)
        if (f->overrides[k].type != (uint32_t)DROPPED)
            put_key(&keys, &f->overrides[k]), n++;
    put_header(b, 3, 1, n);
    put_bytes(b, keys.data, keys.len);
    put_tensor(b, &t);
    put_padding(b, 32);
    for (int64_t i = 0; i < f->embd_ne[0] * f->embd_ne[1]; i++)
        put_u32(b, 0);
    buf_free(&keys);
}

static int read_file(struct hparams *hp, const struct file *f, struct err *err)
{
    struct buf b = {0};
    struct source *s;
    int r;

    build(&b, f);
    r = open_bytes(&s, b.data, b.len, err);
    buf_free(&b);
    if (r < 0)
        fail_msg("the container is fine, yet: %s", err->msg);
    r = hparams_read(hp, s, err);
    source_close(s);
    return r;
}

/* gemma 2 or 3 with overrides. */
static int read_with(
    struct hparams *hp, int family, const struct test_key *o, size_t n, struct err *err)
{
    struct file f = {.keys = family == 2 ? gemma2_keys : gemma3_keys,
        .n_keys = family == 2 ? LENGTH(gemma2_keys) : LENGTH(gemma3_keys),
        .overrides = o,
        .n_overrides = n,
        .embd_ne = {64, 8},
        .tensor = "token_embd.weight"};

    return read_file(hp, &f, err);
}

static void must_read(struct hparams *hp, int family, const struct test_key *o, size_t n)
{
    struct err err = {0};

    if (read_with(hp, family, o, n, &err) < 0)
        fail_msg("%s", err.msg);
}

static void gemma2_has_defaults(void **state)
{
    struct hparams hp = {0};

    must_read(&hp, 2, NULL, 0);
    assert_true(hp.attention_softcap == 50 && hp.final_softcap == 30);
    assert_int_equal(hp.layers[0].window, 4096);
    assert_int_equal(hp.layers[1].window, 0);
    assert_int_equal(hp.layers[2].window, 4096);
    assert_int_equal(hp.layers[0].head_dim, 16);
    assert_true(hp.rope[0].freq_base == 10000 && hp.n_rope == 1);
    assert_true(hp.attention_scale == 0.25f);
    assert_string_equal(hp.arch_name, "gemma2");
}

static void gemma3_without_window_sees_everything(void **state)
{
    static const struct test_key o = {"gemma3.attention.sliding_window", (uint32_t)DROPPED};
    struct hparams hp = {0};

    must_read(&hp, 3, &o, 1);
    for (int i = 0; i < hp.n_layers; i++) {
        assert_int_equal(hp.layers[i].window, 0);
        assert_int_equal(hp.layers[i].rope_table, 0);
    }
    assert_int_equal(hp.n_rope, 1);
    assert_string_equal(hp.name, "Tiny ? model");
}

static void patterns_are_periods_or_arrays(void **state)
{
    static const char key[] = "gemma3.attention.sliding_window_pattern";
    struct test_key o = {key, GGUF_U16, 3};
    struct hparams hp = {0};

    must_read(&hp, 3, &o, 1);
    for (int i = 0; i < 8; i++)
        assert_int_equal(hp.layers[i].window, i % 3 == 2 ? 0 : 16);
    o = (struct test_key){key, GGUF_ARRAY, 1, NULL, GGUF_BOOL, 8};
    must_read(&hp, 3, &o, 1);
    assert_int_equal(hp.layers[5].window, 16);
    o.num = 0;
    must_read(&hp, 3, &o, 1);
    assert_int_equal(hp.layers[0].window, 0);
    assert_int_equal(hp.n_rope, 1);
}

static void sizes_may_be_arrays(void **state)
{
    static const struct test_key o[] = {
        {"gemma3.feed_forward_length", GGUF_ARRAY, 48, NULL, GGUF_I32, 8},
        {"gemma3.attention.head_count", GGUF_ARRAY, 6, NULL, GGUF_U64, 8},
        {"gemma3.attention.head_count_kv", GGUF_ARRAY, 3, NULL, GGUF_U8, 8},
    };
    struct hparams hp = {0};

    must_read(&hp, 3, o, LENGTH(o));
    assert_int_equal(hp.layers[7].ffn, 48);
    assert_int_equal(hp.layers[7].n_heads, 6);
    assert_int_equal(hp.layers[7].n_kv_heads, 3);
}

static void kv_heads_default_to_the_heads(void **state)
{
    static const struct test_key o = {"gemma3.attention.head_count_kv", (uint32_t)DROPPED};
    struct hparams hp = {0};

    must_read(&hp, 3, &o, 1);
    assert_int_equal(hp.layers[0].n_kv_heads, 4);
}

static void a_forgotten_rope_factor_is_8_with_a_warning(void **state)
{
    struct test_key o[] = {{"gemma3.block_count", GGUF_U32, 34},
        {"gemma3.context_length", GGUF_U32, 131072}, {"gemma3.rope.scaling.factor", GGUF_F32, 4}};
    struct hparams hp = {0};

    must_read(&hp, 3, o, 2);
    assert_true(hp.rope[0].freq_scale == 0.125f && hp.rope[1].freq_scale == 1);
    assert_non_null(strstr(hp.warning, "gemma3.rope.scaling.factor"));
    must_read(&hp, 3, o, 3);
    assert_true(hp.rope[0].freq_scale == 0.25f);
    assert_string_equal(hp.warning, "");
    o[0].num = 26;
    must_read(&hp, 3, o, 2);
    assert_true(hp.rope[0].freq_scale == 1);
}

static void the_27b_models_scale_by_width(void **state)
{
    struct test_key o[] = {
        {"gemma3.block_count", GGUF_U32, 62}, {"gemma3.attention.scale", GGUF_F32, 0.5}};
    struct hparams hp = {0};

    must_read(&hp, 3, o, 1);
    assert_true(hp.attention_scale == 0.25f); /* (64 / 4)^-1/2, not 32^-1/2 */
    must_read(&hp, 3, o, 2);
    assert_true(hp.attention_scale == 0.5f);
}

/* One override each; the key at fault is the override's unless `param` says otherwise. */
static const struct {
    int family;
    struct test_key o;
    int code;
    const char *param;
} refused[] = {
    {3, {"general.architecture", (uint32_t)DROPPED}, GD_EFORMAT},
    {3, {"general.architecture", GGUF_U32, 3}, GD_EFORMAT},
    {3, {"general.architecture", GGUF_STRING, 0, "llama"}, GD_ENOTSUP},
    {3, {"general.architecture", GGUF_STRING, 0, "gemma5"}, GD_ENOTSUP},
    {3, {"general.architecture", GGUF_STRING, 0, "clip"}, GD_ENOTSUP},
    {3, {"general.architecture", GGUF_STRING, 0, ""}, GD_ENOTSUP},
    {3, {"general.architecture", GGUF_STRING, 0, "a\nb\xff"}, GD_ENOTSUP},
    {3, {"general.architecture", GGUF_STRING, 0, "gemma2"}, GD_EFORMAT, "gemma2.block_count"},
    {3, {"general.name", GGUF_BOOL, 1}, GD_EFORMAT},
    {3, {"gemma3.block_count", (uint32_t)DROPPED}, GD_EFORMAT},
    {3, {"gemma3.block_count", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.block_count", GGUF_U32, 257}, GD_EFORMAT},
    {3, {"gemma3.block_count", GGUF_I32, -1}, GD_EFORMAT},
    {3, {"gemma3.block_count", GGUF_I64, 4294967304.}, GD_EFORMAT},
    {3, {"gemma3.block_count", GGUF_STRING, 0, "8"}, GD_EFORMAT},
    {3, {"gemma3.block_count", GGUF_F32, 8}, GD_EFORMAT},
    {3, {"gemma3.block_count", GGUF_ARRAY, 8, NULL, GGUF_U32, 1}, GD_EFORMAT},
    {3, {"gemma3.context_length", (uint32_t)DROPPED}, GD_EFORMAT},
    {3, {"gemma3.context_length", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.context_length", GGUF_U32, 4294967295.}, GD_EFORMAT},
    {3, {"gemma3.embedding_length", (uint32_t)DROPPED}, GD_EFORMAT},
    {3, {"gemma3.embedding_length", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.embedding_length", GGUF_U32, 65537}, GD_EFORMAT},
    {3, {"gemma3.embedding_length", GGUF_U32, 128}, GD_EFORMAT, "token_embd.weight"},
    {3, {"gemma3.feed_forward_length", (uint32_t)DROPPED}, GD_EFORMAT},
    {3, {"gemma3.feed_forward_length", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.feed_forward_length", GGUF_U32, 1 << 21}, GD_EFORMAT},
    {3, {"gemma3.feed_forward_length", GGUF_ARRAY, 96, NULL, GGUF_U32, 7}, GD_EFORMAT},
    {3, {"gemma3.feed_forward_length", GGUF_ARRAY, 96, NULL, GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.feed_forward_length", GGUF_ARRAY, 96, NULL, GGUF_F32, 8}, GD_EFORMAT},
    {3, {"gemma3.feed_forward_length", GGUF_ARRAY, 0, "96", GGUF_STRING, 8}, GD_EFORMAT},
    {3, {"gemma3.feed_forward_length", GGUF_ARRAY, -1, NULL, GGUF_I8, 8}, GD_EFORMAT},
    {3, {"gemma3.attention.head_count", (uint32_t)DROPPED}, GD_EFORMAT},
    {3, {"gemma3.attention.head_count", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.attention.head_count", GGUF_U32, 1025}, GD_EFORMAT},
    {3, {"gemma3.attention.head_count", GGUF_U32, 5}, GD_EFORMAT, "gemma3.attention.head_count_kv"},
    {3, {"gemma3.attention.head_count_kv", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.attention.head_count_kv", GGUF_U32, 3}, GD_EFORMAT},
    {3, {"gemma3.attention.head_count_kv", GGUF_U32, 8}, GD_EFORMAT},
    {3, {"gemma3.attention.key_length", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.attention.key_length", GGUF_U32, 33}, GD_EFORMAT},
    {3, {"gemma3.attention.key_length", GGUF_U32, 1026}, GD_EFORMAT},
    {3, {"gemma3.attention.key_length", GGUF_U32, 64}, GD_EFORMAT, "gemma3.attention.value_length"},
    {3, {"gemma3.attention.value_length", GGUF_U32, 16}, GD_EFORMAT},
    {2, {"gemma2.embedding_length", GGUF_U32, 66}, GD_EFORMAT, "gemma2.attention.key_length"},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", (uint32_t)DROPPED}, GD_EFORMAT},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, NAN}, GD_EFORMAT},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, INFINITY}, GD_EFORMAT},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F64, 1e300}, GD_EFORMAT},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, -1e-6}, GD_EFORMAT},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, 0}, GD_EFORMAT},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", GGUF_F32, 1}, GD_EFORMAT},
    {3, {"gemma3.attention.layer_norm_rms_epsilon", GGUF_U32, 1}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window", GGUF_I32, -16}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window", GGUF_U32, 1u << 31}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window", GGUF_BOOL, 1}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window_pattern", GGUF_U32, 0}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window_pattern", GGUF_U32, 1000}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window_pattern", GGUF_STRING, 0, "6"}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window_pattern", GGUF_ARRAY, 1, NULL, GGUF_BOOL, 9}, GD_EFORMAT},
    {3, {"gemma3.attention.sliding_window_pattern", GGUF_ARRAY, 2, NULL, GGUF_I32, 8}, GD_EFORMAT},
    {3, {"gemma3.attention.scale", GGUF_F32, 0}, GD_EFORMAT},
    {3, {"gemma3.attention.scale", GGUF_F32, NAN}, GD_EFORMAT},
    {3, {"gemma3.rope.freq_base", GGUF_F32, 0}, GD_EFORMAT},
    {3, {"gemma3.rope.freq_base", GGUF_F32, -1e6}, GD_EFORMAT},
    {3, {"gemma3.rope.freq_base", GGUF_F32, NAN}, GD_EFORMAT},
    {3, {"gemma3.rope.freq_base", GGUF_U32, 10000}, GD_EFORMAT},
    {3, {"gemma3.rope.freq_base_swa", GGUF_F32, 0}, GD_EFORMAT},
    {3, {"gemma3.rope.scaling.factor", GGUF_F32, 0}, GD_EFORMAT},
    {3, {"gemma3.rope.scaling.factor", GGUF_F32, -8}, GD_EFORMAT},
    {3, {"gemma3.rope.scaling.factor", GGUF_F32, INFINITY}, GD_EFORMAT},
    {3, {"gemma3.rope.scaling.type", GGUF_STRING, 0, "yarn"}, GD_ENOTSUP},
    {3, {"gemma3.rope.scaling.type", GGUF_U32, 1}, GD_EFORMAT},
    {3, {"gemma3.rope.dimension_count", GGUF_U32, 16}, GD_EFORMAT},
    {2, {"gemma2.attn_logit_softcapping", GGUF_F32, -1}, GD_EFORMAT},
    {2, {"gemma2.attn_logit_softcapping", GGUF_F32, NAN}, GD_EFORMAT},
    {2, {"gemma2.final_logit_softcapping", GGUF_F32, INFINITY}, GD_EFORMAT},
    {2, {"gemma2.final_logit_softcapping", GGUF_STRING, 0, "30"}, GD_EFORMAT},
};

static void nonsense_is_refused_by_key(void **state)
{
    for (size_t i = 0; i < LENGTH(refused); i++) {
        const char *param = refused[i].param ? refused[i].param : refused[i].o.key;
        struct err err = {0};
        struct hparams hp = {0};
        int r = read_with(&hp, refused[i].family, &refused[i].o, 1, &err);

        if (r != refused[i].code || err.code != r || strcmp(err.param, param) != 0)
            fail_msg(
                "row %zu, %s: code %d, param %s: %s", i, refused[i].o.key, r, err.param, err.msg);
        if (err.msg[strlen(err.msg) - 1] != '.' || strchr(err.msg, '\n'))
            fail_msg("not one sentence: %s", err.msg);
    }
}

/* Gemma 4 has no period to fall back on. */
static void a_pattern_of_a_wrong_type_is_refused(void **state)
{
    static const struct test_key keys[] = {
        {"general.architecture", GGUF_STRING, 0, "gemma4"},
        {"gemma4.block_count", GGUF_U32, 4},
        {"gemma4.context_length", GGUF_U32, 8192},
        {"gemma4.embedding_length", GGUF_U32, 64},
        {"gemma4.feed_forward_length", GGUF_U32, 96},
        {"gemma4.attention.head_count", GGUF_U32, 4},
        {"gemma4.attention.layer_norm_rms_epsilon", GGUF_F32, 1e-6},
        {"gemma4.attention.sliding_window", GGUF_U32, 16},
    };
    static const struct test_key pattern = {
        "gemma4.attention.sliding_window_pattern", GGUF_STRING, 0, "x"};
    struct file f = {keys, LENGTH(keys), &pattern, 1, {64, 8}, "token_embd.weight"};
    struct hparams hp = {0};
    struct err err = {0};

    assert_int_equal(read_file(&hp, &f, &err), GD_EFORMAT);
    assert_string_equal(err.param, pattern.key);
    f.n_overrides = 0;
    assert_int_equal(read_file(&hp, &f, &err), GD_EFORMAT);
    assert_string_equal(err.param, pattern.key);
}

static void the_embedding_must_fit(void **state)
{
    struct file f = {gemma3_keys, LENGTH(gemma3_keys), NULL, 0, {64, 8}, "output.weight"};
    struct err err = {0};
    struct hparams hp = {0};

    assert_int_equal(read_file(&hp, &f, &err), GD_EFORMAT);
    assert_string_equal(err.msg, "The model file lacks the tensor token_embd.weight.");
    f.tensor = "token_embd.weight";
    f.embd_ne[0] = 32;
    assert_int_equal(read_file(&hp, &f, &err), GD_EFORMAT);
    assert_string_equal(err.param, "token_embd.weight");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_files_match_their_config),
        cmocka_unit_test(gemma2_has_defaults),
        cmocka_unit_test(gemma3_without_window_sees_everything),
        cmocka_unit_test(patterns_are_periods_or_arrays),
        cmocka_unit_test(sizes_may_be_arrays),
        cmocka_unit_test(kv_heads_default_to_the_heads),
        cmocka_unit_test(a_forgotten_rope_factor_is_8_with_a_warning),
        cmocka_unit_test(the_27b_models_scale_by_width),
        cmocka_unit_test(nonsense_is_refused_by_key),
        cmocka_unit_test(a_pattern_of_a_wrong_type_is_refused),
        cmocka_unit_test(the_embedding_must_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
