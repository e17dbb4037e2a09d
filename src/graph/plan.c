/* plan.c - IR to steps: weights fetched, buffers laid out in one arena, step functions chosen.
 *
 * A value's buffer is free again after its last reader; taps and the result keep theirs. */
#include "graph/plan.h"

#include <stdio.h>
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "graph/carve.h"
#include "graph/flow.h"
#include "graph/head.h"
#include "graph/moe.h"
#include "graph/rope.h"
#include "graph/steps_attention.h"

int kv_group_of(const struct hparams_layer *l)
{
    return l->window ? KV_SLIDING : KV_GLOBAL;
}

size_t kv_offset_of(const struct hparams *hp, int layer, enum kv_type type)
{
    size_t at = 0;

    for (int i = 0; i < layer; i++)
        if (hp->layers[i].kv_layer == i &&
            kv_group_of(&hp->layers[i]) == kv_group_of(&hp->layers[layer]))
            at += kv_layer_bytes(type, hp->layers[i].n_kv_heads, hp->layers[i].head_dim);
    return at;
}

void kv_layout_of(const struct hparams *hp, int n_layers, enum kv_type type, struct kv_layout *out)
{
    *out = (struct kv_layout){.type = type};
    for (int i = 0; i < n_layers; i++) {
        const struct hparams_layer *l = &hp->layers[i];
        struct kv_group *g = &out->group[kv_group_of(l)];

        if (l->kv_layer != i)
            continue;
        g->n_layers++;
        g->window = l->window > g->window ? l->window : g->window;
        g->page_bytes += kv_layer_bytes(type, l->n_kv_heads, l->head_dim);
    }
}

static enum precision precision_of(enum flow_precision p)
{
    return p == FLOW_REFERENCE ? PRECISION_REFERENCE
           : p == FLOW_PRECISE ? PRECISION_PRECISE
                               : PRECISION_DEFAULT;
}

enum matmul_backend plan_backend(const struct graph *g, const struct dtype_info *type)
{
    int own = (int)type->type < (int)FLOW_TYPES ? g->profile.override[type->type] : -1;

    switch (own >= 0 ? (enum backend_choice)own : g->profile.matmul) {
    case BACKEND_NATIVE: return MATMUL_NATIVE;
    case BACKEND_BLAS: return MATMUL_BLAS;
    default: break;
    }
    return matmul_auto(g->k, type, g->mode == FLOW_PREFILL ? PHASE_PREFILL : PHASE_DECODE,
        precision_of(g->profile.precision));
}

enum act_kind plan_act(const struct graph *g, const struct dtype_info *type)
{
    return matmul_act(g->k, type, precision_of(g->profile.precision));
}

/* A vector, or NULL where none is named. */
static int take_vector(
    struct weight_store *store, const struct ir_weight *w, const float **out, struct err *err)
{
    return w->name[0] ? weight_store_vector(store, w, out, err) : 0;
}

static int take_linear(struct graph *g, struct step *s, int i, const struct ir_weight *w,
    struct weight_store *store, struct err *err)
{
    struct linear *l = &s->linear[i];
    const struct wmat *stack;
    int r;

    if (w->n_slices) {
        r = weight_store_stack(store, w, &stack, err);
        if (r == 0)
            l->w = stack[w->slice];
    } else {
        r = weight_store_matrix(store, w, &l->w, err);
    }
    if (r < 0)
        return r;
    l->backend = plan_backend(g, l->w.type);
    l->kind = l->backend == MATMUL_BLAS ? ACT_F32 : plan_act(g, l->w.type);
    if (l->backend == MATMUL_BLAS)
        g->by_blas |= UINT64_C(1) << l->w.type->type;
    s->kinds[l->kind] = true;
    return 0;
}

static int take_matmul(struct graph *g, struct step *s, struct weight_store *store, struct err *err)
{
    const struct ir_matmul *mm = &s->node.mm;
    int r = 0;

    if (mm->branch_norm)
        r = take_vector(store, &mm->branch, &s->vec2, err);
    if (r == 0 && mm->norm)
        r = take_vector(store, &mm->pre, &s->vec, err);
    for (int i = 0; r == 0 && i < mm->n_linears; i++)
        r = take_linear(g, s, i, &mm->linear[i], store, err);
    /* columns are arranged for one matrix */
    assert(r < 0 || mm->n_linears == 1 || !s->linear[mm->n_linears - 1].w.strong);
    return r;
}

