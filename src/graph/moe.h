/* moe.h - the mixture of experts' part of a plan. Private to the graph layer. */
#ifndef GRAPH_MOE_H
#define GRAPH_MOE_H

#include "graph/plan.h"

/* One layer's experts. */
struct moe {
    const struct wmat *gate_up;          /* (n_experts, 2): gate, up; or NULL and the two below */
    const struct wmat *gate, *up, *down; /* (n_experts) */
    const float *expert_scale;           /* (n_experts) or NULL */
    enum act_kind in_kind, down_kind;
};
int moe_take(struct graph *g, struct step *s, struct weight_store *store, struct err *err);
/* Bytes of shared memory a mixture needs for max_rows rows. */
size_t moe_scratch(const struct graph *g, const struct step *s);

#endif
