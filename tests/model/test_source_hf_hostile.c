/* Hugging Face folders that lie: one sentence that names the culprit, and nothing worse. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "model/hparams.h"
#include "model/source.h"
#include "test_hf_build.h"
#include "test_source_read.h"

#define LENGTH(a) (sizeof(a) / sizeof(*(a)))

/* Opens the folder and reads its hyper-parameters; the error of whichever refuses. */
static int open_folder(struct err *err)
{
    struct source *s;
    struct hparams hp;
    int r = source_open(&s, hf_folder_path(), err);

    if (r < 0)
        return r;
    r = hparams_read(&hp, s, err);
    source_close(s);
    return r;
}

static void expect(const char *what, int code, const char *param, const char *text)
{
    struct err err = {0};
    int r = open_folder(&err);

    if (r != code || err.code != r)
        fail_msg("%s: code %d: %s", what, r, err.msg);
    if (strcmp(err.param, param) != 0)
        fail_msg("%s: param \"%s\": %s", what, err.param, err.msg);
    if (!strstr(err.msg, text))
        fail_msg("%s: no \"%s\" in: %s", what, text, err.msg);
    check_sentence(&err);
}

#define DEEP16 "[[[[[[[[[[[[[[[["

static const struct {
    const char *find, *replace;
    int code;
    const char *param, *text;
} configs[] = {
    /* what kind of model */
    {"gemma3_text", "llama", GD_ENOTSUP, "model_type", "\"llama\""},
    {"gemma3_text", "gemma5_text", GD_ENOTSUP, "model_type", "does not support gemma5_text"},
    {"\"gemma3_text\",", "\"gemma3\", \"text_config\": {\"model_type\": \"gemma4_text\"},",
        GD_ENOTSUP, "model_type", "gemma4_text"},
    {"\"gemma3_text\"", "7", GD_EFORMAT, "model_type", "must be a string"},
    {"\"model_type\": \"gemma3_text\",",
        "\"model_type\": \"paligemma\", \"text_config\": {\"model_type\": \"gemma\"},", GD_ENOTSUP,
        "model_type", "paligemma"},
    {"\"model_type\"", "\"text_config\": 5, \"model_type\"", GD_EFORMAT, "text_config",
        "an object"},
    {"\"vocab_size\"", "\"use_bidirectional_attention\": \"all\", \"vocab_size\"", GD_ENOTSUP,
        "use_bidirectional_attention", "embedding model"},
    {"\"vocab_size\"", "\"attention_bias\": true, \"vocab_size\"", GD_ENOTSUP, "attention_bias",
        "biases"},
    {"\"vocab_size\"", "\"quantization_config\": {\"quant_method\": \"awq\"}, \"vocab_size\"",
        GD_ENOTSUP, "quantization_config", "quantised"},
    {"\"vocab_size\"", "\"quantization\": {\"bits\": 4}, \"vocab_size\"", GD_ENOTSUP,
        "quantization", "quantised"},
    {"gelu_pytorch_tanh", "silu", GD_ENOTSUP, "hidden_activation", "gelu_pytorch_tanh"},
    {"\"gelu_pytorch_tanh\"", "1", GD_ENOTSUP, "hidden_activation", "gelu_pytorch_tanh"},
    /* numbers */
    {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 0", GD_EFORMAT, "num_hidden_layers",
        "256"},
    {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 257", GD_EFORMAT, "num_hidden_layers", ""},
    {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": -1", GD_EFORMAT, "num_hidden_layers", ""},
    {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 2.5", GD_EFORMAT, "num_hidden_layers", ""},
    {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1e400", GD_EFORMAT, "num_hidden_layers",
        "must be a number"},
    {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": \"2\"", GD_EFORMAT, "num_hidden_layers",
        "must be a number"},
    {"\"hidden_size\": 8", "\"hidden_size\": 8.5", GD_EFORMAT, "hidden_size", "whole number"},
    {"\"hidden_size\": 8", "\"hidden_size\": -8", GD_EFORMAT, "hidden_size", "whole number"},
    {"\"hidden_size\": 8", "\"hidden_size\": 1e18", GD_EFORMAT, "hidden_size", "whole number"},
    {"\"hidden_size\": 8", "\"hidden_size\": [8]", GD_EFORMAT, "hidden_size", "a number"},
    {"\"hidden_size\": 8", "\"hidden_size\": 0", GD_EFORMAT, "hidden_size", "between"},
    {"\"hidden_size\": 8", "\"hidden_size\": 16", GD_EFORMAT, "token_embd.weight", "rows of 16"},
    {"\"head_dim\": 4", "\"head_dim\": 5", GD_EFORMAT, "head_dim", "even"},
    {"\"num_key_value_heads\": 1", "\"num_key_value_heads\": 0", GD_EFORMAT, "num_key_value_heads",
        "between"},
    {"\"rms_norm_eps\": 1e-5", "\"rms_norm_eps\": 0", GD_EFORMAT, "rms_norm_eps", "between"},
    {"\"rms_norm_eps\": 1e-5", "\"rms_norm_eps\": true", GD_EFORMAT, "rms_norm_eps", "a number"},
    {"\"query_pre_attn_scalar\": 64", "\"query_pre_attn_scalar\": 0", GD_EFORMAT,
        "query_pre_attn_scalar", "above 0"},
    {"\"vocab_size\": 4", "\"vocab_size\": 5", GD_EFORMAT, "vocab_size", "4 rows"},
    {"\"vocab_size\": 4", "\"vocab_size\": -5", GD_EFORMAT, "vocab_size", "whole number"},
    {"\"vocab_size\": 4", "\"final_logit_softcapping\": -5", GD_EFORMAT, "final_logit_softcapping",
        "at least 0"},
    /* layers and windows */
    {"\"sliding_window\": 16", "\"sliding_window\": null", GD_EFORMAT, "sliding_window", "above 0"},
    {"\"sliding_window\": 16", "\"sliding_window\": 0", GD_EFORMAT, "sliding_window", "above 0"},
    {"\"sliding_window\": 16", "\"sliding_window\": -1", GD_EFORMAT, "sliding_window", "above 0"},
    {"\"sliding_window_pattern\": 2", "\"sliding_window_pattern\": 0", GD_EFORMAT,
        "sliding_window_pattern", "256"},
    {"\"sliding_window_pattern\": 2", "\"layer_types\": 2", GD_EFORMAT, "layer_types", "an array"},
    {"\"sliding_window_pattern\": 2", "\"layer_types\": [\"full_attention\"]", GD_EFORMAT,
        "layer_types", "one element per layer"},
    {"\"sliding_window_pattern\": 2", "\"layer_types\": [\"full_attention\", \"linear\"]",
        GD_EFORMAT, "layer_types", "only"},
    {"\"sliding_window_pattern\": 2", "\"layer_types\": [\"full_attention\", 1]", GD_EFORMAT,
        "layer_types", "only"},
    /* rope */
    {"\"rope_theta\": 500000", "\"rope_theta\": -1", GD_EFORMAT, "rope_theta", "at least"},
    {"\"rope_scaling\": null", "\"rope_scaling\": 8", GD_EFORMAT, "rope_scaling", "an object"},
    {"\"rope_scaling\": null", "\"rope_scaling\": {\"rope_type\": \"yarn\"}", GD_ENOTSUP,
        "rope_scaling", "other than"},
    {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": 3}", GD_ENOTSUP, "rope_scaling",
        "other than"},
    {"\"rope_scaling\": null", "\"rope_scaling\": {\"type\": \"linear\"}", GD_EFORMAT,
        "rope_scaling", "factor of at least 1"},
    {"\"rope_scaling\": null", "\"rope_parameters\": {\"sliding_attention\": {}}", GD_EFORMAT,
        "rope_parameters", "objects"},
    {"\"rope_scaling\": null",
        "\"rope_parameters\": {\"full_attention\": {}, \"sliding_attention\": {\"type\": "
        "\"linear\", "
        "\"factor\": 2}}",
        GD_ENOTSUP, "rope_parameters", "sliding layers"},
    {"\"rope_scaling\": null", "\"rope_parameters\": {\"partial_rotary_factor\": 0.25}", GD_ENOTSUP,
        "partial_rotary_factor", "whole heads"},
    /* the head */
    {"\"rope_scaling\": null", "\"tie_word_embeddings\": 0", GD_EFORMAT, "tie_word_embeddings",
        "true or false"},
    {"\"rope_scaling\": null", "\"tie_word_embeddings\": false", GD_EFORMAT, "lm_head.weight",
        "no lm_head.weight"},
    /* JSON */
    {"\"rope_scaling\": null", "\"head_dim\": 4", GD_EFORMAT, "head_dim", "twice"},
    {"\"rope_scaling\": null", "\"x\": {\"a\": 1, \"b\": 2, \"a\": 3}", GD_EFORMAT, "a", "twice"},
    {"null}", "null", GD_EFORMAT, "config.json", "lacks a comma"},
    {"null}", "null}}", GD_EFORMAT, "config.json", "after its end"},
    {"null}", "nul}", GD_EFORMAT, "config.json", "unknown word"},
    {"null}", "NaN}", GD_EFORMAT, "config.json", "number"},
    {"null}", "null,}", GD_EFORMAT, "config.json", "string"},
    {"null}", "01}", GD_EFORMAT, "config.json", "leading zero"},
    {"null}", "1.}", GD_EFORMAT, "config.json", "number"},
    {"null}", "1e+}", GD_EFORMAT, "config.json", "number"},
    {"null}", "\"\\u0000\"}", GD_EFORMAT, "config.json", "NUL"},
    {"null}", "\"\\u00g0\"}", GD_EFORMAT, "config.json", "escape"},
    {"null}", "\"\\x\"}", GD_EFORMAT, "config.json", "escape"},
    {"null}", "\"\\", GD_EFORMAT, "config.json", "escape"},
    {"null}", "\"\x01\"}", GD_EFORMAT, "config.json", "control"},
    {"null}", "\"\xff\"}", GD_EFORMAT, "config.json", "UTF-8"},
    {"null}", "\"\xc3", GD_EFORMAT, "config.json", "UTF-8"},
    {"null}", "\"\\ud800\"}", GD_EFORMAT, "config.json", ""},
    {"null}", DEEP16 DEEP16, GD_EFORMAT, "config.json", "too deeply"},
    {"{", "[{", GD_EFORMAT, "config.json", "lacks a comma"},
};

static void configs_are_refused_by_name(void **state)
{
    for (size_t i = 0; i < LENGTH(configs); i++) {
        struct hf_folder f = {.find = configs[i].find, .replace = configs[i].replace};
        char what[128];

        snprintf(what, sizeof(what), "row %zu, %.90s", i, f.replace);
        hf_folder_write(&f);
        expect(what, configs[i].code, configs[i].param, configs[i].text);
    }
}

#define EMBD \
    "\"model.embed_tokens.weight\":{\"dtype\":\"F32\",\"shape\":[4,8],\"data_offsets\":[0,128]}"

static const struct {
    const char *find, *replace;
    int code;
    const char *param, *text;
} headers[] = {
    /* one tensor's entry */
    {EMBD, "\"model.embed_tokens.weight\":7", GD_EFORMAT, "model.embed_tokens.weight", "an object"},
    {EMBD, "\"model.embed_tokens.weight\":[]", GD_EFORMAT, "model.embed_tokens.weight",
        "an object"},
    {"\"dtype\":\"F32\"", "\"dtype\":32", GD_EFORMAT, "model.embed_tokens.weight", "no dtype"},
    {"\"dtype\":\"F32\"", "\"type\":\"F32\"", GD_EFORMAT, "model.embed_tokens.weight", "no dtype"},
    {"\"dtype\":\"F32\"", "\"dtype\":\"F31\"", GD_EFORMAT, "model.embed_tokens.weight",
        "dtype that"},
    {"\"dtype\":\"F32\"", "\"dtype\":\"F16\"", GD_EFORMAT, "model.embed_tokens.weight",
        "do not fit"},
    {"\"dtype\":\"F32\"", "\"dtype\":\"F64\"", GD_EFORMAT, "model.embed_tokens.weight",
        "do not fit"},
    {"\"dtype\":\"F32\"", "\"dtype\":\"I32\"", GD_ENOTSUP, "model.embed_tokens.weight",
        "dtype I32"},
    {"\"shape\":[4,8]", "\"shape\":4", GD_EFORMAT, "model.embed_tokens.weight", "no shape"},
    {"\"shape\":[4,8]", "\"shape\":[4,\"8\"]", GD_EFORMAT, "model.embed_tokens.weight", "whole"},
    {"\"shape\":[4,8]", "\"shape\":[4,-8]", GD_EFORMAT, "model.embed_tokens.weight", "whole"},
    {"\"shape\":[4,8]", "\"shape\":[4,8.5]", GD_EFORMAT, "model.embed_tokens.weight", "whole"},
    {"\"shape\":[4,8]", "\"shape\":[4,1e300]", GD_EFORMAT, "model.embed_tokens.weight", "whole"},
    {"\"shape\":[4,8]", "\"shape\":[4,9]", GD_EFORMAT, "model.embed_tokens.weight", "do not fit"},
    {"\"shape\":[4,8]", "\"shape\":[4,0]", GD_EFORMAT, "model.embed_tokens.weight", "do not fit"},
    {"\"shape\":[4,8]", "\"shape\":[4294967296,4294967296]", GD_EFORMAT,
        "model.embed_tokens.weight", "too large"},
    {"\"shape\":[4,8]", "\"shape\":[9007199254740992,2048,0]", GD_EFORMAT,
        "model.embed_tokens.weight", "too large"},
    {"\"shape\":[4,8]", "\"shape\":[1,1,1,1,1,1,1,4,8]", GD_EFORMAT, "model.embed_tokens.weight",
        "8 dimensions"},
    {"\"shape\":[4,8]", "\"shape\":[2,2,8]", GD_EFORMAT, "model.embed_tokens.weight",
        "3 dimensions"},
    {"\"shape\":[8]", "\"shape\":[2,4]", GD_EFORMAT, "model.norm.weight", "vector"},
    {"\"data_offsets\":[0,128]", "\"data_offsets\":[0]", GD_EFORMAT, "model.embed_tokens.weight",
        "data_offsets"},
    {"\"data_offsets\":[0,128]", "\"data_offsets\":[128,0]", GD_EFORMAT,
        "model.embed_tokens.weight", "data_offsets"},
    {"\"data_offsets\":[0,128]", "\"data_offsets\":[-128,0]", GD_EFORMAT,
        "model.embed_tokens.weight", "data_offsets"},
    {"\"data_offsets\":[0,128]", "\"data_offsets\":{\"a\":0,\"b\":128}", GD_EFORMAT,
        "model.embed_tokens.weight", "data_offsets"},
    {"\"data_offsets\":[0,128]", "\"data_offsets\":[9007199254740864,9007199254740992]", GD_EFORMAT,
        "model.embed_tokens.weight", "incomplete"},
    {"\"data_offsets\":[0,128]", "\"data_offsets\":[0,129]", GD_EFORMAT,
        "model.embed_tokens.weight", "do not fit"},
    {"\"data_offsets\":[0,128]", "\"data_offsets\":[4,132]", GD_EFORMAT,
        "model.embed_tokens.weight", "hole"},
    {"\"data_offsets\":[128,160]", "\"data_offsets\":[124,156]", GD_EFORMAT, "model.norm.weight",
        "overlaps"},
    {"\"data_offsets\":[128,160]", "\"data_offsets\":[0,32]", GD_EFORMAT,
        "model.embed_tokens.weight", "overlaps"},
    /* names */
    {"model.norm.weight", "model.embed_tokens.weight", GD_EFORMAT, "model.embed_tokens.weight",
        "twice"},
    {"model.norm.weight", "embed_tokens.weight", GD_EFORMAT, "embed_tokens.weight", "twice"},
    {"layers.0.mlp.up_proj", "language_model.layers.0.mlp.gate_proj", GD_EFORMAT,
        "model.language_model.layers.0.mlp.gate_proj.weight", "twice"},
    {"layers.0.input", "layers.2.input", GD_EFORMAT, "model.layers.2.input_layernorm.weight",
        "of layer 2"},
    {"layers.0.input", "layers.00.input", GD_ENOTSUP, "model.layers.00.input_layernorm.weight",
        "no tensor of this Gemma"},
    {"layers.0.input", "layers.99999999999.input", GD_ENOTSUP,
        "model.layers.99999999999.input_layernorm.weight", "no tensor of this Gemma"},
    {"q_proj.weight", "q_proj.bias", GD_ENOTSUP, "model.layers.0.self_attn.q_proj.bias",
        "no tensor of this Gemma"},
    {"model.norm.weight", "mo\\ndel.norm.weight", GD_ENOTSUP, "mo?del.norm.weight", "no tensor"},
    {"\"model.norm.weight\"", "\"\"", GD_ENOTSUP, "", "no tensor"},
    {EMBD ",", "", GD_EFORMAT, "model.norm.weight", "hole"},
    /* the header */
    {"}   ", "", GD_EFORMAT, "The header of model.safetensors", "closing bracket"},
    {"{", "", GD_EFORMAT, "The header of model.safetensors", "after its end"},
    {"}   ", "} \\0  ", GD_EFORMAT, "The header of model.safetensors", "after its end"},
    {EMBD, DEEP16 DEEP16, GD_EFORMAT, "The header of model.safetensors", "string"},
};

static void headers_are_refused_by_name(void **state)
{
    for (size_t i = 0; i < LENGTH(headers); i++) {
        struct hf_folder f = {.header_find = headers[i].find, .header_replace = headers[i].replace};
        char what[128];

        snprintf(what, sizeof(what), "row %zu, %.90s", i, f.header_replace);
        hf_folder_write(&f);
        expect(what, headers[i].code, headers[i].param, headers[i].text);
    }
}

static void lengths_are_refused(void **state)
{
    static const uint64_t lengths[] = {0, 1, 1u << 24, (1u << 24) + 1, UINT64_MAX, INT64_MAX};
    struct hf_folder f = {0};
    struct buf b = {0};

    hf_folder_write(&f);
    hf_weights_build(&b, &f);
    for (size_t i = 0; i < LENGTH(lengths); i++) {
        struct err err = {0};

        memcpy(b.data, &lengths[i], sizeof(lengths[i]));
        hf_file_write("model.safetensors", b.data, b.len);
        assert_int_equal(open_folder(&err), GD_EFORMAT);
        check_sentence(&err);
        assert_true(err.param[0] != 0);
    }
    buf_clear(&b);
    hf_weights_build(&b, &f);
    buf_putc(&b, 0);
    hf_file_write("model.safetensors", b.data, b.len);
    expect("a byte too many", GD_EFORMAT, "data_offsets", "goes on after");
    for (size_t n = 0; n < b.len - 1; n += n < 64 ? 1 : 7) {
        struct err err = {0};

        hf_file_write("model.safetensors", b.data, n);
        assert_int_equal(open_folder(&err), GD_EFORMAT);
        check_sentence(&err);
        assert_true(err.param[0] != 0);
    }
    buf_free(&b);
}

static void write_index(const char *text)
{
    hf_folder_write(&(struct hf_folder){0});
    hf_file_remove("model.safetensors");
    hf_file_write("model.safetensors.index.json", text, strlen(text));
}

static void indexes_are_refused_by_name(void **state)
{
    static const struct {
        const char *text;
        int code;
        const char *param, *message;
    } rows[] = {
        {"{}", GD_EFORMAT, "weight_map", "no object weight_map"},
        {"{\"weight_map\": []}", GD_EFORMAT, "weight_map", "no object weight_map"},
        {"{\"weight_map\": {}", GD_EFORMAT, "model.safetensors.index.json", "closing bracket"},
        {"{\"weight_map\": {\"a\": 1}}", GD_EFORMAT, "a", "file of this folder"},
        {"{\"weight_map\": {\"a\": \"\"}}", GD_EFORMAT, "a", "file of this folder"},
        {"{\"weight_map\": {\"a\": \"../x.safetensors\"}}", GD_EFORMAT, "a", "file of this folder"},
        {"{\"weight_map\": {\"a\": \"/x.safetensors\"}}", GD_EFORMAT, "a", "file of this folder"},
        {"{\"weight_map\": {\"a\": \"config.json\"}}", GD_EFORMAT, "a", "file of this folder"},
        {"{\"weight_map\": {\"a\": \".safetensors\"}}", GD_EFORMAT, "a", "file of this folder"},
        {"{\"weight_map\": {\"a\": \"x.safetensors\", \"a\": \"x.safetensors\"}}", GD_EFORMAT, "a",
            "twice"},
        {"{\"weight_map\": {\"a\": \"x.safetensors\"}}", GD_ENOENT, "x.safetensors", "missing"},
    };
    static const char promise[] = "{\"weight_map\": {\"norm.weight\": \"part.safetensors\", "
                                  "\"layers.1.mlp.up_proj.weight\": \"part.safetensors\"}}";
    struct buf b = {0};

    for (size_t i = 0; i < LENGTH(rows); i++) {
        write_index(rows[i].text);
        expect(rows[i].text, rows[i].code, rows[i].param, rows[i].message);
    }
    write_index(promise);
    hf_weights_build(&b, &(struct hf_folder){0});
    hf_file_write("part.safetensors", b.data, b.len);
    expect(promise, GD_EFORMAT, "layers.1.mlp.up_proj.weight", "no file has it");
    hf_file_remove("part.safetensors");
    buf_free(&b);
}

static void incomplete_folders_are_refused(void **state)
{
    hf_folder_write(&(struct hf_folder){0});
    hf_file_remove("model.safetensors");
    expect("no weights", GD_ENOENT, "model.safetensors", "has neither");
    hf_file_write("pytorch_model.bin", "", 0);
    expect("PyTorch", GD_ENOTSUP, "", "PyTorch");
    hf_file_remove("pytorch_model.bin");
    hf_file_write("config.json", "", 0);
    expect("empty config", GD_EFORMAT, "config.json", "ends too early");
    hf_file_remove("config.json");
    expect("no config", GD_ENOENT, "config.json", "has no config.json");
}

static uint32_t next_random(uint64_t *state)
{
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*state >> 32);
}

/* Opens the folder with bits of one file flipped, again and again; how often it opened. */
static int open_flipped(const char *name, const struct buf *good, int rounds)
{
    uint64_t random = 2, sum = 0;
    struct buf bad = {0};
    int opened = 0;

    while (rounds-- > 0) {
        struct source *s;
        struct err err = {0};

        buf_clear(&bad);
        buf_append(&bad, good->data, good->len);
        for (uint32_t n = 1 + next_random(&random) % 4; n > 0; n--) {
            size_t at = next_random(&random) % bad.len;

            bad.data[at] = (char)(bad.data[at] ^ (1 << (next_random(&random) % 8)));
        }
        hf_file_write(name, bad.data, bad.len);
        if (source_open(&s, hf_folder_path(), &err) < 0) {
            check_sentence(&err);
            continue;
        }
        sum += read_everything(s);
        source_close(s);
        opened++;
    }
    assert_true(sum > 0);
    buf_free(&bad);
    hf_file_write(name, good->data, good->len);
    return opened;
}

static void flipped_bits_never_crash(void **state)
{
    struct hf_folder f = {0};
    struct buf config = {0}, weights = {0};

    hf_folder_write(&f);
    hf_config_build(&config, &f);
    hf_weights_build(&weights, &f);
    assert_in_range(open_flipped("config.json", &config, 1000), 1, 999); /* both ways were taken */
    assert_in_range(open_flipped("model.safetensors", &weights, 1500), 1, 1499);
    buf_free(&config);
    buf_free(&weights);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(configs_are_refused_by_name),
        cmocka_unit_test(headers_are_refused_by_name),
        cmocka_unit_test(lengths_are_refused),
        cmocka_unit_test(indexes_are_refused_by_name),
        cmocka_unit_test(incomplete_folders_are_refused),
        cmocka_unit_test(flipped_bits_never_crash),
    };

    return cmocka_run_group_tests(tests, hf_folder_create, hf_folder_remove);
}