static int take_attention(
    struct graph *g, struct step *s, struct weight_store *store, struct err *err)
{
    int r;

    s->kv_group = kv_group_of(&g->kv_hp->layers[s->node.attn.kv_layer]);
    s->kv_offset = kv_offset_of(g->kv_hp, s->node.attn.kv_layer, g->kv_layout.type);
    if (!s->node.attn.norm)
        return 0;
    r = take_vector(store, &s->node.attn.q_norm, &s->vec, err);
    return r < 0 ? r : take_vector(store, &s->node.attn.k_norm, &s->vec2, err);
}

static int take_weights(
    struct graph *g, struct step *s, struct weight_store *store, struct err *err)
{
    switch (s->node.op) {
    case IR_EMBED:
        if (s->node.mapped)
            return weight_store_rows(store, &s->node.weight, &s->rows, err);
        return weight_store_matrix(store, &s->node.weight, &s->linear[0].w, err);
    case IR_RMSNORM:
    case IR_HEAD_NORM:
    case IR_SCALE:
    case IR_MUL: return take_vector(store, &s->node.weight, &s->vec, err);
    case IR_MOE: return moe_take(g, s, store, err);
    case IR_MATMUL: return take_matmul(g, s, store, err);
    case IR_ATTENTION: return take_attention(g, s, store, err);
    default: return 0;
    }
}

/* ---- buffers ---- */

struct slot {
    size_t at, bytes;
    bool busy;
};

struct layout {
    struct slot *slots; /* at most one per value */
    int n;
    size_t end;
    int *slot_of; /* per value, -1 none */
};

static int max_rows_of(const struct graph *g, enum ir_rows rows)
{
    return rows == ROWS_TOKENS ? g->max_rows : g->max_out;
}

static size_t value_bytes(const struct graph *g, int v)
{
    size_t ld = mem_round_up((size_t)g->ir.values[v].width, PANEL_ROWS);

    return ld * (size_t)max_rows_of(g, g->ir.values[v].rows) * sizeof(float);
}

static void claim(struct layout *l, int v, size_t bytes)
{
    int best = -1;

    for (int i = 0; i < l->n; i++)
        if (!l->slots[i].busy && l->slots[i].bytes >= bytes &&
            (best < 0 || l->slots[i].bytes < l->slots[best].bytes))
            best = i;
    if (best < 0) {
        best = l->n++;
        l->slots[best] = (struct slot){.at = l->end, .bytes = bytes};
        l->end += mem_round_up(bytes, 64);
    }
    l->slots[best].busy = true;
    l->slot_of[v] = best;
}

/* The result, and what a soft-cap turns into the result in place, lie in the caller's memory. */
static bool in_callers_memory(const struct graph *g, int v)
{
    int last;

    if (g->ir.values[v].output)
        return true;
    return ir_uses(&g->ir, v, &last) == 1 && g->ir.nodes[last].op == IR_SOFTCAP &&
           g->ir.values[g->ir.nodes[last].out[0]].output;
}

static bool keeps_buffer(const struct ir_value *v)
{
    return v->tap || v->norm_input;
}

static void lay_out(struct graph *g, struct layout *l)
{
    const struct ir *ir = &g->ir;

    for (int v = 0; v < ir->n_values; v++)
        l->slot_of[v] = -1;
    for (int i = 0; i < ir->n_nodes; i++) {
        const struct ir_node *n = &ir->nodes[i];

        for (int j = 0; j < n->n_out; j++)
            if (!in_callers_memory(g, n->out[j]))
                claim(l, n->out[j], value_bytes(g, n->out[j]));
        for (int j = 0; j < n->n_in; j++) {
            int v = ir->values[n->in[j]].parent >= 0 ? ir->values[n->in[j]].parent : n->in[j];
            int last, slot = l->slot_of[v];

            ir_uses(ir, v, &last);
            if (slot >= 0 && last == i && !keeps_buffer(&ir->values[v]))
                l->slots[slot].busy = false;
        }
    }
}

