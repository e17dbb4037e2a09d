#include "model/source_show.h"

#include <string.h>

#include "base/utf8.h"

void show_text(char *out, size_t cap, const char *s, size_t len)
{
    size_t n = 0, i = 0;

    while (i < len) {
        uint32_t cp = 0;
        size_t bad, used = utf8_decode(s + i, len - i, &cp, &bad);
        bool plain = used > 0 && cp >= 0x20 && (cp < 0x7f || cp > 0x9f);

        if (used == 0)
            used = 1;
        if (n + used + (i + used < len ? 3 : 0) >= cap) { /* keep room for the dots */
            memcpy(out + n, "...", 3);
            n += 3;
            break;
        }
        if (plain)
            memcpy(out + n, s + i, used);
        else
            out[n] = '?';
        n += plain ? used : 1;
        i += used;
    }
    out[n] = 0;
}

const char *show(struct shown *out, const char *s, size_t len)
{
    show_text(out->text, sizeof(out->text), s, len);
    return out->text;
}

const char *show_file(struct shown *out, const char *path)
{
    size_t len = strlen(path);
    const char *slash;

    while (len > 1 && path[len - 1] == '/')
        len--;
    slash = memrchr(path, '/', len);
    if (slash && (size_t)(slash + 1 - path) < len) {
        len -= (size_t)(slash + 1 - path);
        path = slash + 1;
    }
    return show(out, path, len);
}

bool name_valid(const char *s, size_t len, size_t max)
{
    if (len == 0 || len > max)
        return false;
    for (size_t i = 0; i < len; i++)
        if (s[i] < 0x20 || s[i] > 0x7e)
            return false;
    return true;
}
