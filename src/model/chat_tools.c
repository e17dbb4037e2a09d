/* chat_tools.c - tools, calls and results in the notation of Gemma 4 and FunctionGemma: JSON's
 * shape with bare keys, sorted, and a frame instead of quotes:
 *
 *   declaration:NAME{description:"TEXT",parameters:{properties:{KEY:{...}},required:["KEY"],
 *   type:"OBJECT"}}      call:NAME{KEY:VALUE}      response:NAME{KEY:VALUE}
 *
 * The same fields in the same order, and the same odd corners, as the published templates: a
 * property called "type" is not declared, braces stay open where no type is given. */
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"
#include "model/chat_private.h"
#include "model/chat_python.h"

struct writer {
    struct sink *s;
    const struct tool_marks *marks;
};

static void put_quoted(struct writer *w, const char *text, size_t len)
{
    sink_frame(w->s, w->marks->quote);
    sink_text(w->s, text, len);
    sink_frame(w->s, w->marks->quote);
}

static void put_quoted_str(struct writer *w, const struct json_value *v)
{
    sink_frame(w->s, w->marks->quote);
    python_str(w->s->text, v);
    sink_frame(w->s, w->marks->quote);
}

static void put_upper(struct writer *w, const struct json_value *v)
{
    struct buf text = {0}, upper = {0};

    python_str(&text, v);
    python_upper(&upper, text.len ? text.data : "", text.len);
    put_quoted(w, upper.len ? upper.data : "", upper.len);
    buf_free(&text);
    buf_free(&upper);
}

static bool upper_is(const struct json_value *v, const char *want)
{
    return json_is(v, JSON_STRING) && v->len == strlen(want) &&
           strncasecmp(v->text, want, v->len) == 0;
}

static bool key_is(const struct json_value *v, const char *key)
{
    return v->key_len == strlen(key) && memcmp(v->key, key, v->key_len) == 0;
}

static void put_argument(struct writer *w, const struct json_value *v, bool quote_keys);

/* KEY:VALUE,KEY:VALUE */
static void put_members(struct writer *w, const struct json_value *v, bool quote_keys)
{
    const struct json_value *sorted[JSON_VALUE_MEMBERS];
    size_t n = python_sorted(v, sorted);

    for (size_t i = 0; i < n; i++) {
        if (i)
            sink_puts(w->s, ",");
        if (quote_keys)
            put_quoted(w, sorted[i]->key, sorted[i]->key_len);
        else
            sink_text(w->s, sorted[i]->key, sorted[i]->key_len);
        sink_puts(w->s, ":");
        put_argument(w, sorted[i], quote_keys);
    }
}

static void put_argument(struct writer *w, const struct json_value *v, bool quote_keys)
{
    switch (v->kind) {
    case JSON_STRING: put_quoted(w, v->text, v->len); return;
    case JSON_TRUE: sink_puts(w->s, "true"); return;
    case JSON_FALSE: sink_puts(w->s, "false"); return;
    case JSON_NULL:
    case JSON_NUMBER: python_str(w->s->text, v); return;
    case JSON_OBJECT:
        sink_puts(w->s, "{");
        put_members(w, v, quote_keys);
        sink_puts(w->s, "}");
        return;
    case JSON_ARRAY: break;
    }
    sink_puts(w->s, "[");
    for (const struct json_value *c = v->child; c; c = c->next) {
        put_argument(w, c, quote_keys);
        if (c->next)
            sink_puts(w->s, ",");
    }
    sink_puts(w->s, "]");
}

/* ---- declarations ---- */

static void put_required(struct writer *w, const struct json_value *list)
{
    sink_puts(w->s, "required:[");
    for (const struct json_value *c = json_is(list, JSON_ARRAY) ? list->child : NULL; c;
         c = c->next) {
        put_quoted_str(w, c);
        if (c->next)
            sink_puts(w->s, ",");
    }
    sink_puts(w->s, "]");
}

static void put_properties(struct writer *w, const struct json_value *properties);

static void put_item_type(struct writer *w, const struct json_value *v)
{
    sink_puts(w->s, "type:");
    if (!json_is(v, JSON_ARRAY)) {
        put_upper(w, v);
        return;
    }
    sink_puts(w->s, "[");
    for (const struct json_value *c = v->child; c; c = c->next) {
        put_upper(w, c);
        if (c->next)
            sink_puts(w->s, ",");
    }
    sink_puts(w->s, "]");
}

