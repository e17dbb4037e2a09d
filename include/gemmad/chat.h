/* chat.h - one message of a conversation, as it crosses the engine's door. */
#ifndef GEMMAD_CHAT_H
#define GEMMAD_CHAT_H

#include <stddef.h>

enum chat_role { ROLE_SYSTEM, ROLE_USER, ROLE_ASSISTANT, ROLE_TOOL };

struct chat_message {
    enum chat_role role; /* "developer" is ROLE_SYSTEM */
    const char *content; /* UTF-8, borrowed; text parts joined by the caller; not NUL-terminated */
    size_t content_len;
};

#endif
