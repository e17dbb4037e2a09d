#include "fake.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <pthread.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "base/mem.h"
#include "engine/private.h"
#include "engine/runtime.h"
#include "graph/draw.h"
#include "model/chat.h"
#include "harness.h"

struct fake fake;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* guards passes, closed and blocked */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static int passes;
static bool closed, blocked;

void fake_reset(void)
{
    fake = (struct fake){.context = 4096, .window = 100, .end_every = 23};
    fake_open_gate();
}

void fake_close_gate(void)
{
    pthread_mutex_lock(&gate);
    closed = true;
    passes = 0;
    pthread_mutex_unlock(&gate);
}

void fake_pass(int n_runs)
{
    pthread_mutex_lock(&gate);
    passes += n_runs;
    blocked = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&gate);
}

void fake_open_gate(void)
{
    pthread_mutex_lock(&gate);
    closed = false;
    blocked = false;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&gate);
}

void fake_wait_blocked(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 20;
    pthread_mutex_lock(&gate);
    while (!blocked) {
        if (pthread_cond_timedwait(&changed, &gate, &until) != 0) {
            fputs("no run came to the gate for 20 s\n", stderr);
            abort();
        }
    }
    pthread_mutex_unlock(&gate);
}

static void go_through(void)
{
    pthread_mutex_lock(&gate);
    while (closed && passes == 0) {
        blocked = true;
        pthread_cond_broadcast(&changed);
        pthread_cond_wait(&changed, &gate);
    }
    blocked = false;
    if (closed)
        passes--;
    pthread_mutex_unlock(&gate);
}

/* ---- allocations, counted by the linker's --wrap ---- */

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t n);

static _Thread_local int n_allocs;

void *__wrap_malloc(size_t n)
{
    n_allocs++;
    return __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t size)
{
    n_allocs++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t n)
{
    n_allocs++;
    return __real_realloc(p, n);
}

/* ---- the model ---- */

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0xff51afd7ed558ccdu;
    return h ^ h >> 29;
}

static void logits_of(uint64_t h, float *out)
{
    for (int i = 0; i < FAKE_VOCAB; i++) {
        uint64_t x = mix(h, (uint64_t)i + 1);
        bool printable = i >= FAKE_BYTE + 'a' && i <= FAKE_BYTE + 'z';

        out[i] = (float)(x >> 40) / (1 << 24) * 4 + (printable ? 0.0f : -5.0f) -
                 (i < FAKE_BYTE ? 20.0f : 0.0f);
        if (fake.nan_logits)
            out[i] = NAN;
    }
    if (fake.end_every && mix(h, 99) % (uint64_t)fake.end_every == 0)
        out[FAKE_EOT] = 50;
}

void fake_logits(const int32_t *tokens, int n, float *out)
{
    uint64_t h = 1;

    for (int i = 0; i < n; i++)
        h = mix(h, (uint64_t)tokens[i]);
    logits_of(h, out);
}

int fake_answer(int32_t *tokens, int n, int max, bool ignore_eos)
{
    int made = 0;

    while (made < max) {
        float logits[FAKE_VOCAB];
        int best = 0;

        fake_logits(tokens, n + made, logits);
        for (int i = 1; i < FAKE_VOCAB; i++)
            best = logits[i] > logits[best] ? i : best;
        tokens[n + made++] = best;
        if (!ignore_eos && (best == FAKE_EOS || best == FAKE_EOT))
            break;
    }
    return made;
}

/* ---- the runtime ---- */

struct graph {
    bool decode;
    int max_tokens, max_sequences;
};

static int32_t *slot(const struct kv_memory *kv, const struct graph_seq *seq, int group, int pos)
{
    return (int32_t *)(kv->base[group] +
                       seq->pages[group][pos / KV_PAGE] * (size_t)FAKE_PAGE_BYTES) +
           pos % KV_PAGE;
}

static void run_token(const struct kv_memory *kv, const struct graph_seq *seq, int i, float *logits)
{
    int pos = seq->past + i;
    uint64_t h = 1;

    *slot(kv, seq, KV_GLOBAL, pos) = seq->tokens[i] + 1;
    if (!fake.no_sliding)
        *slot(kv, seq, KV_SLIDING, pos) = seq->tokens[i] + 1;
    if (!logits && pos % 16 != 0) /* reading back everything for every token would be slow */
        return;
    for (int p = 0; p <= pos; p++) {
        int32_t id = *slot(kv, seq, KV_GLOBAL, p);

        fake.n_bad += id == 0;
        if (!fake.no_sliding && p > pos - fake.window)
            fake.n_bad += *slot(kv, seq, KV_SLIDING, p) != id;
        h = mix(h, (uint64_t)id - 1);
    }
    if (logits)
        logits_of(h, logits);
}

