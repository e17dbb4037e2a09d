/* plan.h - a compiled graph: steps over one arena. Private to the graph layer.
 *
 * Every thread walks all steps; a barrier stands after each. Within a step rows, panels or heads
 * are shared out; a step that has a second phase has a barrier of its own inside. Buffers are rows
 * of floats, `ld` apart. */
#ifndef GRAPH_PLAN_H
#define GRAPH_PLAN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/pool.h"
#include "gemmad/flow.h"
#include "graph/graph.h"
#include "graph/ir.h"
#include "graph/weights.h"
#include "kernels/kernels.h"
#include "model/hparams.h"

/* Up to STATIC_ROWS rows, threads take equal shares; beyond, they pull pieces. */
enum { STATIC_ROWS = 16, ROPE_TABLES = 2 };

/* Where a value lives: rows at base + row * ld; or base == NULL: in the caller's memory
 * (graph_seq.logits). */
struct operand {
    float *base;
    int ld;
    enum ir_rows rows;
};

struct linear {
    struct wmat w;
    enum matmul_backend backend;
    enum act_kind kind; /* of the input it reads */
};

struct step;
typedef void step_fn(struct graph *g, struct step *s, int thread);

struct step {
    step_fn *run;
    struct ir_node node;
    struct operand in[IR_MAX_ARGS], out[IR_MAX_ARGS];
    const float *vec, *vec2; /* norm weight, or branch and pre norms, or q and k norms */
    struct linear linear[IR_MAX_LINEARS];
    bool kinds[ACT_KINDS];   /* activation kinds the linears read */
    struct mapped_rows rows; /* IR_EMBED of a table that stays in the file */
    struct moe *moe;         /* IR_MOE, see graph/moe.h */
    int kv_group;            /* IR_ATTENTION: which page table, */
    size_t kv_offset;        /* and where in a page this layer's planes lie */
    atomic_int next;         /* next piece to pull; reset before each run */
};

/* One thread's private memory. */
struct scratch {
    float *row[3];           /* as wide as the widest value */
    uint8_t *act[ACT_KINDS]; /* PRIVATE_ROWS prepared columns */
    float *tile;             /* GeGLU's gate and up pieces */
    void *attention, *blas;
};

struct graph {
    enum flow_mode mode;
    struct hparams hp;
    const struct hparams *kv_hp; /* whose layers the pages hold: hp, or the target of a drafter */
    struct flow_options options;
    struct flow_profile profile;
    const struct kernels *k;
    struct pool *pool;
    int n_threads;
    int n_layers, out_width; /* of this graph, of its result */
    bool complete;           /* reads every weight of the model: what is left over is an error */
    uint64_t by_blas;        /* bit t: matrices of type t are OpenBLAS' */
    int n_ir_before;         /* nodes before fusion, for people */
    int changes[3];          /* what constants, fusion and dead code changed */
    struct ir ir;

    struct step *steps;
    int n_steps;
    struct kv_layout kv_layout;

    uint8_t *arena;
    size_t arena_bytes;
    struct operand *values;        /* one per IR value */
    uint8_t *act[ACT_KINDS];       /* prepared columns shared by all threads */
    uint8_t *moe;                  /* the mixture in progress */
    struct attention_parts *parts; /* (n_threads), steps_attention.h */
    struct head *head;             /* graph/head.h; NULL when the result is no product */
    const float *rope_factors[ROPE_TABLES];
    struct scratch *scratch; /* one per thread */
    uint8_t *scratch_memory; /* acts, scratch, tables and row arrays */
    size_t scratch_bytes;
    float *inv_freq[ROPE_TABLES];               /* (head_dim / 2) */
    float *cos[ROPE_TABLES], *sin[ROPE_TABLES]; /* (max_rows, head_dim / 2) of this run's rows */
    /* With options.rope_positions, (rope_positions, head_dim / 2) of every position. */
    float *all_cos[ROPE_TABLES], *all_sin[ROPE_TABLES];
    float *rope_memory; /* the four of them */
    size_t rope_bytes;

    /* The run in progress. */
    int max_rows, max_seqs, max_out;
    const struct kv_memory *kv;
    const struct graph_seq *seqs;
    int n_seqs, n_rows, n_out;
    int *seq_row;                /* (max_seqs) first row of each sequence */
    int *pos;                    /* (max_rows) position of each row */
    int *seq_of;                 /* (max_rows) */
    int32_t *token;              /* (max_rows) */
    int *out_row;                /* (max_out) token row of each OUT row */
    float **out_ptr;             /* (max_out) where the caller wants it */
    struct shortlist **out_best; /* (max_out) or where he wants the best of it; NULL: the row */
    bool no_window;              /* a mask stands for the windows */
    bool rope_baked;   /* a fixed decode graph: cos and sin hold its one row since the first run */
    bool rope_given;   /* cos and sin hold this run's rows already */
    struct exec *exec; /* graph_exec()'s pages; NULL until it is first used */
};

enum { PRIVATE_ROWS = 2, GEGLU_COLS = 96, GROUP_PANELS = 8 };

static inline float *row_at(const struct graph *g, const struct operand *o, int row)
{
    return o->base ? o->base + (size_t)row * (size_t)o->ld : g->out_ptr[row];
}

static inline int n_rows_of(const struct graph *g, enum ir_rows rows)
{
    return rows == ROWS_TOKENS ? g->n_rows : g->n_out;
}

step_fn step_embed, step_rmsnorm, step_head_norm, step_rope, step_geglu, step_add, step_softcap,
    step_gather;
step_fn step_rope_rows; /* fills cos and sin of the run's rows */
step_fn step_matmul, step_head, step_attention, step_moe;
step_fn step_scale, step_mul, step_tanh, step_sparse, step_match_rms, step_mean, step_pool,
    step_unit;
step_fn step_altup_predict, step_altup_correct, step_input, step_custom;

void exec_free(struct graph *g);

/* Backend and activation kind for a matrix of this type in this graph. */
enum matmul_backend plan_backend(const struct graph *g, const struct dtype_info *type);
enum act_kind plan_act(const struct graph *g, const struct dtype_info *type);

/* Where the pages of layer i lie; fills group layouts. */
void kv_layout_of(const struct hparams *hp, int n_layers, enum kv_type type, struct kv_layout *out);
int kv_group_of(const struct hparams_layer *l);
size_t kv_offset_of(const struct hparams *hp, int layer, enum kv_type type);

#endif
