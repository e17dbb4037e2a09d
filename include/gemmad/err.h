/* err.h - error codes and the sentence that travels with them.
 *
 * A function that can fail returns 0 or a negative code. If a person should
 * learn why, its last parameter is a struct err and it leaves through
 * `return err_set(err, GD_E..., "...")`. Nothing below server/, cmd/ and main.c
 * logs an error: the caller that gives up is the one that reports it.
 *
 * `param` names the request field, setting, metadata key or tensor at fault,
 * when there is one: it becomes "param" of an OpenAI error object. */
#ifndef GEMMAD_ERR_H
#define GEMMAD_ERR_H

#define GD_ERR_MAP(X)                             \
    X(GD_ENOMEM, -1, "out of memory")             \
    X(GD_EINVAL, -2, "invalid argument")          \
    X(GD_EFORMAT, -3, "malformed model file")     \
    X(GD_ENOENT, -4, "not found")                 \
    X(GD_EBUSY, -5, "queue full")                 \
    X(GD_EIO, -6, "input/output error")           \
    X(GD_ENOTSUP, -7, "not supported")            \
    X(GD_ECONTEXT, -8, "context length exceeded") \
    X(GD_ECANCELED, -9, "canceled")               \
    X(GD_ESTOPPING, -10, "shutting down")         \
    X(GD_ETOOBIG, -11, "too large")               \
    X(GD_EAUTH, -12, "not authorised")            \
    X(GD_EINTERNAL, -13, "internal error")

enum {
#define X(name, value, text) name = value,
    GD_ERR_MAP(X)
#undef X
};

struct err {
    int code;       /* 0 or GD_E... */
    char param[64]; /* field, key or tensor at fault; "" when none */
    char msg[256];  /* one sentence, no newline, safe to show a client */
};

const char *err_name(int code);
void err_fill(struct err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Like err_fill, and sets param. */
void err_fill_at(struct err *err, int code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 4, 5)));

/* Macros so that the compiler sees the negative constant being returned. */
#define err_set(err, code, ...) (err_fill((err), (code), __VA_ARGS__), (code))
#define err_set_at(err, code, param, ...) (err_fill_at((err), (code), (param), __VA_ARGS__), (code))

#endif
