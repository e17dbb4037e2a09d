/* flow.h - describe a Gemma graph, compile it, run it, look at it.
 *
 * A flow says what is computed: mode, sizes, outputs, extra stages. flow_build() turns it into a
 * graph:
 *
 *   flow -> IR (typed operations on [rows, width] values) -> passes (constants, fusion, dead code)
 *        -> plan (steps over one arena; one step is one parallel phase, steps are separated by
 * barriers)
 *
 * Rows are symbolic: TOKENS is the number of new tokens of a run, OUT the number of tokens whose
 * logits or hidden states are asked for. Widths are fixed when the graph is built. All numbers are
 * f32, row-major.
 *
 * The daemon runs graphs over paged K/V (graph/graph.h, inside). A program that links this library
 * has flow_model_open() for the file and graph_exec() for tensors in, tensors out:
 *
 *   flow_model_open(&m, "gemma.gguf", 0, &err);
 *   flow_prefill_options(&o, 1, 128);           o.dynamic_seq = true;
 *   flow_create(&f, flow_model_hparams(m), &o, &err);
 *   flow_profile_default(&p);
 *   flow_model_build(&g, m, f, &p, &err);
 *   graph_exec(g, &(struct graph_io){.input_ids = ids, .seq = n, .output = logits}, &err);
 *
 * flow_model_open_tensors() takes weights that the program brings instead.
 *
 * A flow, a build and a run belong to one thread at a time. Functions return 0 or a negative
 * GD_E... code with a sentence in *err that names the option, weight or line at fault. */
#ifndef GEMMAD_FLOW_H
#define GEMMAD_FLOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "gemmad/err.h"

struct buf;
struct flow;
struct flow_model;
struct graph;
struct hparams;
struct kernels;
struct pool;
struct weight_store;

/* ---- what is computed ---- */

enum flow_mode { FLOW_PREFILL, FLOW_DECODE };

enum flow_output {
    FLOW_LAST_LOGITS, /* (batch, vocab): of the last token, or of graph_io.last_index in a dynamic
                         prefill; of an embedding model its vector, (batch, graph_out_width()) */
    FLOW_LOGITS,      /* (batch, seq, vocab); not of embedding models */
    FLOW_HIDDEN       /* (batch, seq, width): after the final norm, no head */
};

struct flow_hooks;

enum { FLOW_MAX_ROPE_BYTES = 1 << 30 };

struct flow_options {
    enum flow_mode mode;
    int batch; /* sequences of a run */
    int seq;   /* prefill: new tokens of each sequence, the most of them when dynamic_seq; decode: 1
                */
    int past_seq;      /* decode: positions before the new token, when not dynamic_past */
    bool dynamic_seq;  /* prefill: a run may have 1 .. seq tokens; batch must be 1 */
    bool dynamic_past; /* decode: every run says how long the past is */
    enum flow_output output;
    bool export_kv; /* prefill also returns each layer's K and V; decode always returns the new ones
                     */
    bool custom_mask; /* decode: a run brings a mask (batch, past + 1) that replaces causal and
                         window masks */
    bool taps;        /* keep every stage's output for graph_tap() */
    int effective_num_layers; /* stop after this many layers; 0 = all */
    /* How the cos and sin rows that turn q and k come about. 0: every run computes those of its
     * tokens, at any position. n: flow_build() makes tables of positions 0 .. n - 1, two where
     * layers differ, and runs take their rows from there, the same bits; graph_exec() refuses a
     * position beyond. At most the model's context, and tables of FLOW_MAX_ROPE_BYTES. */
    int rope_positions;
    /* One per layer: how many keys a query sees, itself included; 0 = every earlier position. NULL:
     * the model's own (all causal in Gemma 1, alternating in 2, strided from 3 on, or as its file
     * lists them). The rotation of a layer stays what it is. Used by flow_create() only. */
    const int *windows;
    /* A drafter (Gemma 4 assistant) attends to the pages of its target: the target's shape,
     * borrowed while the graph lives. Rows come from graph_seq.input; the "state" tap is what the
     * next draft starts from. NULL for everything else. */
    const struct hparams *target;
    const struct flow_hooks
        *hooks; /* NULL: none. Used by flow_create() only, but for stages' run and ud */
};