/* Gives the list or the draw that was asked for and spoils the row: nobody may read it then. */
static void shorten(const struct graph_seq *seq)
{
    struct shortlist *list = seq->best;
    struct kernels k;

    if (list->row_else)
        return;
    list->drawn = list->draw.scale > 0 && !list->choose;
    list->n = list->k < FAKE_VOCAB ? list->k : FAKE_VOCAB;
    if (list->drawn) {
        kernels_init(&k, ISA_C);
        list->best[0] = (struct logit){-1, -INFINITY};
        draw_take(&k, &list->draw, 0, seq->logits, FAKE_VOCAB, &list->best[0]);
    }
    for (int i = 0; i < list->n && !list->drawn; i++) {
        int best = 0;

        for (int id = 1; id < FAKE_VOCAB; id++)
            best = seq->logits[id] > seq->logits[best] ? id : best;
        list->best[i] = (struct logit){best, seq->logits[best]};
        seq->logits[best] = -INFINITY;
    }
    for (int id = 0; id < FAKE_VOCAB; id++)
        seq->logits[id] = NAN;
}

void graph_run(
    struct graph *g, const struct kv_memory *kv, const struct graph_seq *seqs, int n_seqs)
{
    struct fake_run run = {
        .decode = g->decode, .n_seqs = n_seqs, .past = seqs[0].past, .n_allocs = n_allocs};
    struct timespec time;
    long us;

    go_through();
    for (int s = 0; s < n_seqs; s++) {
        run.n_tokens += seqs[s].n_tokens;
        if (n_seqs > 1 && !seqs[s].n_logits && !fake.graphs_differ) { /* else it is replayed */
            run.decode = true;
            run.n_riding += seqs[s].n_tokens;
        }
        for (int i = 0; i < seqs[s].n_tokens; i++) {
            const int row = i - (seqs[s].n_tokens - seqs[s].n_logits);

            run_token(kv, &seqs[s], i, row < 0 ? NULL : seqs[s].logits + row * FAKE_VOCAB);
        }
        if (seqs[s].best && seqs[s].n_logits == 1 && !fake.no_lists && !fake.nan_logits)
            shorten(&seqs[s]);
    }
    run.first_id = *slot(kv, &seqs[0], KV_GLOBAL, 0) - 1;
    if (fake.n_runs < FAKE_RUNS_MAX)
        fake.runs[fake.n_runs++] = run;
    us = fake.us_per_run + (long)fake.us_per_token * run.n_tokens;
    time = (struct timespec){us / 1000000, us % 1000000 * 1000};
    if (us)
        nanosleep(&time, NULL);
}

void graph_head_bytes(const struct graph *g, int64_t *read, int64_t *whole)
{
    *read = *whole = 0;
}

int graph_n_steps(const struct graph *g)
{
    (void)g;
    return 1;
}

bool graph_same_bits(const struct graph *a, const struct graph *b)
{
    return !fake.graphs_differ;
}

int graph_max_tokens(const struct graph *g)
{
    return g->max_tokens;
}

int graph_out_width(const struct graph *g)
{
    return FAKE_VOCAB;
}

int graph_max_sequences(const struct graph *g)
{
    return g->max_sequences;
}

void runtime_opts_default(struct runtime_opts *o)
{
    *o = (struct runtime_opts){.max_sequences = 1, .max_chunk = 1};
}

int runtime_open(struct runtime **out, const struct runtime_opts *o, struct err *err)
{
    struct runtime *rt;
    int r;

    if (fake.open_error)
        return err_set_at(err, fake.open_error, "blk.0.attn_q.weight", "the model is broken");
    rt = xcalloc(1, sizeof(*rt));
    r = pool_create(&rt->pool, 2, err);
    if (r < 0) {
        free(rt);
        return r;
    }
    kernels_init(&rt->kernels, ISA_C);
    rt->hp.vocab = FAKE_VOCAB;
    rt->hp.context = fake.context;
    rt->kv.group[KV_GLOBAL] = (struct kv_group){.n_layers = 1, .page_bytes = FAKE_PAGE_BYTES};
    if (!fake.no_sliding)
        rt->kv.group[KV_SLIDING] =
            (struct kv_group){.n_layers = 1, .window = fake.window, .page_bytes = FAKE_PAGE_BYTES};
    rt->prefill = xcalloc(1, sizeof(struct graph));
    rt->decode = xcalloc(1, sizeof(struct graph));
    rt->hp.bidirectional = fake.embeds;
    rt->max_chunk = o->max_chunk;
    *rt->prefill = (struct graph){
        false, o->max_chunk + (fake.embeds ? 0 : o->max_sequences), o->max_sequences};
    *rt->decode = (struct graph){true, 1, o->max_sequences};
    *out = rt;
    return 0;
}

