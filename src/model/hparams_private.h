/* hparams_private.h - reading keys one by one; shared by the files that read hyper-parameters. */
#ifndef MODEL_HPARAMS_PRIVATE_H
#define MODEL_HPARAMS_PRIVATE_H

#include "model/hparams.h"

/* Sane limits, well above any Gemma and far below what could overflow an int further on. */
enum {
    MAX_WIDTH = 65536,
    MAX_FFN = 1 << 20,
    MAX_HEADS = 1024,
    MAX_HEAD_DIM = 1024,
    MAX_CONTEXT = 1 << 24,
    MAX_VOCAB = 1 << 24
};

/* What a version of Gemma assumes when a key is missing. */
struct family {
    const char *name;
    enum gemma_arch arch;
    bool qk_norm, post_norms;
    bool has_window; /* layers may have a sliding window */
    int window;      /* when the key is absent */
    int period;      /* every period-th layer is global */
    bool has_softcaps;
    float attention_softcap, final_softcap;
    bool has_local_rope; /* sliding layers rotate with a base of their own */
    int layers_27b;      /* with so many layers, attention is scaled by width / heads */
    bool unscaled;       /* q.k is taken as it is, and v is normed per head */
    bool bidirectional;  /* sliding layers see to either side */
    bool local_heads;    /* sliding layers have a head dimension of their own */
    bool needs_window;   /* a file without the key is broken */
    bool rope_factors;   /* a GGUF carries rope_freqs.weight for its global layers */
    bool drafter;        /* reads the K and V of another model */
};

struct reader {
    const struct source *src;
    const struct family *family;
    struct hparams *hp;
    struct err *err;
    char key[96]; /* the one being read */
};

/* Makes "gemma3.block_count" of "block_count" the key being read. */
const char *hparams_key(struct reader *rd, const char *suffix);
int hparams_missing(struct reader *rd);
/* "The key K " and the rest of the sentence, where K is what the model's own files call it. */
void hparams_complain(struct reader *rd, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* A macro so that the compiler sees the negative constant being returned. */
#define refuse(rd, ...) (hparams_complain((rd), __VA_ARGS__), GD_EFORMAT)
/* 1 and *out set, 0 when the key is absent, or an error; the need form takes absence for an error.
 */
int hparams_int(struct reader *rd, const char *suffix, int min, int max, int *out);
int hparams_need_int(struct reader *rd, const char *suffix, int min, int max, int *out);
/* A finite float of at least min. */
int hparams_float(struct reader *rd, const char *suffix, float min, float *out);

/* Steps of the later families, after the common ones: K/V sharing, per-layer inputs, AltUp,
 * experts, dense maps. */
int hparams_read_later(struct reader *rd);

#endif
