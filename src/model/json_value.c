#include "model/json_value.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "base/utf8.h"

/* The text is walked once. Every value but the first follows one of , : [ { so counting those
 * bounds the values; decoded strings are never longer than the text. One block holds both. */
struct reader {
    const char *at, *end;
    struct json_value *values;
    size_t n_values;
    char *chars;
    int depth;
    const char *why; /* what is wrong, once something is */
};

static bool fail(struct reader *r, const char *why)
{
    if (!r->why)
        r->why = why;
    return false;
}

static int peek(const struct reader *r)
{
    return r->at < r->end ? (unsigned char)*r->at : -1;
}

static void skip_space(struct reader *r)
{
    while (peek(r) == ' ' || peek(r) == '\t' || peek(r) == '\n' || peek(r) == '\r')
        r->at++;
}

static bool accept(struct reader *r, char c)
{
    if (peek(r) != c)
        return false;
    r->at++;
    return true;
}

static bool accept_word(struct reader *r, const char *word)
{
    size_t n = strlen(word);

    if ((size_t)(r->end - r->at) < n || memcmp(r->at, word, n) != 0)
        return false;
    r->at += n;
    return true;
}

static bool digits(struct reader *r)
{
    const char *from = r->at;

    while (peek(r) >= '0' && peek(r) <= '9')
        r->at++;
    return r->at > from;
}

static bool read_number(struct reader *r, struct json_value *v)
{
    v->kind = JSON_NUMBER;
    v->text = r->at;
    accept(r, '-');
    if (!accept(r, '0') && !digits(r))
        return fail(r, "an unexpected character");
    if (accept(r, '.') && !digits(r))
        return fail(r, "a number without digits after the point");
    if (accept(r, 'e') || accept(r, 'E')) {
        if (!accept(r, '-'))
            accept(r, '+');
        if (!digits(r))
            return fail(r, "a number without digits in its exponent");
    }
    v->len = (size_t)(r->at - v->text);
    return true;
}

