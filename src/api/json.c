/* json.c - the validator in front of cJSON. One pass, no allocation; recursion is bounded by
 * JSON_DEPTH_MAX. The grammar is RFC 8259's, nothing more. */
#include "api/json.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/utf8.h"

/* cJSON copies a number into 64 bytes. No honest number needs as many. */
enum { NUMBER_MAX = 60 };

struct scan {
    const char *text;
    size_t len, at;
    size_t values, values_max;
    int depth;
    struct json *out;
    struct err *err;
};

static int bad(struct scan *s, const char *what)
{
    return err_set(s->err, GD_EINVAL, "the body is not valid JSON: %s at byte %zu", what, s->at);
}

static int peek(const struct scan *s)
{
    return s->at < s->len ? (unsigned char)s->text[s->at] : -1;
}

static void skip_space(struct scan *s)
{
    while (s->at < s->len && strchr(" \t\n\r", s->text[s->at]) && s->text[s->at])
        s->at++;
}

static bool digit(int c)
{
    return c >= '0' && c <= '9';
}

static void skip_digits(struct scan *s)
{
    while (digit(peek(s)))
        s->at++;
}

static int scan_number(struct scan *s)
{
    char copy[NUMBER_MAX + 1];
    size_t from = s->at, n;

    if (peek(s) == '-')
        s->at++;
    if (!digit(peek(s)))
        return bad(s, "a number without digits");
    if (peek(s) == '0') {
        s->at++;
        if (digit(peek(s)))
            return bad(s, "a number with a leading zero");
    }
    skip_digits(s);
    if (peek(s) == '.') {
        s->at++;
        if (!digit(peek(s)))
            return bad(s, "a number without digits after the point");
        skip_digits(s);
    }
    if (peek(s) == 'e' || peek(s) == 'E') {
        s->at++;
        if (peek(s) == '+' || peek(s) == '-')
            s->at++;
        if (!digit(peek(s)))
            return bad(s, "a number without digits in its exponent");
        skip_digits(s);
    }
    n = s->at - from;
    if (n > NUMBER_MAX)
        return bad(s, "a number of more than 60 characters");
    memcpy(copy, s->text + from, n);
    copy[n] = 0;
    if (!isfinite(strtod(copy, NULL)))
        return bad(s, "a number that is too large");
    return 0;
}

/* The four hex digits at `at`, or -1. */
static int hex4(const struct scan *s, size_t at)
{
    int v = 0;

    if (s->len - at < 4)
        return -1;
    for (size_t i = at; i < at + 4; i++) {
        int c = (unsigned char)s->text[i];

        if (digit(c))
            v = v << 4 | (c - '0');
        else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'))
            v = v << 4 | ((c | 0x20) - 'a' + 10);
        else
            return -1;
    }
    return v;
}

static int scan_escape(struct scan *s)
{
    int c, u;

    s->at++; /* the backslash */
    c = peek(s);
    if (c != 'u') {
        if (c <= 0 || !strchr("\"\\/bfnrt", c))
            return bad(s, "an unknown escape in a string");
        s->at++;
        return 0;
    }
    u = hex4(s, s->at + 1);
    if (u < 0)
        return bad(s, "\\u without four hex digits");
    if (u == 0)
        return bad(s, "\\u0000, which is not accepted in strings,");
    if (u >= 0xdc00 && u <= 0xdfff)
        return bad(s, "a lone surrogate");
    s->at += 5;
    if (u < 0xd800 || u > 0xdbff)
        return 0;
    if (s->len - s->at < 6 || s->text[s->at] != '\\' || s->text[s->at + 1] != 'u')
        return bad(s, "a lone surrogate");
    u = hex4(s, s->at + 2);
    if (u < 0xdc00 || u > 0xdfff)
        return bad(s, "a lone surrogate");
    s->at += 6;
    return 0;
}

static int scan_string(struct scan *s)
{
    s->at++; /* the quote */
    for (;;) {
        int c = peek(s), r;

        if (c < 0)
            return bad(s, "a string without an end");
        if (c == '"') {
            s->at++;
            return 0;
        }
        if (c < 0x20)
            return bad(s, "a control character in a string");
        if (c == '\\') {
            r = scan_escape(s);
            if (r < 0)
                return r;
        } else if (c < 0x80) {
            s->at++;
        } else {
            size_t broken, n;
            uint32_t cp;

            n = utf8_decode(s->text + s->at, s->len - s->at, &cp, &broken);
            if (n == 0)
                return bad(s, "invalid UTF-8 in a string");
            s->at += n;
        }
    }
}

static int scan_value(struct scan *s);

