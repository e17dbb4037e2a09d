/* Folders of Gemma 3n, Gemma 4, the embedders and drafters: what their config.json may say in other
 * words, and what is refused by name. Each test spoils a copy of a golden folder. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/buf.h"
#include "model/hparams.h"
#include "test_gguf_build.h"
#include "test_hf_build.h"

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

static const char *const parts[] = {"config.json", "model.safetensors", "modules.json",
    "1_Pooling/config.json", "2_Dense/config.json", "2_Dense/model.safetensors",
    "3_Dense/config.json", "3_Dense/model.safetensors"};

/* The text of a golden file; false when the folder has none. */
static bool read_part(struct buf *b, const char *family, const char *part)
{
    char below[128], piece[65536];
    FILE *f;
    size_t n;

    snprintf(below, sizeof(below), "families/%s/%s", family, part);
    f = fopen(golden_path(below), "rb");
    if (!f)
        return false;
    while ((n = fread(piece, 1, sizeof(piece), f)) > 0)
        buf_append(b, piece, n);
    fclose(f);
    return true;
}

/* Every occurrence; the bytes may hold zeros. */
static size_t replace_all(struct buf *b, const char *find, const char *by)
{
    size_t len = strlen(find), count = 0, at = 0;
    struct buf out = {0};

    while (at < b->len) {
        if (b->len - at >= len && memcmp(b->data + at, find, len) == 0) {
            buf_puts(&out, by);
            at += len;
            count++;
        } else {
            buf_putc(&out, b->data[at++]);
        }
    }
    buf_free(b);
    *b = out;
    return count;
}

/* A copy of a golden folder with `find` replaced in one part; by NULL: without the part. */
static void copy(const char *family, const char *part, const char *find, const char *by)
{
    for (size_t i = 0; i < LENGTH(parts); i++) {
        struct buf b = {0};

        hf_file_remove(parts[i]);
        if (!read_part(&b, family, parts[i]))
            continue;
        if (part && strcmp(part, parts[i]) == 0 && (!by || replace_all(&b, find, by) == 0)) {
            buf_free(&b);
            if (by)
                fail_msg("%s/%s: no \"%s\"", family, part, find);
            continue;
        }
        hf_file_write(parts[i], b.data, b.len);
        buf_free(&b);
    }
}

static int read_copy(struct hparams *hp, struct source **s, struct err *err)
{
    int r = source_open(s, hf_folder_path(), err);

    if (r < 0)
        return r;
    r = hparams_read(hp, *s, err);
    if (r < 0)
        source_close(*s);
    return r;
}

static void must_read(struct hparams *hp, struct source **s)
{
    struct err err = {0};

    if (read_copy(hp, s, &err) < 0)
        fail_msg("%s", err.msg);
}

static void an_embedding_gemma_2_is_read(void **state)
{
    struct hparams hp = {0};
    struct source *s = NULL;

    copy("embeddinggemma2", NULL, NULL, NULL);
    must_read(&hp, &s);
    assert_int_equal(hp.arch, GEMMA_EMBEDDING_2);
    assert_true(hp.bidirectional && hp.qk_norm && hp.post_norms && hp.v_norm);
    assert_int_equal(hp.token_proj, 40);
    assert_int_equal(hp.n_dense, 0);
    assert_int_equal(hp.per_layer_width, 24);
    assert_int_equal(hp.per_layer_vocab, 0);
    assert_true(hp.attention_scale == 1 && hp.final_softcap == 0);
    assert_int_equal(hp.layers[0].window, 7); /* |q - k| <= 6 */
    assert_int_equal(hp.layers[0].head_dim, 16);
    assert_int_equal(hp.layers[0].n_kv_heads, 2);
    assert_int_equal(hp.layers[2].window, 0);
    assert_int_equal(hp.layers[2].head_dim, 32);
    assert_int_equal(hp.layers[2].n_kv_heads, 1);
    assert_true(hp.layers[2].scaled && !hp.layers[2].v_from_k);
    assert_true(hp.rope[0].freq_base == 1e6f && hp.rope[0].n_dims == 32 && !hp.rope[0].factors);
    assert_true(hp.rope[1].freq_base == 1e4f && hp.rope[1].n_dims == 16);
    assert_non_null(source_tensor(s, "token_proj.weight"));
    assert_non_null(source_tensor(s, "blk.5.inp_gate.weight"));
    source_close(s);
}

