#include "test_hf_build.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/dev/shm/gemmad-hf-XXXXXX"; /* memory: thousands of files are written */

static const char config[] = "{\"architectures\": [\"Gemma3ForCausalLM\"],\n"
                             " \"model_type\": \"gemma3_text\", \"vocab_size\": 4,\n"
                             " \"hidden_size\": 8, \"intermediate_size\": 16,\n"
                             " \"num_hidden_layers\": 2, \"num_attention_heads\": 2,\n"
                             " \"num_key_value_heads\": 1, \"head_dim\": 4,\n"
                             " \"hidden_activation\": \"gelu_pytorch_tanh\",\n"
                             " \"max_position_embeddings\": 64, \"rms_norm_eps\": 1e-5,\n"
                             " \"query_pre_attn_scalar\": 64, \"sliding_window\": 16,\n"
                             " \"rope_theta\": 500000, \"rope_local_base_freq\": 2000,\n"
                             " \"sliding_window_pattern\": 2, \"rope_scaling\": null}\n";

/* Layer 0 is whole; layer 1 is not needed to open a folder. */
static const struct {
    const char *name;
    int rows, columns; /* columns 0: a vector */
} tensors[] = {
    {"embed_tokens.weight", 4, 8},
    {"norm.weight", 8, 0},
    {"layers.0.input_layernorm.weight", 8, 0},
    {"layers.0.self_attn.q_proj.weight", 8, 8},
    {"layers.0.self_attn.k_proj.weight", 4, 8},
    {"layers.0.self_attn.v_proj.weight", 4, 8},
    {"layers.0.self_attn.o_proj.weight", 8, 8},
    {"layers.0.self_attn.q_norm.weight", 4, 0},
    {"layers.0.self_attn.k_norm.weight", 4, 0},
    {"layers.0.post_attention_layernorm.weight", 8, 0},
    {"layers.0.pre_feedforward_layernorm.weight", 8, 0},
    {"layers.0.post_feedforward_layernorm.weight", 8, 0},
    {"layers.0.mlp.gate_proj.weight", 16, 8},
    {"layers.0.mlp.up_proj.weight", 16, 8},
    {"layers.0.mlp.down_proj.weight", 8, 16},
};

int hf_folder_create(void **state)
{
    static const char elsewhere[] = "/tmp/gemmad-hf-XXXXXX";

    if (mkdtemp(folder))
        return 0;
    memcpy(folder, elsewhere, sizeof(elsewhere));
    return mkdtemp(folder) ? 0 : -1;
}

int hf_folder_remove(void **state)
{
    char command[128];

    snprintf(command, sizeof(command), "rm -rf %s", folder);
    return system(command);
}

const char *hf_folder_path(void)
{
    return folder;
}

void hf_file_write(const char *name, const void *bytes, size_t n)
{
    char path[256];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    unlink(path); /* a new file: writing over an old one may wait for the disk */
    f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f) != 0)
        abort();
}

void hf_file_remove(const char *name)
{
    char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    unlink(path);
}

static void replace(struct buf *out, const char *text, const char *find, const char *by)
{
    const char *at = find ? strstr(text, find) : NULL;

    if (find && !at)
        abort(); /* the test asks for what is not there */
    buf_append(out, text, at ? (size_t)(at - text) : strlen(text));
    if (!at)
        return;
    buf_puts(out, by);
    buf_puts(out, at + strlen(find));
}

void hf_config_build(struct buf *b, const struct hf_folder *f)
{
    replace(b, config, f->find, f->replace);
}

static void put_tensor(
    struct buf *header, const char *prefix, const char *name, int rows, int columns, size_t *at)
{
    size_t bytes = (size_t)rows * (size_t)(columns ? columns : 1) * sizeof(float);

    buf_printf(header, "%s\"%s%s\":{\"dtype\":\"F32\",\"shape\":[%d", header->len > 1 ? "," : "",
        prefix, name, rows);
    if (columns)
        buf_printf(header, ",%d", columns);
    buf_printf(header, "],\"data_offsets\":[%zu,%zu]}", *at, *at + bytes);
    *at += bytes;
}

void hf_weights_build(struct buf *b, const struct hf_folder *f)
{
    struct buf header = {0}, changed = {0};
    size_t at = 0;
    uint64_t len;

    buf_puts(&header, "{");
    for (size_t i = 0; i < sizeof(tensors) / sizeof(*tensors); i++)
        put_tensor(&header, f->prefix ? f->prefix : "model.", tensors[i].name, tensors[i].rows,
            tensors[i].columns, &at);
    if (f->extra)
        put_tensor(&header, "", f->extra, 4, 8, &at);
    buf_puts(&header, "}   ");
    replace(&changed, header.data, f->header_find, f->header_replace);
    len = changed.len;
    buf_append(b, &len, sizeof(len));
    buf_append(b, changed.data, changed.len);
    for (size_t i = 0; i < at; i++)
        buf_putc(b, (char)(i % 64));
    buf_free(&header);
    buf_free(&changed);
}

void hf_folder_write(const struct hf_folder *f)
{
    struct buf b = {0};

    hf_file_remove("model.safetensors.index.json");
    hf_config_build(&b, f);
    hf_file_write("config.json", b.data, b.len);
    buf_clear(&b);
    hf_weights_build(&b, f);
    hf_file_write("model.safetensors", b.data, b.len);
    buf_free(&b);
}
