/* hparams_later.c - what came after Gemma 3: shared K/V, per-layer inputs, AltUp, experts,
 * embeddings. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "model/hparams_private.h"

enum { MAX_PER_LAYER = 4096, MAX_STREAMS = 4, MAX_EXPERTS = 1024, MAX_DENSE = 65536 };

static const struct tensor *layer_tensor(const struct reader *rd, int layer, const char *name)
{
    char full[96];

    snprintf(full, sizeof(full), "blk.%d.%s", layer, name);
    return source_tensor(rd->src, full);
}

static int tensor_missing(struct reader *rd, int layer, const char *name)
{
    char full[96], buffer[96];
    const char *origin;

    snprintf(full, sizeof(full), "blk.%d.%s", layer, name);
    origin = source_tensor_origin(rd->src, full, buffer);
    return err_set_at(rd->err, GD_EFORMAT, origin, "The model file lacks the tensor %s.", origin);
}

/* A drafter has no K and V of its own; files say that all of its layers share. */
static int read_drafter(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    int shared = hp->n_layers;
    int r = hparams_int(rd, "attention.shared_kv_layers", 0, hp->n_layers, &shared);

    if (r < 0)
        return r;
    if (shared != 0 && shared != hp->n_layers)
        return refuse(rd, "is %d, but all %d layers of a drafter share the keys of its target.",
            shared, hp->n_layers);
    for (int i = 0; i < hp->n_layers; i++)
        hp->layers[i].kv_layer = -1;
    hp->projections_in_block = layer_tensor(rd, 0, "nextn.pre_projection.weight") != NULL;
    return hparams_need_int(rd, "embedding_length_out", 1, MAX_WIDTH, &hp->backbone_width);
}

/* The last `shared` layers attend to the last layer of their own kind before them. */
static int read_sharing(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    int shared = 0, first, r;

    if (rd->family->drafter)
        return read_drafter(rd);
    r = hparams_int(rd, "attention.shared_kv_layers", 0, hp->n_layers - 1, &shared);
    if (r < 0)
        return r;
    first = hp->n_layers - shared;
    for (int i = 0; i < hp->n_layers; i++) {
        struct hparams_layer *l = &hp->layers[i];

        l->kv_layer = i;
        for (int j = first - 1; i >= first && l->kv_layer == i && j >= 0; j--)
            if (!hp->layers[j].window == !l->window)
                l->kv_layer = j;
        if (i >= first && l->kv_layer == i)
            return refuse(rd,
                "is %d, but no layer before the shared ones has the kind of layer %d.", shared, i);
        if (l->kv_layer != i && (hp->layers[l->kv_layer].head_dim != l->head_dim ||
                                    hp->layers[l->kv_layer].n_kv_heads != l->n_kv_heads))
            return err_set_at(rd->err, GD_EFORMAT, rd->key,
                "Layer %d shares the keys of layer %d, but their heads differ.", i, l->kv_layer);
    }
    return 0;
}

/* The larger Gemma 4 take V from K on global layers. Folders say so; a GGUF only lacks the tensors,
 * of all these layers. */
static int read_values_from_keys(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    int with = -1, without = -1;
    bool said = false;
    int r = source_bool(rd->src, hparams_key(rd, "attention.k_eq_v"), &said, rd->err);

    if (r < 0 || hp->arch != GEMMA_4)
        return r < 0 ? r : 0;
    for (int i = hp->n_layers - 1; i >= 0; i--) {
        struct hparams_layer *l = &hp->layers[i];

        if (l->kv_layer != i || l->window)
            continue;
        *(layer_tensor(rd, i, "attn_v.weight") ? &with : &without) = i;
        l->v_from_k = r > 0 ? said : with < 0;
    }
    if (r == 0 && with >= 0 && without >= 0)
        return tensor_missing(rd, without, "attn_v.weight");
    return 0;
}

/* Gemma 4's layer scalars: all layers have one or none has. */
static int read_scalars(struct reader *rd)
{
    static const char name[] = "layer_output_scale.weight";
    struct hparams *hp = rd->hp;
    bool any = false;

    for (int i = 0; i < hp->n_layers; i++)
        any |= layer_tensor(rd, i, name) != NULL;
    for (int i = 0; i < hp->n_layers; i++) {
        if (any && !layer_tensor(rd, i, name))
            return tensor_missing(rd, i, name);
        hp->layers[i].scaled = any;
    }
    return 0;
}