/* What an array holds. Unlike elsewhere the keys inside other members' values are quoted. */
static void put_items(struct writer *w, const struct json_value *items)
{
    const struct json_value *sorted[JSON_VALUE_MEMBERS];
    size_t n = python_sorted(items, sorted);
    bool first = true;

    sink_puts(w->s, "items:{");
    for (size_t i = 0; i < n; i++) {
        const struct json_value *v = sorted[i];

        if (v->kind == JSON_NULL)
            continue;
        if (!first)
            sink_puts(w->s, ",");
        first = false;
        if (key_is(v, "properties")) {
            sink_puts(w->s, "properties:{");
            put_properties(w, v);
            sink_puts(w->s, "}");
        } else if (key_is(v, "required")) {
            put_required(w, v);
        } else if (key_is(v, "type")) {
            put_item_type(w, v);
        } else {
            sink_text(w->s, v->key, v->key_len);
            sink_puts(w->s, ":");
            put_argument(w, v, true);
        }
    }
    sink_puts(w->s, "}");
}

static void comma(struct writer *w, bool *any)
{
    if (*any)
        sink_puts(w->s, ",");
    *any = true;
}

static void put_nullable(struct writer *w, const struct json_value *p, bool *any)
{
    if (!json_truthy(json_member(p, "nullable")))
        return;
    comma(w, any);
    sink_puts(w->s, "nullable:true");
}

/* The older template writes the comma before these whatever came first, and none after them. */
static void field(struct writer *w, bool *any)
{
    if (w->marks->interleaved)
        sink_puts(w->s, ",");
    else
        comma(w, any);
}

static void put_object(struct writer *w, const struct json_value *p, bool *any)
{
    const struct json_value *inner = json_member(p, "properties");
    const struct json_value *required = json_member(p, "required");

    field(w, any);
    sink_puts(w->s, "properties:{");
    put_properties(w, json_is(inner, JSON_OBJECT) ? inner : p);
    sink_puts(w->s, "}");
    if (json_truthy(required)) {
        field(w, any);
        put_required(w, required);
    }
}

/* {description:...,type:...} of one property. */
static void put_property(struct writer *w, const struct json_value *p)
{
    const struct json_value *type = json_member(p, "type"), *items = json_member(p, "items");
    const struct json_value *text = json_member(p, "description"), *list = json_member(p, "enum");
    bool any = false, object = upper_is(type, "OBJECT");

    sink_puts(w->s, "{");
    if (json_truthy(text)) {
        sink_puts(w->s, "description:");
        put_quoted_str(w, text);
        any = true;
    }
    if (w->marks->interleaved)
        put_nullable(w, p, &any);
    if (upper_is(type, "STRING") && json_truthy(list)) {
        comma(w, &any);
        sink_puts(w->s, "enum:");
        put_argument(w, list, true);
    } else if (upper_is(type, "ARRAY") && json_is(items, JSON_OBJECT) && items->child) {
        field(w, &any);
        put_items(w, items);
    }
    if (!w->marks->interleaved)
        put_nullable(w, p, &any);
    if (object)
        put_object(w, p, &any);
    comma(w, &any);
    sink_puts(w->s, "type:");
    put_upper(w, type);
    sink_puts(w->s, "}");
}

static void put_properties(struct writer *w, const struct json_value *properties)
{
    static const char *const fields[] = {
        "description", "type", "properties", "required", "nullable"};
    const struct json_value *sorted[JSON_VALUE_MEMBERS];
    size_t n = json_is(properties, JSON_OBJECT) ? python_sorted(properties, sorted) : 0;
    bool any = false;

    for (size_t i = 0; i < n; i++) {
        bool skip = false;

        for (size_t k = 0; k < sizeof(fields) / sizeof(*fields); k++)
            skip = skip || key_is(sorted[i], fields[k]);
        if (skip)
            continue;
        comma(w, &any);
        sink_text(w->s, sorted[i]->key, sorted[i]->key_len);
        sink_puts(w->s, ":");
        put_property(w, sorted[i]);
    }
}

static void put_parameters(struct writer *w, const struct json_value *p)
{
    const struct json_value *properties = json_member(p, "properties");
    const struct json_value *required = json_member(p, "required"), *type = json_member(p, "type");

    if (!json_truthy(p))
        return;
    sink_puts(w->s, ",parameters:{");
    if (json_truthy(properties)) {
        sink_puts(w->s, "properties:{");
        put_properties(w, properties);
        sink_puts(w->s, "},");
    }
    if (json_truthy(required)) {
        put_required(w, required);
        sink_puts(w->s, ",");
    }
    if (json_truthy(type)) {
        sink_puts(w->s, "type:");
        put_upper(w, type);
        sink_puts(w->s, "}");
    }
}

static void put_response(struct writer *w, const struct json_value *p)
{
    const struct json_value *text = json_member(p, "description"), *type = json_member(p, "type");

    sink_puts(w->s, ",response:{");
    if (json_truthy(text)) {
        sink_puts(w->s, "description:");
        put_quoted_str(w, text);
        sink_puts(w->s, ",");
    }
    if (upper_is(type, "OBJECT")) {
        sink_puts(w->s, "type:");
        put_upper(w, type);
        sink_puts(w->s, "}");
    }
}

