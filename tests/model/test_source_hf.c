/* Hugging Face folders: the golden ones hold what the GGUF of the same weights holds; the spellings
 * of config.json mean the same; folders that lie are refused by name. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/dtype.h"
#include "model/hparams.h"
#include "test_gguf_build.h"
#include "test_hf_build.h"

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

static struct source *open_golden(const char *below)
{
    struct source *s = NULL;
    struct err err = {0};

    if (source_open(&s, golden_path(below), &err) < 0)
        fail_msg("%s: %s", below, err.msg);
    return s;
}

static void read_hparams(struct hparams *hp, const struct source *s)
{
    struct err err = {0};

    if (hparams_read(hp, s, &err) < 0)
        fail_msg("%s: %s", source_path(s), err.msg);
}

/* The same numbers, whichever types store them. */
static void compare_tensor(const struct tensor *a, const struct tensor *b, float tolerance)
{
    size_t n = (size_t)(a->ne[0] * a->ne[1] * a->ne[2]);
    float *x = calloc(n, sizeof(*x)), *y = calloc(n, sizeof(*y));

    assert_int_equal(a->n_dims, b->n_dims);
    assert_memory_equal(a->ne, b->ne, sizeof(a->ne));
    assert_non_null(x);
    assert_non_null(y);
    dtype_find(a->type)->to_float(a->data, x, n);
    dtype_find(b->type)->to_float(b->data, y, n);
    for (size_t i = 0; i < n; i++)
        if (!(fabsf(x[i] - y[i]) <= tolerance * fabsf(y[i])))
            fail_msg("%s[%zu]: %g, but %g", a->name, i, (double)x[i], (double)y[i]);
    free(x);
    free(y);
}

static bool a_float_file(const struct source *s)
{
    return source_tensor(s, "token_embd.weight")->type == DTYPE_F32;
}

static void golden_folders_equal_their_gguf(void **state)
{
    static const struct {
        const char *folder, *gguf;
        float norm_tolerance; /* an F16 GGUF has its norms rounded to f16 */
        float scale;          /* of attention, as config.json says */
    } cases[] = {
        {"families/gemma1", "families/gemma1/model-bf16.gguf", 0, 32},
        {"families/gemma2", "families/gemma2/model-f16.gguf", 1e-3f, 24},
        {"families/gemma3", "families/gemma3/model-bf16.gguf", 0, 32},
        {"families/gemma3-mm/", "families/gemma3-mm/model-bf16.gguf", 0, 32},
        {"families/gemma3n", "families/gemma3n/model-bf16.gguf", 0, 1},
        {"families/gemma4-dense", "families/gemma4-dense/model-bf16.gguf", 0, 1},
        {"families/gemma4-e2b", "families/gemma4-e2b/model-bf16.gguf", 0, 1},
        {"families/gemma4-moe", "families/gemma4-moe/model-bf16.gguf", 0, 1},
        {"families/gemma4-assistant", "families/gemma4-assistant/model-bf16.gguf", 0, 1},
        {"families/embeddinggemma", "families/embeddinggemma/model-bf16.gguf", 0, 32},
    };

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct source *folder = open_golden(cases[i].folder), *file = open_golden(cases[i].gguf);
        struct hparams a = {0}, b = {0};

        assert_true(source_is_folder(folder));
        assert_false(source_is_folder(file));
        assert_int_equal(source_n_tensors(folder), source_n_tensors(file));
        for (size_t k = 0; k < source_n_tensors(file); k++) {
            const struct tensor *t = source_tensor_at(file, k);
            const struct tensor *mine = source_tensor(folder, t->name);

            assert_non_null(mine);
            /* EmbeddingGemma is published as F32 */
            assert_true(mine->type == t->type || a_float_file(folder));
            compare_tensor(mine, t, t->n_dims == 1 ? cases[i].norm_tolerance : 0);
        }
        read_hparams(&a, folder);
        read_hparams(&b, file);
        assert_true(fabsf(a.attention_scale - 1 / sqrtf(cases[i].scale)) < 1e-7f);
        assert_string_equal(a.name, b.name); /* the folder is named as the model */
        b.attention_scale = a.attention_scale;
        assert_memory_equal(&a, &b, sizeof(a));
        source_close(folder);
        source_close(file);
    }
}

static void the_longest_names_are_known(void **state)
{
    static const char *const prefixes[] = {
        "", "model.", "model.language_model.", "language_model.model."};

    for (size_t i = 0; i < LENGTH(prefixes); i++) {
        struct source *s = NULL;
        struct err err = {0};

        hf_folder_write(&(struct hf_folder){.prefix = prefixes[i]});
        if (source_open(&s, hf_folder_path(), &err) < 0)
            fail_msg("prefix \"%s\": %s", prefixes[i], err.msg);
        assert_int_equal(source_n_tensors(s), 15);
        assert_non_null(source_tensor(s, "blk.0.post_ffw_norm.weight"));
        source_close(s);
    }
}

/* The base config with a part replaced. */
static void read_config(struct hparams *hp, const char *find, const char *replace)
{
    struct source *s = NULL;
    struct err err = {0};

    hf_folder_write(&(struct hf_folder){.find = find, .replace = replace});
    if (source_open(&s, hf_folder_path(), &err) < 0)
        fail_msg("%s: %s", replace, err.msg);
    read_hparams(hp, s);
    source_close(s);
}

