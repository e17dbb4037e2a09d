#include "engine/plain.h"

#include <stdlib.h>

#include "base/mem.h"

int plain_kv_create(
    struct plain_kv *kv, const struct runtime *rt, int n_seqs, int n_positions, struct err *err)
{
    *kv = (struct plain_kv){.n_seqs = n_seqs, .n_pages = (n_positions + KV_PAGE - 1) / KV_PAGE};
    kv->table = xcalloc((size_t)n_seqs * (size_t)kv->n_pages, sizeof(*kv->table));
    for (int i = 0; i < n_seqs * kv->n_pages; i++)
        kv->table[i] = (uint32_t)i;
    for (int g = 0; g < KV_GROUPS; g++) {
        kv->bytes[g] = rt->kv.group[g].page_bytes * (size_t)(n_seqs * kv->n_pages);
        if (!kv->bytes[g])
            continue;
        kv->memory.base[g] = mem_aligned(kv->bytes[g]);
        if (!kv->memory.base[g]) {
            plain_kv_free(kv);
            return err_set(
                err, GD_ENOMEM, "no memory for K/V of %d x %d positions", n_seqs, n_positions);
        }
    }
    return 0;
}

void plain_kv_free(struct plain_kv *kv)
{
    for (int g = 0; g < KV_GROUPS; g++)
        mem_aligned_free(kv->memory.base[g], kv->bytes[g]);
    free(kv->table);
    *kv = (struct plain_kv){0};
}

static struct graph_seq seq_of(
    const struct plain_kv *kv, int seq, int past, const int32_t *tokens, int n)
{
    const uint32_t *pages = kv->table + (size_t)seq * (size_t)kv->n_pages;

    return (struct graph_seq){
        .past = past, .n_tokens = n, .tokens = tokens, .pages = {pages, pages}};
}

void plain_feed(struct runtime *rt, struct plain_kv *kv, int seq, int past, const int32_t *tokens,
    int n, int chunk, float *logits)
{
    for (int at = 0; at < n; at += chunk) {
        int m = n - at < chunk ? n - at : chunk;
        struct graph_seq q = seq_of(kv, seq, past + at, tokens + at, m);

        if (at + m == n && logits) {
            q.n_logits = 1;
            q.logits = logits;
        }
        graph_run(rt->prefill, &kv->memory, &q, 1);
    }
}

void plain_decode(struct runtime *rt, struct plain_kv *kv, const int *past, const int32_t *tokens,
    int n, float *logits)
{
    plain_decode_best(rt, kv, past, tokens, n, logits, NULL);
}

void plain_decode_best(struct runtime *rt, struct plain_kv *kv, const int *past,
    const int32_t *tokens, int n, float *logits, struct shortlist *best)
{
    struct graph_seq *q = xcalloc((size_t)n, sizeof(*q));

    for (int i = 0; i < n; i++) {
        q[i] = seq_of(kv, i, past[i], tokens + i, 1);
        if (logits) {
            q[i].n_logits = 1;
            q[i].logits = logits + (size_t)i * (size_t)rt->hp.vocab;
            q[i].best = best ? &best[i] : NULL;
        }
    }
    graph_run(rt->decode, &kv->memory, q, n);
    free(q);
}
