#include "model/hf_json.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"
#include "model/source_show.h"

enum { MAX_DEPTH = 32, MAX_VALUES = 400000 };

/* A walk over the text that accepts exactly RFC 8259's grammar. */
struct scan {
    const char *at, *end;
    int depth, n_values;
    const char *why; /* what is wrong, once something is */
};

static bool fail(struct scan *s, const char *why)
{
    if (!s->why)
        s->why = why;
    return false;
}

static int peek(const struct scan *s)
{
    return s->at < s->end ? (unsigned char)*s->at : -1;
}

static void skip_space(struct scan *s)
{
    while (peek(s) == ' ' || peek(s) == '\t' || peek(s) == '\n' || peek(s) == '\r')
        s->at++;
}

static bool accept(struct scan *s, char c)
{
    if (peek(s) != c)
        return false;
    s->at++;
    return true;
}

static bool scan_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(s->end - s->at) < n || memcmp(s->at, word, n) != 0)
        return fail(s, "holds an unknown word");
    s->at += n;
    return true;
}

static bool scan_digits(struct scan *s)
{
    if (peek(s) < '0' || peek(s) > '9')
        return fail(s, "holds a malformed number");
    while (peek(s) >= '0' && peek(s) <= '9')
        s->at++;
    return true;
}

static bool scan_number(struct scan *s)
{
    accept(s, '-');
    if (accept(s, '0')) {
        if (peek(s) >= '0' && peek(s) <= '9')
            return fail(s, "holds a number with a leading zero");
    } else if (!scan_digits(s)) {
        return false;
    }
    if (accept(s, '.') && !scan_digits(s))
        return false;
    if (accept(s, 'e') || accept(s, 'E')) {
        if (!accept(s, '-'))
            accept(s, '+');
        return scan_digits(s);
    }
    return true;
}

static bool scan_escape(struct scan *s)
{
    bool zero = true;
    int c = peek(s);

    if (c < 0)
        return fail(s, "ends inside a string");
    s->at++;
    if (c != 'u')
        return c != 0 && strchr("\"\\/bfnrt", c) ? true : fail(s, "holds an unknown escape");
    for (int i = 0; i < 4; i++, s->at++) {
        c = peek(s);
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')))
            return fail(s, "holds a malformed \\u escape");
        zero &= c == '0';
    }
    return zero ? fail(s, "holds a NUL character") : true;
}

static bool scan_string(struct scan *s)
{
    if (!accept(s, '"'))
        return fail(s, "lacks a string where one must be");
    while (!accept(s, '"')) {
        uint32_t cp;
        size_t bad, n = utf8_decode(s->at, (size_t)(s->end - s->at), &cp, &bad);

        if (s->at == s->end)
            return fail(s, "ends inside a string");
        if (n == 0)
            return fail(s, "is not valid UTF-8");
        if (cp < 0x20)
            return fail(s, "holds a control character in a string");
        s->at += n;
        if (cp == '\\' && !scan_escape(s))
            return false;
    }
    return true;
}

static bool scan_value(struct scan *s);

/* The inside of an object or array, whose opening bracket has been read. */
static bool scan_members(struct scan *s, char closing) /* NOLINT(misc-no-recursion) */
{
    if (++s->depth > MAX_DEPTH)
        return fail(s, "is nested too deeply");
    skip_space(s);
    if (!accept(s, closing)) {
        do {
            skip_space(s);
            if (closing == '}') {
                if (!scan_string(s))
                    return false;
                skip_space(s);
                if (!accept(s, ':'))
                    return fail(s, "lacks a colon");
            }
            if (!scan_value(s))
                return false;
            skip_space(s);
        } while (accept(s, ','));
        if (!accept(s, closing))
            return fail(s, "lacks a comma or a closing bracket");
    }
    s->depth--;
    return true;
}

/* Recurses no deeper than MAX_DEPTH. */
static bool scan_value(struct scan *s)
{
    if (++s->n_values > MAX_VALUES)
        return fail(s, "holds too many values");
    skip_space(s);
    switch (peek(s)) {
    case '{': s->at++; return scan_members(s, '}');
    case '[': s->at++; return scan_members(s, ']');
    case '"': return scan_string(s);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    case -1: return fail(s, "ends too early");
    }
    return scan_number(s);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The first key that an object repeats goes into *key. False only when there is no memory. */
static bool find_duplicate(const cJSON *json, struct shown *key)
{
    const cJSON *child;
    const char **keys;
    size_t n = 0;

    cJSON_ArrayForEach(child, json)
    {
        if ((cJSON_IsObject(child) || cJSON_IsArray(child)) && !find_duplicate(child, key))
            return false;
        n++;
    }
    if (!cJSON_IsObject(json) || n < 2 || key->text[0])
        return true;
    keys = calloc(n, sizeof(*keys));
    if (!keys)
        return false;
    n = 0;
    cJSON_ArrayForEach(child, json) keys[n++] = child->string;
    qsort(keys, n, sizeof(*keys), by_text);
    for (size_t i = 1; i < n && !key->text[0]; i++)
        if (strcmp(keys[i - 1], keys[i]) == 0)
            show(key, *keys[i] ? keys[i] : "\"\"", *keys[i] ? strlen(keys[i]) : 2);
    free(keys);
    return true;
}

static int parse(
    cJSON **out, const void *text, size_t len, const char *name, char opening, struct err *err)
{
    struct shown duplicate = {{0}};
    struct scan s;
    cJSON *json = NULL;
    char *copy = malloc(len + 1); /* with the NUL cJSON wants; and the file may change under us */
    int r = 0;

    if (!copy)
        return err_set(err, GD_ENOMEM, "There is no memory for %s.", name);
    if (len > 0) /* text of an empty file is NULL */
        memcpy(copy, text, len);
    copy[len] = 0;
    s = (struct scan){.at = copy, .end = copy + len};
    if (scan_value(&s)) {
        skip_space(&s);
        if (s.at != s.end)
            fail(&s, "goes on after its end");
    }
    if (!s.why && copy[strspn(copy, " \t\r\n")] != opening)
        s.why = opening == '{' ? "is not an object" : "is not an array";
    if (s.why) {
        r = err_set_at(err, GD_EFORMAT, name, "%s %s (byte %zu of %zu).", name, s.why,
            (size_t)(s.at - copy), len);
        goto out;
    }
    json = cJSON_ParseWithLength(copy, len + 1);
    if (!json)
        r = err_set_at(err, GD_EFORMAT, name, "%s is not JSON that can be read.", name);
    else if (!find_duplicate(json, &duplicate))
        r = err_set(err, GD_ENOMEM, "There is no memory for %s.", name);
    else if (duplicate.text[0])
        r = err_set_at(
            err, GD_EFORMAT, duplicate.text, "%s has the key %s twice.", name, duplicate.text);
    if (r == 0) {
        *out = json;
        json = NULL;
    }
out:
    cJSON_Delete(json);
    free(copy);
    return r;
}

int hf_json_parse(cJSON **out, const void *text, size_t len, const char *name, struct err *err)
{
    return parse(out, text, len, name, '{', err);
}

int hf_json_parse_array(
    cJSON **out, const void *text, size_t len, const char *name, struct err *err)
{
    return parse(out, text, len, name, '[', err);
}

const cJSON *hf_json_get(const cJSON *object, const char *key)
{
    return cJSON_GetObjectItemCaseSensitive(object, key);
}
