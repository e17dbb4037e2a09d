/* A query's attention is bitwise the same however rows, heads, segments and pages are cut. */
#include "attention_fixture.h"

enum { N_POS = 300 }; /* when there is no past */

static size_t row_floats(const struct fixture *f)
{
    return (size_t)f->spec.n_heads * (size_t)f->spec.head_dim;
}

static float *room_for(const struct fixture *f)
{
    return xcalloc((size_t)f->n_pos * row_floats(f), sizeof(float));
}

/* Positions from `past` on in chunks: each is written, then asked. */
static void run_chunks(struct fixture *f, const struct kernels *k, float *out, int past, int chunk)
{
    fixture_write(f, k, 0, past);
    for (int pos = past; pos < f->n_pos; pos += chunk) {
        int n = pos + chunk < f->n_pos ? chunk : f->n_pos - pos;

        fixture_write(f, k, pos, pos + n);
        fixture_drop_below(f, pos);
        fixture_run(f, k, out, pos, n);
    }
}

static uint32_t bits(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

static void check_same(
    const struct fixture *f, const float *got, const float *want, const char *how)
{
    for (size_t i = 0; i < (size_t)f->n_pos * row_floats(f); i++) {
        if (bits(got[i]) != bits(want[i]))
            fail_msg("%s: dim %d window %d pages %d, pos %zu: %.9g, want %.9g", how,
                f->spec.head_dim, f->spec.window, f->kv.type, i / row_floats(f), (double)got[i],
                (double)want[i]);
    }
}

static void run_heads_apart(const struct fixture *f, const struct kernels *k, float *out, int past)
{
    int group = f->spec.n_heads / f->spec.n_kv_heads;

    for (int h = 0; h < f->spec.n_heads; h += group) {
        struct attention_task some = fixture_task(f, out, past, f->n_pos - past, h, group - 1);
        struct attention_task last = fixture_task(f, out, past, f->n_pos - past, h + group - 1, 1);

        k->attention.run(&last);
        k->attention.run(&some);
    }
}

static void run_in_segments(const struct fixture *f, const struct kernels *k, float *out, int past)
{
    int group = f->spec.n_heads / f->spec.n_kv_heads, first, last;

    for (int h = 0; h < f->spec.n_heads; h += group) {
        struct attention_task t = fixture_task(f, out, past, f->n_pos - past, h, group);
        size_t bytes = attention_part_bytes(&t);

        attention_segments(&t, &first, &last);

        size_t all = bytes * (size_t)(last - first);
        uint8_t *parts = mem_aligned(all);

        assert_non_null(parts);
        for (int s = last - 1; s >= first; s -= 2) { /* any order, any thread */
            const int from = s > first ? s - 1 : first;

            k->attention.run_segments(
                &t, from, s + 1, (float *)(parts + bytes * (size_t)(from - first)));
        }
        attention_merge(&t, (float *)parts);
        mem_aligned_free(parts, all);
    }
}

static void check_cuts(
    const struct attention_spec *spec, enum kv_type type, const struct kernels *k, int past)
{
    static const int chunks[] = {7, 64, 512};
    struct fixture f;

    fixture_open(&f, spec, type, past + (past > 0 ? 24 : N_POS));

    float *want = room_for(&f), *got = room_for(&f);

    fixture_clear(&f, 1);
    run_chunks(&f, k, want, past, 1);
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        memset(got, 0, (size_t)f.n_pos * row_floats(&f) * sizeof(float));
        fixture_clear(&f, 1);
        run_chunks(&f, k, got, past, chunks[i]);
        check_same(&f, got, want, "chunks");
    }
    fixture_clear(&f, f.n_pages % 3 ? 3 : 5); /* other pages */
    run_chunks(&f, k, got, past, 33);
    check_same(&f, got, want, "pages");
    fixture_clear(&f, 1);
    fixture_write(&f, k, 0, f.n_pos);
    memset(got, 0, (size_t)f.n_pos * row_floats(&f) * sizeof(float));
    run_heads_apart(&f, k, got, past);
    check_same(&f, got, want, "heads");
    memset(got, 0, (size_t)f.n_pos * row_floats(&f) * sizeof(float));
    run_in_segments(&f, k, got, past);
    check_same(&f, got, want, "segments");
    free(want);
    free(got);
    fixture_close(&f);
}

static void check_all(const struct attention_spec *spec, int past)
{
    struct kernels k;

    for (int level = 0; level < N_LEVELS; level++) {
        if (!level_init(&k, level))
            continue;
        check_cuts(spec, KV_F32, &k, past);
        check_cuts(spec, KV_BF16, &k, past);
    }
}

static void cuts_of_a_prompt_change_no_bit(void **state)
{
    check_all(&(struct attention_spec){4, 1, 20, 0, 0.3f, 0}, 0);
}

static void cuts_under_a_window_change_no_bit(void **state)
{
    check_all(&(struct attention_spec){2, 1, 16, 100, 0.3f, 30}, 0);
}

static void cuts_behind_a_long_past_change_no_bit(void **state)
{
    check_all(&(struct attention_spec){4, 2, 64, 0, 0.125f, 0}, 1200);
    check_all(&(struct attention_spec){2, 1, 256, 512, 0.06f, 0}, 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cuts_of_a_prompt_change_no_bit),
        cmocka_unit_test(cuts_under_a_window_change_no_bit),
        cmocka_unit_test(cuts_behind_a_long_past_change_no_bit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