/* batch 1, seq 128, past 0, nothing dynamic, logits of the last token, all layers. */
void flow_options_default(struct flow_options *o);
void flow_prefill_options(struct flow_options *o, int batch, int seq);
void flow_decode_options(struct flow_options *o, int batch, int past_seq);

/* ---- stages of one's own ---- */

enum { FLOW_STAGE_ARGS = 4 };

/* A row-wise function with declared shapes, run in the plan like the built-in operations: for every
 * row, from any worker thread, in no order: it must not touch anything but its row and constants.
 */
struct flow_stage {
    const char *name;
    int n_in, n_out;
    int in_width[FLOW_STAGE_ARGS], out_width[FLOW_STAGE_ARGS];
    void (*run)(void *ud, const float *const *in, float *const *out);
    void *ud;
};

/* Values are handles (>= 0) of [rows, width] results. A mistake (an unknown handle, a width that
 * does not fit) is remembered and reported by flow_create(). */
int flow_width(const struct flow *f, int value);
void flow_custom(struct flow *f, const struct flow_stage *stage, const int *in, int *out);
int flow_rmsnorm(struct flow *f, int x, const char *weight); /* weight NULL: all ones */
int flow_matmul(struct flow *f, int x, const char *weight, int out_width);
int flow_sum(struct flow *f, int x, int y);

enum flow_layer_style { FLOW_LAYER_DENSE, FLOW_LAYER_EXPERTS, FLOW_LAYER_ALTUP };

struct flow_layer_info {
    int index;
    enum flow_mode mode; /* whether what follows describes attention over the new tokens or one
                            decoded token */
    enum flow_layer_style style;
    int n_heads, n_kv_heads, head_dim;
    int window;           /* keys a query sees, itself included; 0 = every earlier position */
    int rope_table;       /* 0 global, 1 local */
    float scale, softcap; /* of the scores: q.k * scale, then cap * tanh(score / cap); 0 = no cap */
    int kv_sink; /* the layer whose K and V are read: this one, which then also appends to them, or
                    a donor */
};

struct flow_hooks {
    void *ud;
    /* Extra stages on the residual stream before the first and after the last layer: value in,
     * value out. NULL: none */
    int (*before_layers)(void *ud, struct flow *f, int h);
    int (*after_layers)(void *ud, struct flow *f, int h);
    /* In place of a layer: residual stream in and out. flow_default_layer() gives the model's own:
     * the weights and heads of `index`, with window, scale and softcap as they stand in the info
     * that it gets, so a hook may change them. NULL: that one */
    int (*layer)(void *ud, struct flow *f, const struct flow_layer_info *layer, int h);
    /* After the final norm, before the head is added: value in, value out. NULL: none */
    int (*patch)(void *ud, struct flow *f, int x);
};
int flow_default_layer(struct flow *f, const struct flow_layer_info *layer, int h);

/* hp is borrowed until flow_destroy. */
int flow_create(
    struct flow **out, const struct hparams *hp, const struct flow_options *o, struct err *err);
void flow_destroy(struct flow *f); /* NULL is fine */

/* ---- how it is compiled ---- */

enum fusion_policy {
    FUSION_DIRECT, /* every operation its own step */
    FUSION_FUSABLE /* operations fold into their neighbours' steps: five steps a dense layer */
};

enum fusion {           /* bits */
    FUSE_ATTENTION = 1, /* head norms and rotation into attention */
    FUSE_SIBLINGS = 2,  /* matrices that read the same value into one step */
    FUSE_EPILOGUE = 4,  /* GeGLU and soft-cap into the product before them */
    FUSE_PROLOGUE = 8,  /* norms and the row gather into the product after them */
    FUSE_RESIDUAL = 16, /* residual adds into the product after them */
    FUSE_ALL = 31
};

enum backend_choice { BACKEND_AUTO, BACKEND_NATIVE, BACKEND_BLAS };
enum { FLOW_TYPES = 64 };

/* What a matrix product sees of its input. Default: 8-bit codes under one f32 scale per 32 values
 * for quantised weights, bf16 for BF16 weights where the CPU has its dot product, else f32.
 * Precise: 16-bit codes in the same way, the sum of two bf16. Reference: f32 in plain order. */