static int allocate_values(struct graph *g, struct err *err)
{
    size_t n = (size_t)g->ir.n_values;
    struct layout l = {
        .slots = xcalloc(n, sizeof(*l.slots)), .slot_of = xcalloc(n, sizeof(*l.slot_of))};

    lay_out(g, &l);
    g->arena_bytes = l.end;
    g->arena = mem_aligned(l.end);
    g->values = xcalloc(n, sizeof(*g->values));
    for (int v = 0; v < g->ir.n_values && g->arena; v++) {
        g->values[v] =
            (struct operand){.ld = (int)mem_round_up((size_t)g->ir.values[v].width, PANEL_ROWS),
                .rows = g->ir.values[v].rows};
        if (l.slot_of[v] >= 0)
            g->values[v].base = (float *)(void *)(g->arena + l.slots[l.slot_of[v]].at);
    }
    for (int v = 0; v < g->ir.n_values && g->arena; v++) {
        const struct ir_value *view = &g->ir.values[v];

        if (view->parent >= 0) {
            g->values[v] = g->values[view->parent];
            g->values[v].base += view->offset;
        }
    }
    free(l.slots);
    free(l.slot_of);
    if (!g->arena)
        return err_set(
            err, GD_ENOMEM, "no memory for the graph's buffers (%zu bytes)", g->arena_bytes);
    return 0;
}

/* ---- scratch and tables ---- */

struct needs {
    int width, k; /* widest value, widest matmul input */
    size_t attention, blas, moe;
    bool geglu, kinds[ACT_KINDS];
};

static struct needs needs_of(const struct graph *g)
{
    struct needs n = {0};

    for (int i = 0; i < g->n_steps; i++) {
        const struct step *s = &g->steps[i];

        if (s->node.op == IR_ATTENTION && attention_scratch(&s->node.attn.spec) > n.attention)
            n.attention = attention_scratch(&s->node.attn.spec);
        for (int j = 0; s->node.op == IR_MATMUL && j < s->node.mm.n_linears; j++) {
            const struct linear *l = &s->linear[j];

            n.k = l->w.k > n.k ? l->w.k : n.k;
            n.kinds[l->kind] = true;
            if (l->backend == MATMUL_BLAS && matmul_blas_scratch(l->w.k) > n.blas)
                n.blas = matmul_blas_scratch(l->w.k);
        }
        if (s->node.op == IR_MOE && moe_scratch(g, s) > n.moe)
            n.moe = moe_scratch(g, s);
        n.geglu |= s->node.op == IR_MOE;
        n.geglu |= s->node.op == IR_MATMUL && s->node.mm.epilogue == EPI_GEGLU;
    }
    n.width = n.k;
    for (int v = 0; v < g->ir.n_values; v++) /* heads of k and v are normed in a row's scratch */
        if (!in_callers_memory(g, v) && g->ir.values[v].width > n.width)
            n.width = g->ir.values[v].width;
    return n;
}

static void carve_all(struct graph *g, struct carver *c)
{
    struct needs n = needs_of(g);

    for (int kind = 0; kind < ACT_KINDS; kind++)
        if (n.kinds[kind])
            g->act[kind] = carve(c, act_col_bytes((enum act_kind)kind, n.k) * (size_t)g->max_rows);
    g->moe = carve(c, n.moe);
    attention_carve(g, c);
    for (int t = 0; t < g->n_threads; t++) {
        struct scratch *s = &g->scratch[t];

        for (int i = 0; i < 3; i++)
            s->row[i] = carve(c, (size_t)n.width * sizeof(float));
        for (int kind = 0; kind < ACT_KINDS; kind++)
            if (n.kinds[kind])
                s->act[kind] = carve(c, act_col_bytes((enum act_kind)kind, n.k) * PRIVATE_ROWS);
        if (n.geglu)
            s->tile = carve(c, (size_t)2 * GEGLU_COLS * GROUP_PANELS * PANEL_ROWS * sizeof(float));
        s->attention = carve(c, n.attention);
        s->blas = carve(c, n.blas);
    }
    for (int i = 0; i < g->hp.n_rope; i++) {
        size_t half = (size_t)g->hp.rope[i].n_dims / 2;

        g->inv_freq[i] = carve(c, half * sizeof(float));
        g->cos[i] = carve(c, half * sizeof(float) * (size_t)g->max_rows);
        g->sin[i] = carve(c, half * sizeof(float) * (size_t)g->max_rows);
    }
    g->seq_row = carve(c, (size_t)g->max_seqs * sizeof(int));
    g->pos = carve(c, (size_t)g->max_rows * sizeof(int));
    g->seq_of = carve(c, (size_t)g->max_rows * sizeof(int));
    g->token = carve(c, (size_t)g->max_rows * sizeof(int32_t));
    g->out_row = carve(c, (size_t)g->max_out * sizeof(int));
    g->out_ptr = carve(c, (size_t)g->max_out * sizeof(float *));
    g->out_best = carve(c, (size_t)g->max_out * sizeof(struct shortlist *));
}