static void a_drafter_is_read(void **state)
{
    struct hparams hp = {0};
    struct source *s = NULL;

    copy("gemma4-assistant", "config.json", "\"num_kv_shared_layers\": 4", "\"x\": 4");
    must_read(&hp, &s);
    assert_int_equal(hp.arch, GEMMA_4_ASSISTANT);
    assert_int_equal(hp.backbone_width, 64);
    assert_true(hp.rope[0].factors && hp.final_softcap == 0 && hp.per_layer_width == 0);
    for (int i = 0; i < hp.n_layers; i++)
        assert_int_equal(hp.layers[i].kv_layer, -1);
    assert_non_null(source_tensor(s, "nextn.pre_projection.weight"));
    source_close(s);
    copy("gemma4-assistant", "config.json", "\"backbone_hidden_size\": 64,", "");
    must_read(&hp, &s);
    assert_int_equal(hp.backbone_width, 1536);
    source_close(s);
}

/* Replaces the first by the second, in config.json; the model must stay the same one. */
static const struct {
    const char *family, *find, *by;
} same[] = {
    {"gemma4-dense", "\"global_head_dim\": 64",
        "\"per_layer_config\": {\"2\": {\"head_dim\": 64}, \"5\": {\"head_dim\": 64}}"},
    {"gemma4-dense", "\"num_global_key_value_heads\": 1",
        "\"per_layer_config\": {\"2\": {\"num_key_value_heads\": 1, \"head_dim\": 64}, \"5\": "
        "{\"num_key_value_heads\": 1, \"head_dim\": 64}}"},
    {"gemma4-dense", "\"use_bidirectional_attention\": null",
        "\"use_bidirectional_attention\": \"vision\""},
    {"gemma4-dense", "\"num_kv_shared_layers\": 0,", ""},
    {"gemma4-dense", "\"model_type\": \"gemma4\"", "\"model_type\": \"gemma4_unified\""},
    {"gemma4-dense", "\"rope_parameters\": {", "\"rope_parameters\": null, \"x\": {"},
    {"gemma4-dense", "\"rope_type\": \"default\",", ""},
    {"gemma4-e2b", "\"use_double_wide_mlp\": true",
        "\"per_layer_config\": {\"2\": {\"head_dim\": 64}, \"3\": {\"intermediate_size\": 112}, "
        "\"4\": {\"intermediate_size\": 112}, \"5\": {\"head_dim\": 64, \"intermediate_size\": "
        "112}}"},
    {"gemma3n", "\"altup_correct_scale\": true,", ""},
    {"gemma3n", "[56, 56, 56, 56, 56, 56]", "56"},
    {"gemma3n", "\"final_logit_softcapping\": 30.0,", ""},
    {"gemma3n", "\"model_type\": \"gemma3n\"", "\"model_type\": \"gemma3n_text\""},
    {"embeddinggemma", "\"architectures\"", "\"architecture\""},
};

static void other_words_mean_the_same(void **state)
{
    for (size_t i = 0; i < LENGTH(same); i++) {
        struct hparams a = {0}, b = {0};
        struct source *s = NULL, *t = NULL;
        struct err err = {0};

        copy(same[i].family, NULL, NULL, NULL);
        must_read(&a, &s);
        source_close(s);
        copy(same[i].family, "config.json", same[i].find, same[i].by);
        if (read_copy(&b, &t, &err) < 0)
            fail_msg("row %zu, %s: %s", i, same[i].find, err.msg);
        assert_memory_equal(&a, &b, sizeof(a));
        source_close(t);
    }
}

static void proportional_rotation_becomes_factors(void **state)
{
    struct hparams hp = {0};
    struct source *s = NULL;
    const struct tensor *t;
    float f[32];

    copy("gemma4-dense", "config.json", "\"partial_rotary_factor\": 0.25",
        "\"partial_rotary_factor\": 0.5, \"factor\": 2");
    must_read(&hp, &s);
    assert_true(hp.rope[0].factors && hp.rope[0].freq_scale == 1);
    t = source_tensor(s, "rope_freqs.weight");
    assert_int_equal(t->ne[0], 32);
    memcpy(f, t->data, sizeof(f));
    for (int i = 0; i < 32; i++)
        assert_true(f[i] == (i < 16 ? 2 : 1e30f));
    source_close(s);
    copy("gemma4-dense", "config.json", "\"proportional\",\n    \"partial_rotary_factor\": 0.25",
        "\"default\"");
    must_read(&hp, &s);
    assert_false(hp.rope[0].factors);
    source_close(s);
}

