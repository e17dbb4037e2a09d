#include "gemmad/err.h"

#include <stdarg.h>
#include <stdio.h>

const char *err_name(int code)
{
    switch (code) {
#define X(name, value, text) \
    case value: return text;
        GD_ERR_MAP(X)
#undef X
    }
    return "ok";
}

void err_fill(struct err *err, int code, const char *fmt, ...)
{
    va_list ap;

    err->code = code;
    err->param[0] = 0;
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
}

void err_fill_at(struct err *err, int code, const char *param, const char *fmt, ...)
{
    va_list ap;

    err->code = code;
    snprintf(err->param, sizeof(err->param), "%s", param);
    va_start(ap, fmt);
    vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
    va_end(ap);
}
