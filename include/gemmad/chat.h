/* chat.h - messages and tools of a conversation, as they cross the engine's door.
 *
 * All pointers are borrowed. Text is UTF-8; names, ids and JSON texts end in NUL. */
#ifndef GEMMAD_CHAT_H
#define GEMMAD_CHAT_H

#include <stddef.h>

enum chat_role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };

/* A call that the assistant made. */
struct chat_tool_call {
    const char *id; /* may be NULL */
    const char *name;
    const char *arguments; /* JSON text of an object; NULL or "" is {} */
};

struct chat_message {
    enum chat_role role; /* "developer" is ROLE_SYSTEM */
    const char *content; /* text parts joined by the caller; not NUL-terminated */
    size_t content_len;
    /* ROLE_ASSISTANT: what it thought, and what it called. */
    const char *reasoning; /* not NUL-terminated; NULL: nothing */
    size_t reasoning_len;
    const struct chat_tool_call *tool_calls;
    size_t n_tool_calls;
    /* ROLE_TOOL: content is the result of the call with this id, or of the function so named. */
    const char *tool_call_id, *name; /* either may be NULL */
};

/* A function that the model may call. */
struct chat_tool {
    const char *name;
    const char *description; /* may be NULL */
    const char *parameters;  /* JSON text of an object, a JSON Schema; NULL: none */
    const char *response;    /* likewise, of its result; NULL: not said */
};

#endif
