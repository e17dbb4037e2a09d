#include "test_source_read.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/hparams.h"

void check_sentence(const struct err *err)
{
    size_t len = strlen(err->msg);
    bool good =
        err->code < 0 && len >= 10 && (err->msg[len - 1] == '.' || len == sizeof(err->msg) - 1);

    for (size_t i = 0; i < len; i++)
        good &= (unsigned char)err->msg[i] >= 0x20;
    if (!good) {
        fprintf(stderr, "no sentence: code %d, \"%s\"\n", err->code, err->msg);
        abort();
    }
}

static uint64_t read_array(const struct source_array *a)
{
    uint64_t sum = 0;
    const char *str;
    size_t len;
    int64_t n;
    float f;

    for (uint64_t i = 0; i < a->n; i++) {
        if (source_array_int(a, i, &n))
            sum += (uint64_t)n;
        if (source_array_f32(a, i, &f))
            sum += f > 0;
        if (source_array_str(a, i, &str, &len))
            sum += len ? (unsigned char)str[len - 1] : 0;
    }
    if (source_array_int(a, a->n, &n) || source_array_f32(a, a->n, &f) ||
        source_array_str(a, a->n, &str, &len))
        abort();
    return sum;
}

static uint64_t read_key(const struct source *s, const char *key)
{
    uint64_t sum = 0;
    struct source_array a;
    struct err err;
    const char *str;
    size_t len;
    uint32_t u;
    float f;
    bool flag;
    int r[5];

    r[0] = source_u32(s, key, &u, &err);
    sum += r[0] > 0 ? u : 0;
    r[1] = source_f32(s, key, &f, &err);
    sum += r[1] > 0 ? f > 0 : 0;
    r[2] = source_bool(s, key, &flag, &err);
    sum += r[2] > 0 ? flag : 0;
    r[3] = source_str(s, key, &str, &len, &err);
    for (size_t i = 0; r[3] > 0 && i < len; i++)
        sum += (unsigned char)str[i];
    r[4] = source_array(s, key, &a, &err);
    sum += r[4] > 0 ? read_array(&a) : 0;
    for (int i = 0; i < 5; i++)
        if (r[i] == 0) /* the key is there */
            abort();
    return sum;
}

uint64_t read_everything(const struct source *s)
{
    uint64_t sum = 0;
    struct hparams hp;
    struct err err = {0};
    const char *key;

    for (size_t i = 0; (key = source_key_at(s, i)) != NULL; i++)
        sum += read_key(s, key);
    for (size_t i = 0; i < source_n_tensors(s); i++) {
        const struct tensor *t = source_tensor_at(s, i);

        if (source_tensor(s, t->name) != t)
            abort();
        for (size_t k = 0; k < t->bytes; k++)
            sum += t->data[k];
    }
    if (hparams_read(&hp, s, &err) < 0)
        check_sentence(&err);
    else
        sum += (uint64_t)hp.layers[hp.n_layers - 1].head_dim;
    return sum;
}