static int read_per_layer(struct reader *rd)
{
    static const char name[] = "per_layer_token_embd.weight";
    char buffer[96];
    const struct tensor *t = source_tensor(rd->src, name);
    struct hparams *hp = rd->hp;
    int r =
        hparams_int(rd, "embedding_length_per_layer_input", 0, MAX_PER_LAYER, &hp->per_layer_width);

    if (r < 0 || hp->per_layer_width == 0)
        return r < 0 ? r : 0;
    if (hp->arch == GEMMA_EMBEDDING_2)
        return 0;
    if (!t)
        return err_set_at(rd->err, GD_EFORMAT, name, "The model file lacks the tensor %s.",
            source_tensor_origin(rd->src, name, buffer));
    if (t->n_dims != 2 || t->ne[0] != (int64_t)hp->per_layer_width * hp->n_layers ||
        t->ne[1] > MAX_VOCAB)
        return err_set_at(rd->err, GD_EFORMAT, name,
            "The tensor %s must be a matrix with rows of %d x %d values.", name, hp->n_layers,
            hp->per_layer_width);
    hp->per_layer_vocab = (int)t->ne[1];
    return 0;
}

static int read_sparsity(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    struct source_array a;
    int r = source_array(rd->src, hparams_key(rd, "activation_sparsity_scale"), &a, rd->err);

    if (r < 0)
        return r;
    if (r > 0 && a.n != (uint64_t)hp->n_layers)
        return refuse(rd, "must have one number per layer, %d.", hp->n_layers);
    for (int i = 0; i < hp->n_layers; i++) {
        /* Files without the key come from the published models: the first ten layers keep 5 % of
         * their gates. */
        float f = i < 10 && hp->n_layers > 10 ? 1.6448533535f : -INFINITY;

        if (r > 0 && !source_array_f32(&a, (uint64_t)i, &f))
            return refuse(rd, "must be an array of numbers.");
        if (isnan(f) || f == INFINITY)
            return refuse(rd, "has no number for layer %d.", i);
        hp->layers[i].sparsity = f > 0 ? f : 0;
    }
    return 0;
}

static int read_altup(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    const struct tensor *t = layer_tensor(rd, 0, "laurel_l.weight");
    int active = 0, r;

    hp->n_streams = MAX_STREAMS;
    r = hparams_int(rd, "altup.num_inputs", MAX_STREAMS, MAX_STREAMS, &hp->n_streams);
    if (r >= 0)
        r = hparams_int(rd, "altup.active_idx", 0, 0, &active);
    if (r < 0)
        return r;
    if (hp->per_layer_width == 0) {
        hparams_key(rd, "embedding_length_per_layer_input");
        return hparams_missing(rd);
    }
    if (!t)
        return tensor_missing(rd, 0, "laurel_l.weight");
    if (t->ne[1] < 1 || t->ne[1] > MAX_PER_LAYER)
        return err_set_at(rd->err, GD_EFORMAT, "blk.0.laurel_l.weight",
            "The tensor blk.0.laurel_l.weight has no usable shape.");
    hp->laurel_rank = (int)t->ne[1];
    return read_sparsity(rd);
}

static int read_experts(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    bool any = false;
    int r = hparams_int(rd, "expert_count", 0, MAX_EXPERTS, &hp->n_experts);

    if (r < 0 || hp->n_experts == 0)
        return r < 0 ? r : 0;
    r = hparams_need_int(rd, "expert_used_count", 1, hp->n_experts, &hp->n_experts_used);
    if (r >= 0)
        r = hparams_need_int(rd, "expert_feed_forward_length", 1, MAX_FFN, &hp->expert_ffn);
    if (r < 0)
        return r;
    for (int i = 0; i < hp->n_layers; i++) {
        hp->layers[i].moe = layer_tensor(rd, i, "ffn_gate_inp.weight") != NULL ||
                            layer_tensor(rd, i, "ffn_down_exps.weight") != NULL;
        any |= hp->layers[i].moe;
        if (!hp->layers[i].moe)
            continue;
        hp->dense_beside_experts |= layer_tensor(rd, i, "ffn_gate.weight") != NULL;
        hp->router_scaled |= layer_tensor(rd, i, "ffn_gate_inp.scale") != NULL;
        hp->expert_scaled |= layer_tensor(rd, i, "ffn_down_exps.scale") != NULL;
        hp->fused_gate_up |= layer_tensor(rd, i, "ffn_gate_up_exps.weight") != NULL;
    }
    return any ? 0 : tensor_missing(rd, 0, "ffn_gate_inp.weight");
}

