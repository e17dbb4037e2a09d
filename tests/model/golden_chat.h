/* golden_chat.h - a case of tests/golden/chat as the chat formats take it. */
#ifndef TEST_GOLDEN_CHAT_H
#define TEST_GOLDEN_CHAT_H

#include <cjson/cJSON.h>

#include "base/buf.h"
#include "model/chat.h"

enum { MAX_MESSAGES = 16, MAX_CALLS = 4, MAX_TOOLS = 4 };

struct golden_chat {
    struct chat_message m[MAX_MESSAGES];
    struct buf text[MAX_MESSAGES];
    size_t n;
    struct chat_tool_call calls[MAX_MESSAGES][MAX_CALLS];
    struct chat_tool tools[MAX_TOOLS];
    char *printed[64]; /* JSON texts, owned */
    size_t n_printed;
    struct chat_options o;
    bool trims_results;  /* the format trims the parts of a tool's result, too */
    bool has_tools;      /* or calls, or results */
    const char *why_not; /* it cannot be said in chat messages; NULL: it can */
};

/* json stays in use until golden_chat_free(). */
void golden_chat_read(struct golden_chat *c, const cJSON *json);
void golden_chat_free(struct golden_chat *c);

#endif
