/* embed.c - the scheduler of a model that makes vectors: every step is one run over whole
 * sequences. Pages are held for the run alone. */
#include <assert.h>

#include "engine/scheduler_private.h"

static uint32_t pages_of(const struct sched *s, int group, int n_tokens)
{
    return kv_pages_for(s->kv, group, n_tokens, n_tokens);
}

bool sched_embed_has_room(const struct sched *s, const struct job *j)
{
    int n_tokens = j->n_prompt;
    uint32_t pages[KV_GROUPS];

    for (int g = 0; g < KV_GROUPS; g++)
        pages[g] = pages_of(s, g, j->n_prompt);
    for (int i = 0; i < s->n_live; i++) {
        n_tokens += s->live[i]->n_tokens;
        for (int g = 0; g < KV_GROUPS; g++)
            pages[g] += pages_of(s, g, s->live[i]->n_tokens);
    }
    for (int g = 0; g < KV_GROUPS; g++) {
        if (pages[g] > kv_total_pages(s->kv, g))
            return false;
    }
    return s->n_live < s->o.max_sequences && n_tokens <= graph_max_tokens(s->rt->prefill);
}

static void end(struct sched *s, struct choice *c)
{
    struct finish f = {.reason = FINISH_STOP, .stop = -1, .stop_id = -1};

    s->stats.prompt_tokens += (uint64_t)c->n_tokens;
    sched_end(s, c, &f);
}

void sched_embed(struct sched *s)
{
    int n = s->n_live;

    for (int i = 0; i < n; i++) {
        struct choice *c = s->live[i];
        bool reserved = kv_reserve(s->kv, &c->kv, 0, c->n_tokens);

        assert(reserved); /* sched_embed_has_room() said so */
        (void)reserved;
        s->seqs[i] = (struct graph_seq){
            .n_tokens = c->n_tokens,
            .tokens = c->tokens,
            .pages = {c->kv.pages[KV_GLOBAL], c->kv.pages[KV_SLIDING]},
            .n_logits = 1,
            .logits = c->job->vector,
        };
    }
    if (n == 0) /* all of them were let go of */
        return;
    graph_run(s->rt->prefill, kv_memory(s->kv), s->seqs, n);
    for (int i = 0; i < n; i++)
        end(s, s->live[i]);
}
