/* test_embed_real.c - the engine over a golden EmbeddingGemma: its vectors are the golden ones, and
 * to the bit the same alone and beside strangers. */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <cjson/cJSON.h>

#include "base/buf.h"
#include "harness.h"

enum { WIDTH_MAX = 256, STRANGERS = 12 };

static struct harness h;

static void open_model(const char *profile)
{
    struct engine_opts o;

    engine_opts_default(&o);
    o.model_path = GOLDEN_DIR "/model-bf16.gguf";
    o.profile = profile;
    o.n_threads = 2;
    harness_open(&h, &o);
    assert_in_range(engine_info(h.e)->embed_width, 1, WIDTH_MAX);
}

static struct buf read_all(const char *path)
{
    FILE *f = fopen(path, "rb");
    struct buf b = {0};
    char part[4096];
    size_t n;

    assert_non_null(f);
    while ((n = fread(part, 1, sizeof(part), f)) > 0)
        buf_append(&b, part, n);
    fclose(f);
    buf_putc(&b, 0);
    return b;
}

static struct job *submit(const int32_t *ids, int n)
{
    struct job_params p;

    job_params_default(&p);
    p.embed = true;
    p.prompt.kind = PROMPT_TOKENS;
    p.prompt.ids = ids;
    p.prompt.n = (size_t)n;
    return harness_submit(&h, &p);
}

static void take(struct job *j, float *out)
{
    struct job_event ev;

    do
        harness_next(&h, j, &ev);
    while (ev.kind != EVENT_FINISH);
    assert_int_equal(ev.finish, FINISH_STOP);
    assert_int_equal(ev.n_vector, engine_info(h.e)->embed_width);
    memcpy(out, ev.vector, (size_t)ev.n_vector * sizeof(*out));
    job_release(j);
}

static void vectors_are_the_golden_ones(void **state)
{
    struct buf text = read_all(GOLDEN_DIR "/golden.json"),
               data = read_all(GOLDEN_DIR "/golden.f32");
    cJSON *golden = cJSON_Parse(text.data);
    double bound = cJSON_GetObjectItem(golden, "bound")->valuedouble;
    const cJSON *item, *id;
    int n_items = 0;

    open_model("reference");
    cJSON_ArrayForEach(item, cJSON_GetObjectItem(golden, "embeddings"))
    {
        size_t at = (size_t)cJSON_GetObjectItem(item, "embedding_offset")->valueint;
        int width = cJSON_GetObjectItem(item, "embedding_width")->valueint, n = 0;
        float got[WIDTH_MAX], want[WIDTH_MAX], min = 1, max = -1;
        int32_t ids[512];

        cJSON_ArrayForEach(id, cJSON_GetObjectItem(item, "prompt_ids")) ids[n++] = id->valueint;
        assert_int_equal(width, engine_info(h.e)->embed_width);
        assert_true((at + (size_t)width) * sizeof(float) < data.len);
        memcpy(want, data.data + at * sizeof(float), (size_t)width * sizeof(float));
        take(submit(ids, n), got);
        for (int i = 0; i < width; i++) {
            min = want[i] < min ? want[i] : min;
            max = want[i] > max ? want[i] : max;
        }
        for (int i = 0; i < width; i++)
            assert_float_equal(got[i], want[i], bound * (double)(max - min));
        n_items++;
    }
    assert_int_equal(n_items, 3);
    harness_close(&h);
    cJSON_Delete(golden);
    buf_free(&text);
    buf_free(&data);
}

/* Lengths around the page, the window and the tiles. */
static int stranger(int i, int32_t *ids)
{
    static const int lengths[STRANGERS] = {1, 2, 7, 8, 9, 16, 17, 63, 64, 65, 130, 200};

    for (int k = 0; k < lengths[i]; k++)
        ids[k] = 3 + (i * 131 + k * 37) % 500;
    return lengths[i];
}

static uint64_t runs(void)
{
    struct engine_stats s;

    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    return s.steps;
}

/* All of them behind a long one; returns in how many runs. */
static uint64_t together(float got[STRANGERS][WIDTH_MAX])
{
    struct job *jobs[STRANGERS], *first;
    int n = engine_info(h.e)->ctx_tokens < 2048 ? engine_info(h.e)->ctx_tokens : 2048;
    int32_t ids[2048];
    float unused[WIDTH_MAX];
    uint64_t before = runs();

    for (int k = 0; k < n; k++)
        ids[k] = 3 + k % 500;
    first = submit(ids, n);
    for (int i = 0; i < STRANGERS; i++)
        jobs[i] = submit(ids, stranger(i, ids));
    take(first, unused);
    for (int i = 0; i < STRANGERS; i++)
        take(jobs[i], got[i]);
    return runs() - before;
}

static void strangers_do_not_change_a_vector_in(const char *profile)
{
    static float alone[STRANGERS][WIDTH_MAX], beside[STRANGERS][WIDTH_MAX];
    int tries = 0;
    int32_t ids[256];

    open_model(profile);
    for (int i = 0; i < STRANGERS; i++)
        take(submit(ids, stranger(i, ids)), alone[i]);
    while (together(beside) > 3) /* the long one was too quick for this thread */
        assert_true(++tries < 100);
    for (int i = 0; i < STRANGERS; i++)
        assert_memory_equal(
            alone[i], beside[i], (size_t)engine_info(h.e)->embed_width * sizeof(float));
    harness_close(&h);
}

static void strangers_do_not_change_a_vector(void **state)
{
    strangers_do_not_change_a_vector_in("default");
}

static void nor_in_the_reference_profile(void **state)
{
    strangers_do_not_change_a_vector_in("reference");
}

static void nor_in_the_precise_profile(void **state)
{
    strangers_do_not_change_a_vector_in("precise");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_the_golden_ones),
        cmocka_unit_test(strangers_do_not_change_a_vector),
        cmocka_unit_test(nor_in_the_reference_profile),
        cmocka_unit_test(nor_in_the_precise_profile),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