static void rope_is_read_in_both_styles(void **state)
{
    static const char old[] = "\"rope_scaling\": null";
    static const struct {
        const char *text;
        float base, scale, local;
    } cases[] = {
        {"\"rope_scaling\": null", 500000, 1, 2000},
        {"\"rope_scaling\": {\"rope_type\": \"linear\", \"factor\": 8}", 500000, 0.125f, 2000},
        {"\"rope_scaling\": {\"type\": \"linear\", \"factor\": 4.0}", 500000, 0.25f, 2000},
        {"\"rope_scaling\": {\"rope_type\": \"default\"}", 500000, 1, 2000},
        {"\"rope_parameters\": {\"rope_theta\": 7000, \"rope_type\": \"linear\", \"factor\": 2}",
            7000, 0.5f, 2000},
        {"\"rope_parameters\": {\"full_attention\": {\"rope_theta\": 8000, \"rope_type\": "
         "\"linear\", \"factor\": 2}, \"sliding_attention\": {\"rope_theta\": 300, \"rope_type\": "
         "\"default\"}}",
            8000, 0.5f, 300},
        {"\"rope_parameters\": {\"full_attention\": {}}", 500000, 1, 2000},
    };

    for (size_t i = 0; i < LENGTH(cases); i++) {
        struct hparams hp = {0};

        read_config(&hp, old, cases[i].text);
        assert_int_equal(hp.n_rope, 2);
        assert_true(hp.rope[0].freq_base == cases[i].base);
        assert_true(hp.rope[0].freq_scale == cases[i].scale);
        assert_true(hp.rope[1].freq_base == cases[i].local && hp.rope[1].freq_scale == 1);
        assert_string_equal(hp.warning, "");
    }
}

static void layers_are_listed_or_counted(void **state)
{
    static const char old[] = "\"sliding_window_pattern\": 2";
    struct hparams hp = {0};

    read_config(&hp, old, old);
    assert_int_equal(hp.layers[0].window, 16);
    assert_int_equal(hp.layers[1].window, 0);
    read_config(&hp, old, "\"_sliding_window_pattern\": 1");
    assert_int_equal(hp.layers[0].window, 0);
    read_config(&hp, old, "\"layer_types\": [\"full_attention\", \"sliding_attention\"]");
    assert_int_equal(hp.layers[0].window, 0);
    assert_int_equal(hp.layers[1].window, 16);
    read_config(&hp, old, "\"layer_types\": null");
    assert_int_equal(hp.layers[1].window, 16); /* 6 by default */
}

static void what_config_leaves_out_is_the_default(void **state)
{
    struct hparams hp = {0};

    read_config(&hp, "\"sliding_window\": 16,", "");
    assert_int_equal(hp.layers[0].window, 4096);
    read_config(&hp, "\"rms_norm_eps\": 1e-5,", "");
    assert_true(hp.norm_eps == 1e-6f);
    read_config(&hp, "\"query_pre_attn_scalar\": 64,", "");
    assert_true(hp.attention_scale == 1 / 16.f);
    read_config(&hp, "\"rope_theta\": 500000,", "");
    assert_true(hp.rope[0].freq_base == 1e6f);
    read_config(&hp, "\"max_position_embeddings\": 64", "\"max_position_embeddings\": null");
    assert_int_equal(hp.context, 131072);
    read_config(&hp, "\"rope_scaling\": null", "\"final_logit_softcapping\": 25");
    assert_true(hp.final_softcap == 25 && hp.attention_softcap == 0);
}

static void the_family_is_named_in_several_ways(void **state)
{
    struct hparams hp = {0};

    read_config(&hp, "\"model_type\": \"gemma3_text\",", "");
    assert_int_equal(hp.arch, GEMMA_3);
    read_config(&hp, "\"gemma3_text\",",
        "\"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\", \"hidden_size\": 8, "
        "\"num_hidden_layers\": 1},");
    assert_int_equal(hp.n_layers, 1);
    assert_int_equal(hp.layers[0].ffn, 9216);
}

static void a_separate_head_is_kept_when_config_says_so(void **state)
{
    struct source *s = NULL;
    struct err err = {0};
    struct hparams hp = {0};

    hf_folder_write(&(struct hf_folder){.extra = "lm_head.weight"});
    assert_int_equal(source_open(&s, hf_folder_path(), &err), 0);
    assert_null(source_tensor(s, "output.weight")); /* tied: a duplicate */
    source_close(s);
    hf_folder_write(&(struct hf_folder){.extra = "lm_head.weight",
        .find = "\"rope_scaling\": null",
        .replace = "\"tie_word_embeddings\": false"});
    assert_int_equal(source_open(&s, hf_folder_path(), &err), 0);
    assert_non_null(source_tensor(s, "output.weight"));
    read_hparams(&hp, s);
    assert_true(hp.separate_head);
    source_close(s);
}

static void towers_are_skipped(void **state)
{
    static const char *const names[] = {"vision_tower.vision_model.post_layernorm.weight",
        "model.multi_modal_projector.mm_soft_emb_norm.weight", "audio_tower.conv.weight",
        "model.layers.0.self_attn.rotary_emb.inv_freq"};

    for (size_t i = 0; i < LENGTH(names); i++) {
        struct source *s = NULL;
        struct err err = {0};

        hf_folder_write(&(struct hf_folder){.extra = names[i]});
        if (source_open(&s, hf_folder_path(), &err) < 0)
            fail_msg("%s: %s", names[i], err.msg);
        assert_int_equal(source_n_tensors(s), 15);
        source_close(s);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_folders_equal_their_gguf),
        cmocka_unit_test(the_longest_names_are_known),
        cmocka_unit_test(rope_is_read_in_both_styles),
        cmocka_unit_test(layers_are_listed_or_counted),
        cmocka_unit_test(what_config_leaves_out_is_the_default),
        cmocka_unit_test(the_family_is_named_in_several_ways),
        cmocka_unit_test(a_separate_head_is_kept_when_config_says_so),
        cmocka_unit_test(towers_are_skipped),
    };

    return cmocka_run_group_tests(tests, hf_folder_create, hf_folder_remove);
}