enum flow_precision { FLOW_DEFAULT, FLOW_PRECISE, FLOW_REFERENCE };

struct flow_profile {
    enum flow_precision precision;
    enum fusion_policy policy;
    unsigned target, skip; /* fusions to try, and those of them to leave out */
    bool assert_clean;     /* fail when something that a wanted fusion could fold stays alone */
    bool dead_code, constant_folding; /* passes */
    bool verbose;                     /* graph_print() also says what each pass did */
    enum backend_choice matmul;       /* of this mode's phase, */
    signed char override[FLOW_TYPES]; /* and of single weight types by GGUF type id: enum
                                         backend_choice, or -1 */
    enum flow_kv { FLOW_KV_F32, FLOW_KV_BF16 } kv;
};

/* reference: direct, f32 pages. precise: fusable, f32 pages. default: fusable, bf16 pages. */
void flow_profile_reference(struct flow_profile *p);
void flow_profile_precise(struct flow_profile *p);
void flow_profile_default(struct flow_profile *p);
/* The built-in profile of that name, "default", "precise" or "reference"; false for another. */
bool flow_profile_named(struct flow_profile *p, const char *name);
const char *flow_precision_name(enum flow_precision p); /* the same names */

/* Reads the lines of [prefill] or [decode] in a gemmad.profile over *p. Lines are `key = value`;
 * keys are the ones flow_profile_print() writes. GD_ENOENT when there is no such file; a bad line
 * is named by its number. */
int flow_profile_load(
    struct flow_profile *p, const char *path, enum flow_mode mode, struct err *err);
void flow_profile_print(const struct flow_profile *p, enum flow_mode mode, struct buf *out);
char *flow_profile_text(const struct flow_profile *p, enum flow_mode mode); /* caller frees */

/* Compiles. Each weight is taken once by its name; GD_EFORMAT names one that is missing, has
 * another shape, or is left over, GD_EINVAL one that is used twice. The store, pool and kernels
 * must outlive the graph; pool may be NULL. */
int flow_build(struct graph **out, const struct flow *f, const struct flow_profile *p,
    struct weight_store *weights, const struct kernels *k, struct pool *pool, struct err *err);
void graph_destroy(struct graph *g); /* NULL is fine */

/* One line per operation and per step, for people; dot: a Graphviz digraph instead. */
void graph_print(const struct graph *g, bool dot, struct buf *out);
char *graph_text(const struct graph *g, bool dot); /* the same as a string; caller frees */

/* ---- running it on tensors ---- */

/* Per-layer arrays have one entry for each of the model's layers; entries of layers without K and V
 * of their own are not looked at. K and V are (batch, n_kv_heads, positions, head_dim), K after its
 * norm and rotation. */
struct graph_io {
    const int32_t *input_ids; /* (batch, seq) */
    int seq;                  /* dynamic_seq: tokens of this run; else 0 or the graph's */
    int last_index;           /* FLOW_LAST_LOGITS with dynamic_seq: which token's logits */
    int past; /* decode with dynamic_past: positions in past_k and past_v; else 0 or the graph's */
    const float *const *past_k,
        *const *past_v;   /* decode: (layers) of (batch, n_kv_heads, past, head_dim) */
    const int *positions; /* decode: (batch) position of each new token; NULL: past */
    const float *const *rope_cos,
        *const *rope_sin; /* decode: (rope tables) of (batch, n_dims / 2); NULL: from positions */
    const float *custom_mask; /* (batch, past + 1): 0 lets a key be seen, -INFINITY hides it; the
                                 new token's own is last */
    float *output;            /* see enum flow_output */
    float *const *new_k,
        *const *new_v; /* (layers) of (batch, n_kv_heads, new tokens, head_dim); NULL: not wanted */
};

/* Draft models cannot run here: GD_ENOTSUP. */
int graph_exec(struct graph *g, const struct graph_io *io, struct err *err);
int graph_out_width(const struct graph *g); /* vocab, or the width of hidden states or embeddings */