static void sparsity_becomes_a_cut(void **state)
{
    struct hparams hp = {0};
    struct source *s = NULL;

    copy("gemma3n", "config.json", "[0.95, 0.95, 0.95, 0.0, 0.0, 0.0]",
        "[0.75, 0.999, 0.95, 0, 0.0, 0.6]");
    must_read(&hp, &s);
    assert_true(fabsf(hp.layers[0].sparsity - 0.67448975f) < 1e-6f);
    assert_true(fabsf(hp.layers[1].sparsity - 3.0902323f) < 1e-5f);
    assert_true(hp.layers[2].sparsity == 1.6448535919189453f); /* the converter's */
    assert_true(hp.layers[3].sparsity == 0);
    assert_true(fabsf(hp.layers[5].sparsity - 0.2533471f) < 1e-6f);
    source_close(s);
    copy("gemma3n", "config.json",
        "\"activation_sparsity_pattern\": [0.95, 0.95, 0.95, 0.0, 0.0, 0.0]", "\"x\": 0");
    must_read(&hp, &s);
    for (int i = 0; i < 6; i++) /* cut by default in models of more than ten layers */
        assert_true(hp.layers[i].sparsity == 0);
    source_close(s);
}

static void dense_maps_follow_the_mean(void **state)
{
    struct hparams hp = {0};
    struct source *s = NULL;

    copy("embeddinggemma", NULL, NULL, NULL);
    must_read(&hp, &s);
    assert_int_equal(hp.n_dense, 2);
    assert_int_equal(hp.dense_out[0], 96);
    assert_int_equal(hp.dense_out[1], 64);
    assert_int_equal(hp.layers[0].window, 9); /* |q - k| <= 16 / 2 */
    assert_string_equal(hp.warning, "");
    source_close(s);
    copy("embeddinggemma", "modules.json", NULL, NULL);
    must_read(&hp, &s);
    assert_int_equal(hp.n_dense, 0);
    assert_non_null(strstr(hp.warning, "dense"));
    source_close(s);
}

/* Slices in a row are used where they lie; others are copied together. */
static void slices_may_lie_in_any_order(void **state)
{
    const struct tensor *t;
    struct hparams hp = {0};
    struct source *s = NULL;
    struct buf b = {0};
    uint8_t *whole;
    size_t one;

    copy("gemma3n", NULL, NULL, NULL);
    must_read(&hp, &s);
    t = source_tensor(s, "altup_proj.weight");
    assert_false(t->in_memory);
    one = t->bytes / 3;
    whole = malloc(t->bytes);
    assert_non_null(whole);
    memcpy(whole, t->data, t->bytes);
    source_close(s);

    assert_true(read_part(&b, "gemma3n", "model.safetensors"));
    replace_all(&b, "altup_projections.0.w", "altup_projections.x.w");
    replace_all(&b, "altup_projections.1.w", "altup_projections.0.w");
    replace_all(&b, "altup_projections.x.w", "altup_projections.1.w");
    hf_file_write("model.safetensors", b.data, b.len);
    buf_free(&b);
    must_read(&hp, &s);
    t = source_tensor(s, "altup_proj.weight");
    assert_true(t->in_memory);
    assert_memory_equal(t->data, whole + one, one);
    assert_memory_equal(t->data + one, whole, one);
    assert_memory_equal(t->data + 2 * one, whole + 2 * one, one);
    source_close(s);
    free(whole);
}

