#include "engine/pace.h"

/* A cancel is looked for between pieces: so long it may have to wait. */
static const double idle_ms = 400;
static const double fade = 0.8;

int pace_budget(const struct pace *p, double decode_ms)
{
    double ms = idle_ms, tokens;

    if (decode_ms > 0) {
        if (p->fixed > 0)
            return p->fixed;
        ms = p->target_ms - decode_ms;
        if (ms < decode_ms / 2)
            ms = decode_ms / 2;
        if (ms < p->target_ms / 4)
            ms = p->target_ms / 4;
    }
    /* Not measured yet: begin small, less so when nobody waits. */
    if (p->ms <= 0)
        return decode_ms > 0 || p->max_chunk < 8 * PACE_SMALLEST ? PACE_SMALLEST : p->max_chunk / 4;
    tokens = ms * p->tokens / p->ms;
    if (tokens >= p->max_chunk)
        return p->max_chunk;
    return tokens < PACE_SMALLEST ? PACE_SMALLEST : (int)(tokens + 0.5) / 8 * 8;
}

void pace_decoded(struct pace *p, int tokens, double ms)
{
    if (tokens > 0) { /* at least a tenth was the prompts', or a slow minute would never end */
        pace_measured(p, tokens, ms > p->decode_ms / 0.9 ? ms - p->decode_ms : ms / 10);
        p->n_ridden++;
        return;
    }
    if (p->decode_ms <= 0 || p->n_ridden >= PACE_RIDES)
        p->decode_ms = ms;
    else
        p->decode_ms = fade * p->decode_ms + (1 - fade) * ms;
    p->n_ridden = 0;
}

void pace_measured(struct pace *p, int tokens, double ms)
{
    p->tokens = p->tokens * fade + tokens;
    p->ms = p->ms * fade + ms;
}
