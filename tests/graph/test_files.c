/* test_files.c - the same weights from a Hugging Face folder and from a GGUF are the same model:
 * logits of a prompt and of decoding are equal bit for bit, in both profiles. (Not Gemma 2: its
 * folder is F16, and the converter rounds the norms of such a model to F16.) */
#include "models.h"

enum { N_PROMPT = 90, N_DECODE = 6 };

static const char *const families[] = {
    "gemma1", "gemma3", "gemma3-mm", "gemma3n", "gemma4-dense", "gemma4-e2b", "gemma4-moe"};

/* Logits after a prompt and after each of N_DECODE greedy steps; caller frees. */
static float *logits_of(const char *model, const char *profile, int *vocab)
{
    struct runtime *rt = open_model(model, profile, "auto", 2, "auto");
    size_t n = (size_t)rt->hp.vocab;
    float *out = xcalloc((N_DECODE + 1) * n, sizeof(*out));
    int32_t ids[N_PROMPT];
    struct plain_kv kv;
    struct err err;

    fill_ids(ids, N_PROMPT, 7, rt->hp.vocab);
    assert_int_equal(plain_kv_create(&kv, rt, 1, N_PROMPT + N_DECODE, &err), 0);
    plain_feed(rt, &kv, 0, 0, ids, N_PROMPT, TEST_CHUNK, out);
    for (int i = 0; i < N_DECODE; i++) {
        int past = N_PROMPT + i;
        int32_t next = rt->kernels.argmax(out + (size_t)i * n, rt->hp.vocab);

        plain_decode(rt, &kv, &past, &next, 1, out + (size_t)(i + 1) * n);
    }
    *vocab = rt->hp.vocab;
    plain_kv_free(&kv);
    runtime_close(rt);
    return out;
}

static void folders_equal_their_gguf(void **state)
{
    static const char *const profiles[] = {"reference", "default"};

    for (size_t f = 0; f < sizeof(families) / sizeof(*families); f++)
        for (int p = 0; p < 2; p++) {
            char folder[128], file[160];
            int n = 0, m = 0;
            float *a, *b;

            snprintf(folder, sizeof(folder), "tests/golden/families/%s", families[f]);
            snprintf(file, sizeof(file), "%s/model-bf16.gguf", folder);
            a = logits_of(folder, profiles[p], &n);
            b = logits_of(file, profiles[p], &m);
            assert_int_equal(n, m);
            if (memcmp(a, b, (size_t)(N_DECODE + 1) * (size_t)n * sizeof(*a)) != 0)
                fail_msg("%s: folder and GGUF differ in the %s profile", families[f], profiles[p]);
            assert_true(a[0] - a[0] == 0); /* finite */
            free(a);
            free(b);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_equal_their_gguf),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