static int scan_member(struct scan *s)
{
    size_t key = s->at, value;
    bool seed;
    int r;

    if (peek(s) != '"')
        return bad(s, "a member without a quoted name");
    r = scan_string(s);
    if (r < 0)
        return r;
    seed = s->depth == 1 && s->at - key == 6 && memcmp(s->text + key, "\"seed\"", 6) == 0;
    skip_space(s);
    if (peek(s) != ':')
        return bad(s, "a member without a colon");
    s->at++;
    skip_space(s);
    value = s->at;
    r = scan_value(s);
    if (r == 0 && seed && (digit((unsigned char)s->text[value]) || s->text[value] == '-')) {
        s->out->seed = s->text + value;
        s->out->seed_len = s->at - value;
    }
    return r;
}

static int scan_container(struct scan *s, char close)
{
    if (++s->depth > JSON_DEPTH_MAX)
        return bad(s, "nesting deeper than 64 levels");
    s->at++;
    skip_space(s);
    if (peek(s) == close) {
        s->at++;
        s->depth--;
        return 0;
    }
    for (;;) {
        int r = close == '}' ? scan_member(s) : scan_value(s);

        if (r < 0)
            return r;
        skip_space(s);
        if (peek(s) == close)
            break;
        if (peek(s) != ',')
            return bad(s, close == '}' ? "an object without , or }" : "an array without , or ]");
        s->at++;
        skip_space(s);
    }
    s->at++;
    s->depth--;
    return 0;
}

static int scan_word(struct scan *s, const char *word)
{
    size_t n = strlen(word);

    if (s->len - s->at < n || memcmp(s->text + s->at, word, n) != 0)
        return bad(s, "an unknown word");
    s->at += n;
    return 0;
}

static int scan_value(struct scan *s)
{
    int c = peek(s);

    if (++s->values > s->values_max)
        return err_set(s->err, GD_ETOOBIG, "the body holds more than %zu values", s->values_max);
    switch (c) {
    case '{': return scan_container(s, '}');
    case '[': return scan_container(s, ']');
    case '"': return scan_string(s);
    case 't': return scan_word(s, "true");
    case 'f': return scan_word(s, "false");
    case 'n': return scan_word(s, "null");
    case -1: return bad(s, "no value");
    }
    if (c == '-' || digit(c))
        return scan_number(s);
    return bad(s, "an unexpected character");
}

static int scan_body(struct scan *s)
{
    int r;

    skip_space(s);
    if (s->at == s->len)
        return err_set(s->err, GD_EINVAL, "the body is empty");
    r = scan_value(s);
    if (r < 0)
        return r;
    skip_space(s);
    return s->at < s->len ? bad(s, "something after the value") : 0;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* On the tree, where the names are decoded: "n" and "\u006e" are one. */
static int refuse_duplicates(const cJSON *item, struct err *err)
{
    const char **names = NULL;
    const cJSON *c;
    size_t n = 0, at = 0;
    int r = 0;

    cJSON_ArrayForEach(c, item)
    {
        if (cJSON_IsArray(c) || cJSON_IsObject(c)) {
            r = refuse_duplicates(c, err);
            if (r < 0)
                return r;
        }
        n++;
    }
    if (!cJSON_IsObject(item) || n < 2)
        return 0;
    names = malloc(n * sizeof(*names));
    if (!names)
        return err_set(err, GD_ENOMEM, "no memory for this body");
    cJSON_ArrayForEach(c, item) names[at++] = c->string;
    qsort(names, n, sizeof(*names), by_text);
    for (at = 1; at < n && r == 0; at++) {
        char shown[JSON_SHOW_MAX];

        if (strcmp(names[at - 1], names[at]) != 0)
            continue;
        json_show(names[at], shown);
        r = err_set_at(err, GD_EINVAL, shown, "the member \"%s\" is given twice", shown);
    }
    free(names);
    return r;
}

int json_parse(struct json *out, const char *body, size_t len, size_t bytes_max, size_t values_max,
    struct err *err)
{
    struct json json = {0};
    struct scan s = {.text = body, .len = len, .values_max = values_max, .out = &json, .err = err};
    int r;

    if (len > bytes_max)
        return err_set(err, GD_ETOOBIG, "the body has %zu bytes, more than %zu", len, bytes_max);
    r = scan_body(&s);
    if (r < 0)
        return r;
    json.root = cJSON_ParseWithLength(body, len);
    if (!json.root)
        return err_set(err, GD_ENOMEM, "no memory for this body");
    r = refuse_duplicates(json.root, err);
    if (r < 0) {
        cJSON_Delete(json.root);
        return r;
    }
    *out = json;
    return 0;
}
