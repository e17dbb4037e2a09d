/* json_get.c - members of an object by name and type. cJSON's own getters match names without case
 * and hand out integers that were never checked; these do neither. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "api/json.h"

void json_path(const struct json_object *o, const char *name, char out[JSON_PATH_MAX])
{
    int n = snprintf(out, JSON_PATH_MAX, "%.40s%s", o->path, o->path[0] ? "." : "");

    snprintf(out + n, (size_t)(JSON_PATH_MAX - n), "%s", name);
}

void json_show(const char *text, char out[JSON_SHOW_MAX])
{
    size_t n = 0;

    for (; text[n] && n < JSON_SHOW_MAX - 1; n++) {
        out[n] = text[n];
        if (text[n] < 0x20 || text[n] > 0x7e || strchr("\"\\,", text[n]))
            out[n] = '?';
    }
    if (n == 0)
        out[n++] = '?';
    out[n] = 0;
}

int json_refuse(struct err *err, const char *path, const char *want, const cJSON *got)
{
    char number[48];
    const char *what = "an object";

    if (!got || cJSON_IsNull(got)) {
        what = "null";
    } else if (cJSON_IsBool(got)) {
        what = cJSON_IsTrue(got) ? "true" : "false";
    } else if (cJSON_IsString(got)) {
        what = got->valuestring[0] ? "a string" : "an empty string";
    } else if (cJSON_IsArray(got)) {
        what = got->child ? "an array" : "an empty array";
    } else if (cJSON_IsNumber(got)) {
        snprintf(number, sizeof(number), "%.15g", got->valuedouble);
        what = number;
    }
    return err_set_at(err, GD_EINVAL, path, "%s: want %s, got %s", path, want, what);
}

int json_open(struct json_object *o, const cJSON *item, const char *path, struct err *err)
{
    const cJSON *c;
    int n = 0;

    if (!cJSON_IsObject(item)) {
        if (!path[0])
            return err_set(err, GD_EINVAL, "the body must be a JSON object");
        return json_refuse(err, path, "an object", item);
    }
    cJSON_ArrayForEach(c, item) n++;
    if (n > JSON_MEMBERS_MAX)
        return err_set_at(err, GD_EINVAL, path, "%s has more than %d members",
            path[0] ? path : "the body", JSON_MEMBERS_MAX);
    *o = (struct json_object){.item = item};
    snprintf(o->path, sizeof(o->path), "%s", path);
    return 0;
}

const cJSON *json_take(struct json_object *o, const char *name)
{
    const cJSON *c;
    size_t at = 0;

    cJSON_ArrayForEach(c, o->item)
    {
        if (strcmp(c->string, name) == 0) {
            o->seen[at / 64] |= UINT64_C(1) << at % 64;
            return cJSON_IsNull(c) ? NULL : c;
        }
        at++;
    }
    return NULL;
}

const cJSON *json_left(const struct json_object *o, size_t *at)
{
    const cJSON *c;
    size_t i = 0;

    cJSON_ArrayForEach(c, o->item)
    {
        if (i >= *at && !(o->seen[i / 64] >> i % 64 & 1)) {
            *at = i + 1;
            return c;
        }
        i++;
    }
    return NULL;
}

int json_bool(struct json_object *o, const char *name, bool *out, struct err *err)
{
    const cJSON *c = json_take(o, name);
    char path[JSON_PATH_MAX];

    if (!c)
        return 0;
    if (!cJSON_IsBool(c)) {
        json_path(o, name, path);
        return json_refuse(err, path, "true or false", c);
    }
    *out = cJSON_IsTrue(c);
    return 1;
}

int json_integer(
    const cJSON *item, const char *path, int64_t min, int64_t max, int64_t *out, struct err *err)
{
    char want[64];
    double v;

    if (cJSON_IsNumber(item)) {
        v = item->valuedouble;
        /* a double beyond 2^53 no longer tells neighbours apart */
        if (v == floor(v) && fabs(v) <= 9007199254740992.0 && v >= (double)min &&
            v <= (double)max) {
            *out = (int64_t)v;
            return 1;
        }
    }
    snprintf(want, sizeof(want), "an integer in %lld..%lld", (long long)min, (long long)max);
    return json_refuse(err, path, want, item);
}

int json_int(struct json_object *o, const char *name, int64_t min, int64_t max, int64_t *out,
    struct err *err)
{
    const cJSON *c = json_take(o, name);
    char path[JSON_PATH_MAX];

    if (!c)
        return 0;
    json_path(o, name, path);
    return json_integer(c, path, min, max, out, err);
}

int json_number(
    struct json_object *o, const char *name, double min, double max, double *out, struct err *err)
{
    const cJSON *c = json_take(o, name);
    char path[JSON_PATH_MAX], want[64];

    if (!c)
        return 0;
    if (!cJSON_IsNumber(c) || !(c->valuedouble >= min && c->valuedouble <= max)) {
        json_path(o, name, path);
        snprintf(want, sizeof(want), "a number in %g..%g", min, max);
        return json_refuse(err, path, want, c);
    }
    *out = c->valuedouble;
    return 1;
}

int json_string(struct json_object *o, const char *name, const char **out, struct err *err)
{
    const cJSON *c = json_take(o, name);
    char path[JSON_PATH_MAX];

    if (!c)
        return 0;
    if (!cJSON_IsString(c)) {
        json_path(o, name, path);
        return json_refuse(err, path, "a string", c);
    }
    *out = c->valuestring;
    return 1;
}

int json_array(
    struct json_object *o, const char *name, int max, const cJSON **out, int *n, struct err *err)
{
    const cJSON *c = json_take(o, name);
    char path[JSON_PATH_MAX];

    if (!c)
        return 0;
    json_path(o, name, path);
    if (!cJSON_IsArray(c))
        return json_refuse(err, path, "an array", c);
    *n = cJSON_GetArraySize(c);
    if (*n > max)
        return err_set_at(
            err, GD_EINVAL, path, "%s: want at most %d entries, got %d", path, max, *n);
    *out = c;
    return 1;
}