static bool hex4(struct reader *r, uint32_t *out)
{
    *out = 0;
    for (int i = 0; i < 4; i++, r->at++) {
        int c = peek(r) | 0x20;

        if ((c < '0' || c > '9') && (c < 'a' || c > 'f'))
            return fail(r, "\\u without four hex digits");
        *out = *out << 4 | (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return true;
}

static bool read_escape(struct reader *r)
{
    static const char names[] = "\"\\/bfnrt", bytes[] = "\"\\/\b\f\n\r\t";
    const char *known = peek(r) > 0 ? strchr(names, peek(r)) : NULL;
    uint32_t c, low;

    if (known) {
        r->at++;
        *r->chars++ = bytes[known - names];
        return true;
    }
    if (!accept(r, 'u'))
        return fail(r, "an unknown escape in a string");
    if (!hex4(r, &c))
        return false;
    if (c >= 0xd800 && c <= 0xdbff) {
        if (!accept(r, '\\') || !accept(r, 'u'))
            return fail(r, "a lone surrogate");
        if (!hex4(r, &low))
            return false;
        if (low < 0xdc00 || low > 0xdfff)
            return fail(r, "a lone surrogate");
        c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
    } else if (c >= 0xdc00 && c <= 0xdfff) {
        return fail(r, "a lone surrogate");
    }
    r->chars += utf8_encode(c, r->chars);
    return true;
}

static bool read_string(struct reader *r, const char **text, size_t *len)
{
    if (!accept(r, '"'))
        return fail(r, "a member without a quoted name");
    *text = r->chars;
    while (!accept(r, '"')) {
        uint32_t c;
        size_t bad, n = utf8_decode(r->at, (size_t)(r->end - r->at), &c, &bad);

        if (r->at == r->end)
            return fail(r, "a string without an end");
        if (n == 0)
            return fail(r, "invalid UTF-8 in a string");
        if (c < 0x20)
            return fail(r, "a control character in a string");
        r->at += n;
        if (c == '\\') {
            if (!read_escape(r))
                return false;
            continue;
        }
        memcpy(r->chars, r->at - n, n);
        r->chars += n;
    }
    *len = (size_t)(r->chars - *text);
    return true;
}

static bool same_key(const struct json_value *v, const char *key, size_t len)
{
    return v->key_len == len && memcmp(v->key, key, len) == 0;
}

static bool read_value(struct reader *r, struct json_value *v);

/* A child of v; a member whose name was there before takes that one's place. */
static bool read_child(struct reader *r, struct json_value *v, struct json_value **last)
{
    struct json_value *c = &r->values[r->n_values++];

    if (v->kind == JSON_OBJECT) {
        if (!read_string(r, &c->key, &c->key_len))
            return false;
        skip_space(r);
        if (!accept(r, ':'))
            return fail(r, "a member without a colon");
        skip_space(r);
    }
    if (!read_value(r, c))
        return false;
    for (struct json_value *old = v->child; v->kind == JSON_OBJECT && old; old = old->next) {
        if (same_key(old, c->key, c->key_len)) {
            c->next = old->next;
            *old = *c;
            return true;
        }
    }
    if (v->kind == JSON_OBJECT && v->n == JSON_VALUE_MEMBERS)
        return fail(r, "an object with more than 256 members");
    *(*last ? &(*last)->next : &v->child) = c;
    *last = c;
    v->n++;
    return true;
}

static bool read_children(struct reader *r, struct json_value *v, char close)
{
    struct json_value *last = NULL;

    if (++r->depth > JSON_VALUE_DEPTH)
        return fail(r, "nesting deeper than 64 levels");
    r->at++;
    v->kind = close == '}' ? JSON_OBJECT : JSON_ARRAY;
    skip_space(r);
    if (!accept(r, close)) {
        do {
            skip_space(r);
            if (!read_child(r, v, &last))
                return false;
            skip_space(r);
        } while (accept(r, ','));
        if (!accept(r, close))
            return fail(r, close == '}' ? "an object without , or }" : "an array without , or ]");
    }
    r->depth--;
    return true;
}

static bool read_value(struct reader *r, struct json_value *v) /* NOLINT(misc-no-recursion) */
{
    switch (peek(r)) {
    case '{': return read_children(r, v, '}');
    case '[': return read_children(r, v, ']');
    case '"': v->kind = JSON_STRING; return read_string(r, &v->text, &v->len);
    case -1: return fail(r, "no value");
    }
    v->kind = accept_word(r, "true") ? JSON_TRUE : accept_word(r, "false") ? JSON_FALSE : JSON_NULL;
    return v->kind != JSON_NULL || accept_word(r, "null") || read_number(r, v);
}

const char *json_tree_read(struct json_tree *t, const char *text, size_t len)
{
    struct reader r = {.at = text, .end = text + len};
    size_t n = 1, bytes;

    *t = (struct json_tree){0};
    for (size_t i = 0; i < len; i++)
        n += text[i] == ',' || text[i] == '[' || text[i] == '{';
    if (n > JSON_VALUES_MAX)
        return "more than 100000 values";
    if (!mem_add(n * sizeof(*r.values), len, &bytes))
        return "too much text";
    t->memory = calloc(1, bytes);
    if (!t->memory)
        return "too much text for the memory there is";
    r.values = t->memory;
    r.chars = (char *)(r.values + n);
    r.n_values = 1;
    skip_space(&r);
    if (!read_value(&r, r.values))
        return r.why;
    skip_space(&r);
    if (r.at != r.end)
        return "something after the value";
    t->root = r.values;
    return NULL;
}

void json_tree_free(struct json_tree *t)
{
    free(t->memory);
    *t = (struct json_tree){0};
}

const struct json_value *json_member(const struct json_value *v, const char *key)
{
    if (!json_is(v, JSON_OBJECT))
        return NULL;
    for (const struct json_value *c = v->child; c; c = c->next) {
        if (same_key(c, key, strlen(key)))
            return c;
    }
    return NULL;
}

bool json_truthy(const struct json_value *v)
{
    if (!v)
        return false;
    switch (v->kind) {
    case JSON_NULL:
    case JSON_FALSE: return false;
    case JSON_TRUE: return true;
    case JSON_NUMBER: {
        for (size_t i = 0; i < v->len && v->text[i] != 'e' && v->text[i] != 'E'; i++) {
            if (v->text[i] >= '1' && v->text[i] <= '9')
                return true;
        }
        return false;
    }
    case JSON_STRING: return v->len > 0;
    case JSON_ARRAY:
    case JSON_OBJECT: return v->child != NULL;
    }
    return false;
}
