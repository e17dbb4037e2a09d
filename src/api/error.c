/* error.c - what goes wrong, in OpenAI's shape. Clients retry 408, 409, 429 and everything from 500
 * up, so a client's fault must never leave as a 500. */
#include <math.h>
#include <string.h>

#include "api/api.h"
#include "api/write.h"

int api_status(int code)
{
    switch (code) {
    case 0: return 200;
    case GD_EINVAL:
    case GD_ENOTSUP:
    case GD_ECONTEXT: return 400;
    case GD_EAUTH: return 401;
    case GD_ENOENT: return 404;
    case GD_ETOOBIG: return 413;
    case GD_EBUSY:
    case GD_ENOMEM:
    case GD_ECANCELED:
    case GD_ESTOPPING: return 503;
    default: return 500;
    }
}

/* "code" of an error object: what programs look at; NULL is null. */
static const char *error_code(const struct err *err)
{
    switch (err->code) {
    case GD_ENOTSUP: return "unsupported_parameter";
    case GD_ECONTEXT: return "context_length_exceeded";
    case GD_EAUTH: return "invalid_api_key";
    case GD_ENOENT: return strcmp(err->param, "model") == 0 ? "model_not_found" : "not_found";
    case GD_ETOOBIG: return "request_too_large";
    case GD_EBUSY:
    case GD_ENOMEM: return "server_is_overloaded";
    case GD_ECANCELED:
    case GD_ESTOPPING: return "server_shutting_down";
    default: return NULL;
    }
}

static const char *status_type(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 403: return "permission_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 503: return "service_unavailable_error";
    }
    return status < 500 ? "invalid_request_error" : "server_error";
}

static const char *status_code(int status)
{
    switch (status) {
    case 404: return "not_found";
    case 405: return "method_not_allowed";
    case 408: return "request_timeout";
    case 411: return "length_required";
    case 413: return "request_too_large";
    case 415: return "unsupported_media_type";
    case 429: return "rate_limit_exceeded";
    case 431: return "headers_too_large";
    case 503: return "server_is_overloaded";
    }
    return NULL;
}

static void string_or_null(struct buf *out, const char *s)
{
    if (s && *s)
        write_string(out, s, strlen(s));
    else
        buf_puts(out, "null");
}

static void error_object(
    struct buf *out, const char *message, const char *type, const char *param, const char *code)
{
    buf_puts(out, "{\"error\":{\"message\":");
    write_string(out, message, strlen(message));
    buf_puts(out, ",\"type\":");
    string_or_null(out, type);
    buf_puts(out, ",\"param\":");
    string_or_null(out, param);
    buf_puts(out, ",\"code\":");
    string_or_null(out, code);
    buf_puts(out, "}}");
}

void api_error_body(struct buf *out, const struct err *err)
{
    const char *type = status_type(api_status(err->code));

    /* OpenAI's 401 and 404 are of this type; programs tell them apart by status and code */
    if (err->code == GD_EAUTH || err->code == GD_ENOENT)
        type = "invalid_request_error";
    error_object(
        out, err->msg[0] ? err->msg : err_name(err->code), type, err->param, error_code(err));
}

void api_http_error_body(struct buf *out, int status, const char *message)
{
    error_object(out, message, status_type(status), NULL, status_code(status));
}

int api_health_body(struct buf *out, enum api_health health)
{
    static const char type[] = "service_unavailable_error";

    switch (health) {
    case API_READY: buf_puts(out, "{\"status\":\"ok\"}"); return 200;
    case API_LOADING: error_object(out, "the model is being loaded", type, NULL, "loading"); break;
    case API_DRAINING:
        error_object(out, "the server is shutting down", type, NULL, "server_shutting_down");
        break;
    case API_STUCK: error_object(out, "the engine makes no progress", type, NULL, "stuck"); break;
    }
    return 503;
}

int api_retry_after(double seconds)
{
    if (!(seconds > 1)) /* also NaN */
        return 1;
    return seconds > 300 ? 300 : (int)ceil(seconds);
}