static int allocate_scratch(struct graph *g, struct err *err)
{
    struct carver c = {0};

    carve_all(g, &c);
    g->scratch_bytes = c.at;
    c = (struct carver){.base = mem_aligned(g->scratch_bytes)};
    if (!c.base)
        return err_set(
            err, GD_ENOMEM, "no memory for the graph's scratch (%zu bytes)", g->scratch_bytes);
    g->scratch_memory = c.base;
    carve_all(g, &c);
    return 0;
}

/* ---- build ---- */

static step_fn *step_of(const struct ir_node *n)
{
    switch (n->op) {
    case IR_EMBED: return step_embed;
    case IR_RMSNORM: return step_rmsnorm;
    case IR_MATMUL: return step_matmul;
    case IR_HEAD_NORM: return step_head_norm;
    case IR_ROPE: return step_rope;
    case IR_ATTENTION: return step_attention;
    case IR_GEGLU: return step_geglu;
    case IR_ADD: return step_add;
    case IR_SOFTCAP: return step_softcap;
    case IR_GATHER: return step_gather;
    case IR_SCALE: return step_scale;
    case IR_MUL: return step_mul;
    case IR_TANH: return step_tanh;
    case IR_SPARSE: return step_sparse;
    case IR_MATCH_RMS: return step_match_rms;
    case IR_MEAN: return step_mean;
    case IR_ALTUP_PREDICT: return step_altup_predict;
    case IR_ALTUP_CORRECT: return step_altup_correct;
    case IR_MOE: return step_moe;
    case IR_POOL: return step_pool;
    case IR_UNIT: return step_unit;
    case IR_INPUT: return step_input;
    case IR_CUSTOM: return step_custom;
    }
    return NULL;
}

/* Image and audio encoders of multimodal files, as llama.cpp and Hugging Face name them. */
static bool is_encoder(const char *name)
{
    static const char *const prefixes[] = {"v.", "a.", "mm.", "vision_tower.", "vision_model.",
        "audio_tower.", "multi_modal_projector.", "vision_embedder.", "embed_vision.",
        "embed_audio."};

    if (strncmp(name, "model.", 6) == 0)
        name += 6;
    for (size_t i = 0; i < sizeof(prefixes) / sizeof(*prefixes); i++)
        if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
            return true;
    return false;
}

/* Tied models may carry a second copy of the embedding as a head, and layers that share K and V the
 * projections they would have had. */
static bool may_be_left(void *ud, const char *name)
{
    const struct graph *g = ud;
    char own[64];

    if (strcmp(name, "output.weight") == 0)
        return !g->hp.separate_head;
    if (is_encoder(name))
        return true;
    for (int i = 0; i < g->hp.n_layers; i++) {
        static const char *const unused[] = {
            "attn_k.weight", "attn_v.weight", "attn_k_norm.weight"};

        for (int j = 0; g->hp.layers[i].kv_layer != i && j < 3; j++) {
            snprintf(own, sizeof(own), "blk.%d.%s", i, unused[j]);
            if (strcmp(name, own) == 0)
                return true;
        }
    }
    return false;
}

static int compile(struct graph *g, struct weight_store *store, struct err *err)
{
    int r = allocate_values(g, err);

    for (int v = 0; v < g->ir.n_values; v++)
        if (g->ir.values[v].output)
            g->out_width = g->ir.values[v].width;

    weight_store_begin(store);
    if (r == 0)
        r = rope_take_factors(g, store, err);
    g->n_steps = g->ir.n_nodes;
    g->steps = xcalloc((size_t)g->n_steps, sizeof(*g->steps));
    for (int i = 0; r == 0 && i < g->n_steps; i++) {
        struct step *s = &g->steps[i];

        s->node = g->ir.nodes[i];
        s->run = step_of(&s->node);
        for (int j = 0; j < s->node.n_in; j++)
            s->in[j] = g->values[s->node.in[j]];
        for (int j = 0; j < s->node.n_out; j++)
            s->out[j] = g->values[s->node.out[j]];
        r = take_weights(g, s, store, err);
        if (r == 0 && s->run == step_matmul && !s->out[s->node.n_out - 1].base) {
            s->run = step_head;
            r = head_create(g, s, err);
        }
    }
    if (r == 0 && g->complete)
        r = weight_store_end(store, may_be_left, g, err);
    if (r == 0)
        r = allocate_scratch(g, err);
    return r < 0 ? r : rope_prepare(g, err);
}

