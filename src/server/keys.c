#include "server/keys.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <nettle/memops.h>
#include <nettle/sha2.h>

#include "base/mem.h"
#include "gemmad/log.h"

enum { KEYS_MAX = 10000, KEY_LINE_MAX = 1024, NAME_MAX_BYTES = 31, SHORT_KEY = 16 };

struct key {
    uint8_t digest[SHA256_DIGEST_SIZE];
    char name[NAME_MAX_BYTES + 1];
};

struct keys {
    struct key *key;
    size_t n;
};

static void digest(const char *s, size_t n, uint8_t out[SHA256_DIGEST_SIZE])
{
    struct sha256_ctx ctx;

    sha256_init(&ctx);
    sha256_update(&ctx, n, (const uint8_t *)s);
    sha256_digest(&ctx, SHA256_DIGEST_SIZE, out);
}

const char *keys_match(const struct keys *k, const char *key, size_t len)
{
    uint8_t d[SHA256_DIGEST_SIZE];
    size_t found = k->n;

    digest(key, len, d);
    for (size_t i = 0; i < k->n; i++) { /* to the end: the time tells nothing */
        if (memeql_sec(d, k->key[i].digest, sizeof(d)))
            found = i;
    }
    return found < k->n ? k->key[found].name : NULL;
}

size_t keys_count(const struct keys *k)
{
    return k->n;
}

void keys_free(struct keys *k)
{
    if (k)
        free(k->key);
    free(k);
}

static char *trim(char *s)
{
    char *end;

    s += strspn(s, " \t\r\n");
    end = s + strlen(s);
    while (end > s && strchr(" \t\r\n", end[-1]))
        *--end = 0;
    return s;
}

static int add(struct keys *k, char *line, struct err *err)
{
    static const char *const name_chars =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    char *colon = strchr(line, ':'), *key = line;
    struct key *slot;

    if (colon) {
        *colon = 0;
        key = colon + 1;
        if (!*line || line[strspn(line, name_chars)] || strlen(line) > NAME_MAX_BYTES)
            return err_set(err, GD_EINVAL, "a key's name is 1 to %d letters, digits, . _ or -",
                NAME_MAX_BYTES);
    }
    for (const char *p = key; *p; p++) {
        if (*p <= ' ' || *p > '~')
            return err_set(err, GD_EINVAL, "a key is printable ASCII without spaces");
    }
    if (!*key)
        return err_set(err, GD_EINVAL, "an empty key");
    if (k->n == KEYS_MAX)
        return err_set(err, GD_EINVAL, "more than %d keys", KEYS_MAX);
    k->key = xrealloc(k->key, (k->n + 1) * sizeof(*k->key));
    slot = &k->key[k->n++];
    snprintf(slot->name, sizeof(slot->name), "%s", colon ? line : "");
    digest(key, strlen(key), slot->digest);
    return strlen(key) < SHORT_KEY;
}

int keys_load(struct keys **out, const char *path, struct err *err)
{
    struct keys *k = NULL;
    FILE *f = fopen(path, "re");
    char line[KEY_LINE_MAX];
    struct stat st;
    int n_line = 0, n_short = 0, r = 0;

    if (!f)
        return err_set_at(
            err, GD_EINVAL, "api_key_file", "api_key_file %.120s: %s", path, strerror(errno));
    k = xcalloc(1, sizeof(*k));
    while (r >= 0 && fgets(line, sizeof(line), f)) {
        char *s = trim(line);
        struct err why = {0};

        n_line++;
        if (strlen(line) == sizeof(line) - 1)
            r = err_set(&why, GD_EINVAL, "the line is too long");
        else if (*s && *s != '#')
            r = add(k, s, &why);
        else
            r = 0;
        n_short += r > 0;
        if (r < 0)
            err_fill_at(err, why.code, "api_key_file", "%.120s:%d: %.100s", path, n_line, why.msg);
    }
    if (r >= 0 && ferror(f))
        r = err_set_at(err, GD_EIO, "api_key_file", "%.120s: cannot be read", path);
    else if (r >= 0 && k->n == 0)
        r = err_set_at(err, GD_EINVAL, "api_key_file", "%.120s: holds no key", path);
    if (r >= 0 && n_short)
        log_warn(
            "short API keys can be guessed file=%s keys=%d below=%d", path, n_short, SHORT_KEY);
    if (r >= 0 && fstat(fileno(f), &st) == 0 && (st.st_mode & S_IROTH))
        log_warn("every user of this machine can read the API keys file=%s", path);
    fclose(f);
    explicit_bzero(line, sizeof(line));
    if (r >= 0) {
        *out = k;
        k = NULL;
    }
    keys_free(k);
    return r < 0 ? r : 0;
}