/* Dense map number i (2 or 3 in names) of an embedding model: 1 taken, 0 not there. */
static int read_dense(struct reader *rd, int i, int in)
{
    const struct tensor *t;
    char name[32], key[32];
    int out = 0, width = in, r;

    snprintf(name, sizeof(name), "dense_%d.weight", i);
    t = source_tensor(rd->src, name);
    snprintf(key, sizeof(key), "dense_%d_feat_in", i);
    r = hparams_int(rd, key, 0, MAX_DENSE, &width);
    if (r >= 0 && width != 0 && width != in)
        return refuse(rd, "is %d, but %d values come in.", width, in);
    snprintf(key, sizeof(key), "dense_%d_feat_out", i);
    if (r >= 0)
        r = hparams_int(rd, key, 0, MAX_DENSE, &out);
    if (r < 0 || (!t && out == 0))
        return r < 0 ? r : 0;
    if (!t)
        return err_set_at(rd->err, GD_EFORMAT, name, "The model file lacks the tensor %s.", name);
    if (t->n_dims != 2 || t->ne[0] != in || t->ne[1] > MAX_DENSE)
        return err_set_at(rd->err, GD_EFORMAT, name,
            "The tensor %s must be a matrix with rows of %d values.", name, in);
    if (out != 0 && t->ne[1] != out)
        return refuse(rd, "is %d, but %s has %lld rows.", out, name, (long long)t->ne[1]);
    rd->hp->dense_out[rd->hp->n_dense++] = (int)t->ne[1];
    return 1;
}

/* What embedding models do with the final states, and how far sliding layers see. */
static int read_embedding(struct reader *rd)
{
    struct hparams *hp = rd->hp;
    int pooling = 1, in = hp->width;
    int r = hparams_int(rd, "pooling_type", 0, 4, &pooling);

    if (r < 0)
        return r;
    if (pooling != 1)
        return err_set_at(rd->err, GD_ENOTSUP, rd->key,
            "The key %s is %d, but gemmad pools by the mean (1) only.", rd->key, pooling);
    if (hp->arch == GEMMA_EMBEDDING_2) {
        r = hparams_need_int(rd, "embedding_length_out", 1, MAX_DENSE, &hp->token_proj);
        if (r < 0)
            return r;
    }
    for (int i = 2; hp->arch == GEMMA_EMBEDDING && i <= 3 && (i == 2 || r > 0); i++) {
        r = read_dense(rd, i, in);
        if (r < 0)
            return r;
        if (r > 0)
            in = hp->dense_out[hp->n_dense - 1];
    }
    if (hp->arch == GEMMA_EMBEDDING && hp->n_dense == 0)
        snprintf(hp->warning, sizeof(hp->warning),
            "The model has no dense maps (dense_2, dense_3) after the mean; the published "
            "EmbeddingGemma has two, without which its vectors mean something else.");
    /* |q - k| < window: the file holds the full width of |q - k| <= w / 2, or the radius. */
    for (int i = 0; i < hp->n_layers; i++) {
        struct hparams_layer *l = &hp->layers[i];

        if (l->window)
            l->window = (hp->arch == GEMMA_EMBEDDING_2 ? l->window : l->window / 2) + 1;
    }
    return 0;
}

int hparams_read_later(struct reader *rd)
{
    int r = read_sharing(rd);

    if (r >= 0)
        r = read_values_from_keys(rd);
    if (r >= 0)
        r = read_scalars(rd);
    if (r >= 0)
        r = read_per_layer(rd);
    if (r >= 0 && rd->hp->arch == GEMMA_3N)
        r = read_altup(rd);
    if (r >= 0)
        r = read_experts(rd);
    if (r >= 0 && rd->hp->bidirectional)
        r = read_embedding(rd);
    return r;
}