/* ---- rotation ----
 *
 * Pair i of a head of n_dims numbers, x[i] and x[i + n_dims / 2], turns by the angle
 * position * inv_freq[i], a product in f32, with
 *   inv_freq[i] = (float)(1 / freq_base^(2 i / n_dims)) * freq_scale / factor[i],
 * freq_scale being 1 over the factor of linear scaling and factor[i] the tensor rope_freqs.weight,
 * both 1 where the model has none. flow_layer_info.rope_table says which table a layer uses: 0, or
 * 1 in sliding layers of models that turn these by other frequencies. */
struct graph_rope {
    int n_pairs;            /* n_dims / 2 */
    const float *inv_freq;  /* (n_pairs) */
    int n_positions;        /* flow_options.rope_positions, */
    const float *cos, *sin; /* and the tables (n_positions, n_pairs); NULL when it is 0 */
};
/* Borrowed from the graph. False: the model has no such table. */
bool graph_rope(const struct graph *g, int table, struct graph_rope *out);
/* The rows of positions first .. first + n - 1, (n, n_pairs) each: what a table holds and what
 * graph_io.rope_cos and rope_sin take. */
void flow_rope_rows(
    const float *inv_freq, int n_pairs, int first, int n, float *cos_rows, float *sin_rows);

/* After a run of a graph built with taps: rows of the named stage ("embedding", "layer 3", "norm
 * input", "norm output", which a FLOW_HIDDEN graph has in its output instead; Gemma 3n's further
 * streams "layer 3.1"), (rows, width), valid until the next run; NULL: no such stage. */
const float *graph_tap(const struct graph *g, const char *stage, int *rows, int *width);

/* ---- a model file for programs that link this library ---- */

/* Opens a GGUF or a Hugging Face folder, with the best instruction set; n_threads 0: every CPU this
 * process may use. */
int flow_model_open(struct flow_model **out, const char *path, int n_threads, struct err *err);
void flow_model_close(struct flow_model *m); /* after every graph built from it; NULL is fine */
const struct hparams *flow_model_hparams(const struct flow_model *m);
int flow_model_build(struct graph **out, struct flow_model *m, const struct flow *f,
    const struct flow_profile *p, struct err *err);

/* A tensor as GGUF files name and lay it out: "blk.3.attn_q.weight"; dims[0] is contiguous, so a
 * matrix (rows, k) has dims {k, rows}; norm weights are what is multiplied by, with the 1 of
 * Hugging Face folders added. */
struct flow_tensor {
    const char *name;
    int type; /* GGUF type id: 0 F32, 1 F16, 30 BF16, 8 Q8_0, 2 Q4_0, 12 Q4_K, 14 Q6_K ... */
    int n_dims;
    int64_t dims[4];
    const void *data; /* any alignment */
    size_t bytes;
};
/* The model's tensor number i, from 0, borrowed from the model. False past the last. */
bool flow_model_tensor(const struct flow_model *m, size_t i, struct flow_tensor *out);
/* A model with weights of the caller's own: shape and tokenizer are those of the GGUF or folder at
 * path (keys and a tokenizer are enough; tensors of its own are not looked at), the weights are the
 * n tensors given. The array and the names may go afterwards; the data is borrowed until
 * flow_model_close(), for a build reads and packs what it takes, and per-layer embedding tables
 * stay where they are. GD_EFORMAT names a tensor that is there twice, or whose type, shape and
 * bytes do not fit each other; the build names one that is missing, surplus or of another shape
 * than the model's. */
int flow_model_open_tensors(struct flow_model **out, const char *path,
    const struct flow_tensor *tensors, size_t n, int n_threads, struct err *err);

/* Sizes of the model, without its private header. */
struct flow_model_size {
    int n_layers, width, vocab, n_rope_tables;
    int context; /* positions it was trained for */
};
void flow_model_size(const struct flow_model *m, struct flow_model_size *out);
/* Heads of a layer as flow_layer_info has them. */
void flow_model_layer(const struct flow_model *m, int layer, struct flow_layer_info *out);

/* Ids of a text with the model's bos in front; caller frees *ids. */
int flow_model_encode(
    const struct flow_model *m, const char *text, int32_t **ids, int *n, struct err *err);
/* The text of one token, borrowed, not NUL-terminated. */
const char *flow_model_piece(const struct flow_model *m, int32_t id, size_t *len);

#endif