/* Reads an object; false and an error at `param` when text is none. */
static bool read_object(
    struct sink *s, struct json_tree *tree, const char *text, size_t len, const char *param)
{
    const char *why = json_tree_read(tree, text, len);

    if (s->r < 0)
        return false;
    if (why)
        s->r = err_set_at(s->err, GD_EINVAL, param, "%s: not JSON: %s", param, why);
    else if (tree->root->kind != JSON_OBJECT)
        s->r = err_set_at(s->err, GD_EINVAL, param, "%s: want a JSON object", param);
    return s->r == 0;
}

static void declare(struct writer *w, const struct chat_tool *tool, size_t i)
{
    struct json_tree parameters = {0}, response = {0};
    char param[64];
    bool ok = true;

    snprintf(param, sizeof(param), "tools[%zu].function.parameters", i);
    if (tool->parameters)
        ok = read_object(w->s, &parameters, tool->parameters, strlen(tool->parameters), param);
    snprintf(param, sizeof(param), "tools[%zu].function.response", i);
    if (ok && tool->response)
        ok = read_object(w->s, &response, tool->response, strlen(tool->response), param);
    if (ok) {
        sink_frame(w->s, w->marks->declaration);
        sink_puts(w->s, "declaration:");
        sink_puts(w->s, tool->name);
        sink_puts(w->s, "{description:");
        put_quoted(w, tool->description ? tool->description : "",
            tool->description ? strlen(tool->description) : 0);
        put_parameters(w, parameters.root);
        if (response.root)
            put_response(w, response.root);
        sink_puts(w->s, "}");
        sink_frame(w->s, w->marks->declaration_end);
    }
    json_tree_free(&parameters);
    json_tree_free(&response);
}

void tools_declare(struct sink *s, const struct tool_marks *marks, const struct chat_options *o)
{
    struct writer w = {s, marks};

    for (size_t i = 0; i < o->n_tools && s->r == 0; i++)
        declare(&w, &o->tools[i], i);
}

/* ---- calls and results ---- */

static void call(struct writer *w, const struct chat_tool_call *call, const char *param)
{
    struct json_tree tree = {0};
    const char *text = call->arguments ? call->arguments : "";
    size_t len = strlen(text);

    utf8_trim(&text, &len);
    if (len == 0) { /* some clients send no text for no arguments */
        text = "{}";
        len = 2;
    }
    if (read_object(w->s, &tree, text, len, param)) {
        sink_frame(w->s, w->marks->call);
        sink_puts(w->s, "call:");
        sink_puts(w->s, call->name);
        sink_puts(w->s, "{");
        put_members(w, tree.root, false);
        sink_puts(w->s, "}");
        sink_frame(w->s, w->marks->call_end);
    }
    json_tree_free(&tree);
}

void tools_call(
    struct sink *s, const struct tool_marks *marks, const struct conversation *c, size_t i)
{
    struct writer w = {s, marks};

    for (size_t k = 0; k < c->m[i].n_tool_calls && s->r == 0; k++) {
        char param[64];

        snprintf(param, sizeof(param), "messages[%zu].tool_calls[%zu].function.arguments", i, k);
        call(&w, &c->m[i].tool_calls[k], param);
    }
}

static void open_response(struct writer *w, const char *name, size_t len)
{
    sink_frame(w->s, w->marks->response);
    sink_puts(w->s, "response:");
    sink_text(w->s, name, len);
    sink_puts(w->s, "{");
}

static void close_response(struct writer *w)
{
    sink_puts(w->s, "}");
    sink_frame(w->s, w->marks->response_end);
}

void tools_response_text(
    struct sink *s, const struct tool_marks *marks, const char *name, const char *text, size_t len)
{
    struct writer w = {s, marks};

    open_response(&w, name, strlen(name));
    sink_puts(s, "value:");
    put_quoted(&w, text, len);
    close_response(&w);
}

void tools_response_value(struct sink *s, const struct tool_marks *marks, const char *name,
    size_t name_len, const struct json_value *value)
{
    struct writer w = {s, marks};

    open_response(&w, name, name_len);
    if (value->kind == JSON_OBJECT) {
        put_members(&w, value, false);
    } else {
        sink_puts(s, "value:");
        put_argument(&w, value, false);
    }
    close_response(&w);
}

const char *tools_answered(struct sink *s, const struct conversation *c, size_t caller, size_t i)
{
    const struct chat_message *from = &c->m[caller], *m = &c->m[i];
    const char *name = m->name;

    for (size_t k = 0; k < from->n_tool_calls; k++) {
        const char *id = from->tool_calls[k].id;

        if (id && m->tool_call_id ? strcmp(id, m->tool_call_id) == 0 : id == m->tool_call_id)
            name = from->tool_calls[k].name;
    }
    if (!name)
        message_error(s, GD_EINVAL, i, "tool_call_id",
            "is the id of none of the calls before it, and the message has no name");
    return name;
}