static void copy_ir(struct ir *dst, const struct ir *src)
{
    *dst = (struct ir){.n_nodes = src->n_nodes,
        .cap_nodes = src->n_nodes,
        .n_values = src->n_values,
        .cap_values = src->n_values};
    dst->nodes = xcalloc((size_t)src->n_nodes, sizeof(*dst->nodes));
    dst->values = xcalloc((size_t)src->n_values, sizeof(*dst->values));
    memcpy(dst->nodes, src->nodes, (size_t)src->n_nodes * sizeof(*dst->nodes));
    memcpy(dst->values, src->values, (size_t)src->n_values * sizeof(*dst->values));
}

/* The passes the profile wants, over a copy of the flow's IR. */
static int run_passes(struct graph *g, const struct ir *ir, struct err *err)
{
    const struct flow_profile *p = &g->profile;
    unsigned fusions = p->policy == FUSION_FUSABLE ? p->target & ~p->skip : 0;
    int alone;

    copy_ir(&g->ir, ir);
    if (p->constant_folding)
        g->changes[0] = pass_constants(&g->ir);
    g->n_ir_before = g->ir.n_nodes;
    g->changes[1] = pass_fuse(&g->ir, fusions);
    if (p->dead_code)
        g->changes[2] = pass_dead_code(&g->ir);
    alone = p->assert_clean ? pass_unfused(&g->ir, fusions) : -1;
    if (alone >= 0)
        return err_set_at(err, GD_EINVAL, "fusion.assert_clean",
            "fusion.assert_clean: %s of \"%s\" stays a step of its own",
            ir_op_name(g->ir.nodes[alone].op), g->ir.values[g->ir.nodes[alone].out[0]].name);
    return 0;
}

/* Where windows are not the model's own, sliding layers' pages are needed as far back as the widest
 * sees. A drafter reads its target's pages, as the target keeps them. */
static void widen_window(struct graph *g)
{
    struct kv_group *sliding = &g->kv_layout.group[KV_SLIDING];

    for (int i = 0; i < g->ir.n_nodes && !g->options.target; i++) {
        const struct ir_node *n = &g->ir.nodes[i];

        if (n->op != IR_ATTENTION || !g->hp.layers[n->attn.kv_layer].window)
            continue;
        if (!n->attn.spec.window)
            sliding->window = g->hp.context;
        else if (n->attn.spec.window > sliding->window)
            sliding->window = n->attn.spec.window;
    }
}

int flow_build(struct graph **out, const struct flow *f, const struct flow_profile *p,
    struct weight_store *weights, const struct kernels *k, struct pool *pool, struct err *err)
{
    struct graph *g = xcalloc(1, sizeof(*g));
    int r;

    g->mode = f->options.mode;
    g->hp = *f->hp;
    g->options = f->options;
    g->profile = *p;
    g->k = k;
    g->pool = pool;
    g->n_threads = pool ? pool_threads(pool) : 1;
    g->scratch = xcalloc((size_t)g->n_threads, sizeof(*g->scratch));
    g->max_seqs = f->options.batch;
    g->max_rows = g->max_out = f->options.batch * f->options.seq;
    g->n_layers = flow_n_layers(f);
    g->complete = f->complete;
    g->kv_hp = f->options.target ? f->options.target : &g->hp;
    kv_layout_of(g->kv_hp, f->options.target ? g->kv_hp->n_layers : g->n_layers,
        p->kv == FLOW_KV_F32 ? KV_F32 : KV_BF16, &g->kv_layout);
    r = run_passes(g, &f->ir, err);
    widen_window(g);
    if (r == 0)
        r = compile(g, weights, err);
    if (r == 0)
        *out = g;
    else
        graph_destroy(g);
    return r;
}

void graph_destroy(struct graph *g)
{
    if (!g)
        return;
    mem_aligned_free(g->arena, g->arena_bytes);
    mem_aligned_free(g->scratch_memory, g->scratch_bytes);
    mem_aligned_free(g->rope_memory, g->rope_bytes);
    for (int i = 0; i < g->n_steps && g->steps; i++)
        free(g->steps[i].moe);
    head_destroy(g->head);
    exec_free(g);
    free(g->values);
    free(g->steps);
    free(g->scratch);
    ir_free(&g->ir);
    free(g);
}