static const struct {
    const char *family, *part, *find, *by; /* by NULL: without the part */
    int code;
    const char *param, *text;
} refused[] = {
    {"gemma3n", "config.json", "\"altup_correct_scale\": true", "\"altup_correct_scale\": false",
        GD_ENOTSUP, "altup_correct_scale", "true"},
    {"gemma3n", "config.json", "\"altup_num_inputs\": 4", "\"altup_num_inputs\": 5", GD_EFORMAT,
        "altup_num_inputs", "between"},
    {"gemma3n", "config.json", "\"altup_active_idx\": 0", "\"altup_active_idx\": 1", GD_EFORMAT,
        "altup_active_idx", "between"},
    {"gemma3n", "config.json", "[0.95, 0.95", "[0.95", GD_EFORMAT, "activation_sparsity_pattern",
        "per layer"},
    {"gemma3n", "config.json", "[0.95, 0.95", "[0.95, 1", GD_EFORMAT, "activation_sparsity_pattern",
        "below 1"},
    {"gemma3n", "config.json", "[0.95, 0.95", "[0.95, 0.3", GD_ENOTSUP,
        "activation_sparsity_pattern", "0.5"},
    {"gemma3n", "config.json", "[56, 56", "[56", GD_EFORMAT, "intermediate_size", "per layer"},
    {"gemma3n", "config.json", "[56, 56", "[56, 5.6", GD_EFORMAT, "intermediate_size", "whole"},
    {"gemma3n", "config.json", "\"num_kv_shared_layers\": 3", "\"num_kv_shared_layers\": 6",
        GD_EFORMAT, "num_kv_shared_layers", "between"},
    {"gemma3n", "config.json", "\"num_kv_shared_layers\": 3", "\"num_kv_shared_layers\": 5",
        GD_EFORMAT, "num_kv_shared_layers", "no layer before"},
    {"gemma3n", "config.json", "\"vocab_size_per_layer_input\": 512",
        "\"vocab_size_per_layer_input\": 500", GD_EFORMAT, "vocab_size_per_layer_input",
        "512 rows"},
    {"gemma3n", "config.json", "\"hidden_size_per_layer_input\": 16",
        "\"hidden_size_per_layer_input\": 15", GD_EFORMAT, "per_layer_token_embd.weight", "6 x 15"},
    {"gemma3n", "model.safetensors", "altup_projections.1.w", "altup_projections.2.w", GD_EFORMAT,
        "model.language_model.altup_projections.2.weight", "twice"},
    {"gemma3n", "model.safetensors", "altup_projections.1.w", "altup_projections.3.w", GD_ENOTSUP,
        "model.language_model.altup_projections.3.weight", "no tensor"},
    {"gemma3n", "model.safetensors", "model.language_model.altup_projections.1.w",
        "vision_tower.pad_pad_pad_pad_pad_pad_pad.w", GD_EFORMAT, "altup_projections.1.weight",
        "lacks"},
    {"gemma4-dense", "config.json", "\"use_bidirectional_attention\": null",
        "\"use_bidirectional_attention\": \"all\"", GD_ENOTSUP, "use_bidirectional_attention",
        "embedding"},
    {"gemma4-dense", "config.json", "\"global_head_dim\": 64",
        "\"per_layer_config\": {\"2\": {\"head_dim\": 64}}", GD_ENOTSUP, "head_dim", "differs"},
    {"gemma4-dense", "config.json", "\"global_head_dim\": 64",
        "\"per_layer_config\": {\"6\": {\"head_dim\": 64}}", GD_EFORMAT, "per_layer_config",
        "each layer"},
    {"gemma4-dense", "config.json", "\"global_head_dim\": 64",
        "\"per_layer_config\": {\"2\": {\"sliding_window\": 64}}", GD_ENOTSUP, "per_layer_config",
        "other than"},
    {"gemma4-dense", "config.json", "\"global_head_dim\": 64",
        "\"per_layer_config\": {\"2\": {\"head_dim\": -64}}", GD_EFORMAT, "per_layer_config",
        "whole"},
    {"gemma4-dense", "config.json", "\"partial_rotary_factor\": 0.25",
        "\"partial_rotary_factor\": 0", GD_EFORMAT, "partial_rotary_factor", "above 0"},
    {"gemma4-dense", "config.json", "\"proportional\"", "\"yarn\"", GD_ENOTSUP,
        "partial_rotary_factor", "whole heads"},
    {"gemma4-dense", "config.json", "\"rope_parameters\": {",
        "\"rope_parameters\": {\"rope_theta\": 10000}, \"x\": {", GD_EFORMAT, "rope_parameters",
        "full_attention"},
    {"gemma4-moe", "config.json", "\"num_experts\": 8", "\"num_experts\": null", GD_EFORMAT,
        "num_experts", "missing"},
    {"gemma4-moe", "config.json", "\"top_k_experts\": 2", "\"top_k_experts\": 9", GD_EFORMAT,
        "top_k_experts", "between"},
    {"gemma4-moe", "model.safetensors", "layers.3.router.proj.weight",
        "layers.3.router.xxxx.weight", GD_ENOTSUP,
        "model.language_model.layers.3.router.xxxx.weight", "no tensor"},
    {"gemma4-assistant", "config.json", "\"num_kv_shared_layers\": 4",
        "\"num_kv_shared_layers\": 3", GD_EFORMAT, "num_kv_shared_layers", "drafter"},
    {"gemma4-assistant", "config.json", "\"backbone_hidden_size\": 64",
        "\"backbone_hidden_size\": 0", GD_EFORMAT, "backbone_hidden_size", "above 0"},
    {"gemma4-assistant", "config.json", "gemma4_text", "gemma3_text", GD_ENOTSUP, "model_type",
        "gemma3_text"},
    {"embeddinggemma2", "config.json", "\"embedding_dim\": 40", "\"embedding_dim\": 0", GD_EFORMAT,
        "embedding_dim", "between"},
    {"embeddinggemma", "modules.json", "2_Dense", "../2_D", GD_EFORMAT, "path", "module 2"},
    {"embeddinggemma", "modules.json", "models.Normalize", "models.LSTM", GD_ENOTSUP,
        "modules.json", "LSTM"},
    {"embeddinggemma", "modules.json", "[", "{\"a\": [", GD_EFORMAT, "modules.json", ""},
    {"embeddinggemma", "1_Pooling/config.json", "\"pooling_mode_max_tokens\": false",
        "\"pooling_mode_max_tokens\": true", GD_ENOTSUP, "1_Pooling/config.json", "mean alone"},
    {"embeddinggemma", "1_Pooling/config.json", NULL, NULL, GD_ENOENT, "", "config.json"},
    {"embeddinggemma", "2_Dense/config.json", "\"bias\": false", "\"bias\": true", GD_ENOTSUP,
        "2_Dense/config.json", "bias"},
    {"embeddinggemma", "3_Dense/config.json", "Identity", "Tanh", GD_ENOTSUP, "3_Dense/config.json",
        "activation"},
    {"embeddinggemma", "3_Dense/config.json", "\"in_features\": 96", "\"in_features\": 97",
        GD_EFORMAT, "in_features", "shape"},
    {"embeddinggemma", "3_Dense/model.safetensors", "linear.weight", "linear.height", GD_ENOTSUP,
        "linear.weight", "other than"},
    {"embeddinggemma", "2_Dense/model.safetensors", NULL, NULL, GD_ENOENT, "", "model.safetensors"},
};