void runtime_close(struct runtime *rt)
{
    if (!rt)
        return;
    pool_destroy(rt->pool);
    free(rt->prefill);
    free(rt->decode);
    free(rt);
}

/* ---- the tokenizer ---- */

int tokenizer_n_tokens(const struct tokenizer *t)
{
    return FAKE_VOCAB;
}

const struct tokenizer_special *tokenizer_special(const struct tokenizer *t)
{
    static struct tokenizer_special special = {
        .bos = FAKE_BOS, .eos = FAKE_EOS, .unk = -1, .pad = 0, .eot = FAKE_EOT};

    special.add_bos = !fake.no_bos;
    return &special;
}

bool tokenizer_is_eog(const struct tokenizer *t, int32_t id)
{
    return id == FAKE_EOS || id == FAKE_EOT;
}

bool tokenizer_is_control(const struct tokenizer *t, int32_t id)
{
    return id < FAKE_BYTE;
}

int tokenizer_encode(const struct tokenizer *t, const char *text, size_t len, bool parse_special,
    struct token_list *out, struct err *err)
{
    for (size_t i = 0; i < len; i++) {
        if (parse_special && len - i >= 5 && memcmp(text + i, "<bos>", 5) == 0) {
            token_list_push(out, FAKE_BOS);
            i += 4;
        } else {
            token_list_push(out, FAKE_BYTE + (unsigned char)text[i]);
        }
    }
    return 0;
}

void token_list_push(struct token_list *l, int32_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 16;
        l->ids = xrealloc(l->ids, l->cap * sizeof(*l->ids));
    }
    l->ids[l->n++] = id;
}

void token_list_free(struct token_list *l)
{
    free(l->ids);
    *l = (struct token_list){0};
}

const char *tokenizer_piece(const struct tokenizer *t, int32_t id, size_t *len)
{
    static const char *const control[] = {"<pad>", "<eos>", "<bos>", "<end>"};
    static _Thread_local char bytes[256];

    if (id < 0 || id >= FAKE_VOCAB) {
        *len = 0;
        return "";
    }
    if (id < FAKE_BYTE) {
        *len = strlen(control[id]);
        return control[id];
    }
    bytes[id - FAKE_BYTE] = (char)(id - FAKE_BYTE);
    *len = 1;
    return &bytes[id - FAKE_BYTE];
}

int32_t tokenizer_find(const struct tokenizer *t, const char *text, size_t len)
{
    return len == 1 ? FAKE_BYTE + (unsigned char)text[0] : -1;
}

/* ---- conversations ---- */

int chat_format_pick(
    enum chat_format *out, const char *setting, const struct source *src, struct err *err)
{
    if (strcmp(setting, "auto") != 0)
        return err_set(err, GD_ENOTSUP, "chat_format: no format %s", setting);
    *out = CHAT_GEMMA3;
    return 0;
}

bool chat_has_tools(enum chat_format f)
{
    return false;
}

bool chat_has_thinking(enum chat_format f)
{
    return false;
}

const char *chat_format_name(enum chat_format f)
{
    return "gemma3";
}

int chat_render(enum chat_format f, const struct chat_message *messages, size_t n,
    const struct chat_options *o, struct buf *out, struct err *err)
{
    if (n == 0)
        return err_set_at(err, GD_EINVAL, "messages", "messages: empty");
    buf_puts(out, "<bos>");
    for (size_t i = 0; i < n; i++) {
        buf_append(out, messages[i].content, messages[i].content_len);
        buf_puts(out, "\n");
    }
    return 0;
}

int chat_encode(enum chat_format f, const struct tokenizer *t, const struct chat_message *messages,
    size_t n, const struct chat_options *o, struct token_list *out, struct err *err)
{
    struct buf text = {0};
    int r = chat_render(f, messages, n, o, &text, err);

    if (r == 0)
        r = tokenizer_encode(t, text.data, text.len, true, out, err);
    buf_free(&text);
    return r;
}

void fake_begin(struct harness *h, struct engine_opts *opts)
{
    fake_reset();
    harness_opts(opts);
    h->e = NULL;
}

void fake_close(struct harness *h)
{
    fake_open_gate();
    if (h->e) {
        harness_wait_idle(h);
        for (int g = 0; g < KV_GROUPS; g++)
            assert_int_equal(kv_free_pages(h->e->kv, g), kv_total_pages(h->e->kv, g));
        harness_close(h);
    }
    assert_int_equal(fake.n_bad, 0);
}

void fake_assert_answer(const struct answer *a, const int32_t *ids, int n, int max)
{
    int32_t *all = calloc((size_t)n + (size_t)max, sizeof(*all));

    memcpy(all, ids, (size_t)n * sizeof(*ids));
    fake_answer(all, n, max, true);
    assert_int_equal(a->n, max);
    assert_memory_equal(a->ids, all + n, (size_t)max * sizeof(*ids));
    free(all);
}