static void what_cannot_be_is_refused_by_name(void **state)
{
    for (size_t i = 0; i < LENGTH(refused); i++) {
        struct hparams hp = {0};
        struct source *s = NULL;
        struct err err = {0};
        int r;

        copy(refused[i].family, refused[i].part, refused[i].find, refused[i].by);
        r = read_copy(&hp, &s, &err);
        if (r != refused[i].code || strcmp(err.param, refused[i].param) != 0 ||
            !strstr(err.msg, refused[i].text))
            fail_msg("row %zu, %s %s: code %d, param \"%s\": %s", i, refused[i].family,
                refused[i].by ? refused[i].by : refused[i].part, r, err.param, err.msg);
        if (err.msg[strlen(err.msg) - 1] != '.' || strchr(err.msg, '\n'))
            fail_msg("not one sentence: %s", err.msg);
    }
}

static int set_up(void **state)
{
    char command[512];

    if (hf_folder_create(state) < 0)
        return -1;
    snprintf(command, sizeof(command), "mkdir %s/1_Pooling %s/2_Dense %s/3_Dense", hf_folder_path(),
        hf_folder_path(), hf_folder_path());
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_embedding_gemma_2_is_read),
        cmocka_unit_test(a_drafter_is_read),
        cmocka_unit_test(other_words_mean_the_same),
        cmocka_unit_test(proportional_rotation_becomes_factors),
        cmocka_unit_test(sparsity_becomes_a_cut),
        cmocka_unit_test(dense_maps_follow_the_mean),
        cmocka_unit_test(slices_may_lie_in_any_order),
        cmocka_unit_test(what_cannot_be_is_refused_by_name),
    };

    return cmocka_run_group_tests(tests, set_up, hf_folder_remove);
}
