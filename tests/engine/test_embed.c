/* test_embed.c - embedding jobs on the fake model: what is computed together, and what is refused.
 */
#include <stdarg.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <cmocka.h>

#include "fake.h"
#include "harness.h"

enum { CTX = 512 };

static struct harness h;

static int set_up(void **state)
{
    struct engine_opts o;

    fake_reset();
    fake.embeds = true;
    harness_opts(&o);
    o.ctx_tokens = CTX;
    o.queue_max = 8;
    harness_open(&h, &o);
    return 0;
}

static int tear_down(void **state)
{
    struct engine_stats s;

    fake_open_gate();
    harness_wait_idle(&h);
    engine_stats(h.e, &s);
    assert_true(s.kv_used == 0);
    harness_close(&h);
    assert_int_equal(fake.n_bad, 0);
    return 0;
}

static struct job_params embedding(const int32_t *ids, int n)
{
    struct job_params p;

    job_params_default(&p);
    p.embed = true;
    p.prompt.kind = PROMPT_TOKENS;
    p.prompt.ids = ids;
    p.prompt.n = (size_t)n;
    return p;
}

static struct job *submit(unsigned seed, int n)
{
    int32_t ids[CTX];
    struct job_params p = embedding(ids, n);

    harness_prompt(ids, n, seed);
    return harness_submit(&h, &p);
}

static int refused(const struct job_params *p, const char *param, const char *says)
{
    struct job *j;
    struct err err;
    int r = job_submit(&j, h.e, p, NULL, &err);

    assert_true(r < 0);
    assert_string_equal(err.param, param);
    if (!strstr(err.msg, says))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, says);
    return r;
}

/* Reads the whole job and holds its vector against the model's. */
static void expect_vector(struct job *j, unsigned seed, int n)
{
    int32_t ids[CTX];
    float want[FAKE_VOCAB];
    struct job_event ev;

    harness_prompt(ids, n, seed);
    fake_logits(ids, n, want);
    harness_next(&h, j, &ev);
    assert_int_equal(ev.kind, EVENT_STARTED);
    assert_null(ev.vector);
    harness_next(&h, j, &ev);
    assert_int_equal(ev.kind, EVENT_FINISH);
    assert_int_equal(ev.finish, FINISH_STOP);
    assert_int_equal(ev.n_vector, FAKE_VOCAB);
    assert_memory_equal(ev.vector, want, sizeof(want));
    assert_int_equal(ev.usage.prompt_tokens, n);
    assert_int_equal(ev.usage.completion_tokens, 0);
    assert_int_equal(ev.usage.cached_tokens, 0);
    assert_false(job_next(j, &ev));
    job_release(j);
}

static void a_vector_ends_the_job(void **state)
{
    assert_int_equal(engine_info(h.e)->embed_width, FAKE_VOCAB);
    assert_int_equal(engine_info(h.e)->ctx_tokens, CTX);
    expect_vector(submit(1, 100), 1, 100);
    expect_vector(submit(2, CTX), 2, CTX);
    expect_vector(submit(1, 100), 1, 100); /* nothing of it was kept */
    assert_int_equal(fake.n_runs, 3);
    assert_int_equal(fake.runs[2].n_tokens, 100);
}

static void text_is_tokenised_as_the_file_says(void **state)
{
    struct job_params p = embedding(NULL, 0);
    int32_t ids[] = {FAKE_BOS, FAKE_BYTE + 'a', FAKE_BYTE + 'b'};
    float want[FAKE_VOCAB];
    struct job_event ev;
    struct job *j;

    p.prompt = (struct prompt){.kind = PROMPT_TEXT, .text = "ab", .text_len = 2};
    j = harness_submit(&h, &p);
    fake_logits(ids, 3, want);
    harness_next(&h, j, &ev);
    harness_next(&h, j, &ev);
    assert_memory_equal(ev.vector, want, sizeof(want));
    job_release(j);
}

static void those_that_wait_are_computed_together(void **state)
{
    static const int n[] = {10, 64, 65, 1, 300, 200, 100};
    struct job *first, *jobs[7];

    fake_close_gate();
    first = submit(50, 20);
    fake_wait_blocked();
    for (unsigned i = 0; i < 7; i++)
        jobs[i] = submit(i, n[i]);
    fake_open_gate();
    expect_vector(first, 50, 20);
    for (unsigned i = 0; i < 7; i++)
        expect_vector(jobs[i], i, n[i]);
    assert_int_equal(fake.n_runs, 4);
    assert_int_equal(fake.runs[1].n_seqs, 4); /* max_sequences */
    assert_int_equal(fake.runs[2].n_seqs, 2); /* 300 + 200, and 100 more do not fit in 512 */
    assert_int_equal(fake.runs[2].n_tokens, 500);
    assert_int_equal(fake.runs[3].n_seqs, 1);
}

static void an_answer_cannot_be_had(void **state)
{
    int32_t ids[16];
    struct job_params p = harness_greedy(ids, 16, 4);
    struct chat_message hi = {.role = ROLE_USER, .content = "hi", .content_len = 2};

    harness_prompt(ids, 16, 1);
    assert_int_equal(refused(&p, "model", "generates no text"), GD_ENOTSUP);
    p.prompt = (struct prompt){.kind = PROMPT_CHAT, .messages = &hi, .n = 1};
    assert_int_equal(refused(&p, "model", "generates no text"), GD_ENOTSUP);
    p.embed = true;
    assert_int_equal(refused(&p, "prompt", "text or tokens"), GD_EINVAL);
}

static void what_does_not_fit_is_refused_with_numbers(void **state)
{
    int32_t ids[CTX + 1];
    struct job_params p = embedding(ids, CTX + 1);

    harness_prompt(ids, CTX + 1, 1);
    assert_int_equal(
        refused(&p, "prompt", "513 tokens: more than the context of 512"), GD_ECONTEXT);
    p.prompt.n = 0;
    assert_int_equal(refused(&p, "prompt", "at least one token"), GD_EINVAL);
    ids[3] = FAKE_VOCAB;
    p.prompt.n = 5;
    assert_int_equal(refused(&p, "prompt", "260 is not one of"), GD_EINVAL);
    p.prompt.n = 3;
    p.n = 2;
    assert_int_equal(refused(&p, "n", "got 2"), GD_EINVAL);
}

static void the_released_and_the_late_are_passed_over(void **state)
{
    int32_t ids[16];
    struct job_params p = embedding(ids, 16);
    struct job *running, *waiting, *late, *last;
    struct engine_stats s;
    struct job_event ev;

    harness_prompt(ids, 16, 9);
    p.timeout_ms = 1;
    fake_close_gate();
    running = submit(1, 10);
    fake_wait_blocked();
    waiting = submit(2, 10);
    late = harness_submit(&h, &p);
    last = submit(3, 10);
    job_release(waiting);
    job_release(running);
    nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    fake_open_gate();
    expect_vector(last, 3, 10);
    harness_next(&h, late, &ev);
    assert_int_equal(ev.finish, FINISH_TIMEOUT);
    assert_null(ev.vector);
    job_release(late);
    harness_wait_idle(&h); /* the numbers come after the step */
    engine_stats(h.e, &s);
    assert_int_equal(s.jobs_canceled, 1); /* the running one was computed to its end */
    assert_int_equal(s.jobs_finished[FINISH_TIMEOUT], 1);
    assert_int_equal(s.jobs_finished[FINISH_STOP], 2);
    assert_int_equal(s.prompt_tokens, 20);
}

static void closing_ends_what_waits(void **state)
{
    struct job *first, *second;
    struct job_event ev;

    fake_close_gate();
    first = submit(1, 10);
    fake_wait_blocked();
    second = submit(2, 10);
    engine_cancel_all(h.e);
    fake_open_gate();
    expect_vector(first, 1, 10); /* its run was under way */
    harness_next(&h, second, &ev);
    assert_int_equal(ev.kind, EVENT_FINISH);
    assert_int_equal(ev.finish, FINISH_CANCELED);
    assert_null(ev.vector);
    job_release(second);
}

static void a_full_queue_takes_only_those_that_follow(void **state)
{
    enum { MANY = 30 };
    int32_t ids[10];
    struct job_params p = embedding(ids, 10);
    struct job *jobs[MANY];
    int n = 0;
    struct err err;

    harness_prompt(ids, 10, 4);
    fake_close_gate();
    jobs[n++] = harness_submit(&h, &p);
    fake_wait_blocked();
    while (n < MANY && job_submit(&jobs[n], h.e, &p, &h, &err) == 0)
        n++;
    assert_int_equal(err.code, GD_EBUSY);
    assert_in_range(n, 9, 12); /* 8 wait, and as many as had free places */
    p.follows = true;
    while (n < MANY)
        jobs[n++] = harness_submit(&h, &p);
    fake_open_gate();
    for (int i = 0; i < MANY; i++)
        expect_vector(jobs[i], 4, 10);
    engine_stop(h.e);
    assert_int_equal(job_submit(&jobs[0], h.e, &p, &h, &err), GD_ESTOPPING);
}

static void a_generating_model_makes_none(void **state)
{
    int32_t ids[16];
    struct job_params p = embedding(ids, 16);

    harness_close(&h);
    fake.embeds = false;
    harness_open(&h, NULL);
    harness_prompt(ids, 16, 1);
    assert_int_equal(engine_info(h.e)->embed_width, 0);
    assert_int_equal(refused(&p, "model", "makes no embeddings"), GD_ENOTSUP);
}

#define EMBED_TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        EMBED_TEST(a_vector_ends_the_job),
        EMBED_TEST(text_is_tokenised_as_the_file_says),
        EMBED_TEST(those_that_wait_are_computed_together),
        EMBED_TEST(an_answer_cannot_be_had),
        EMBED_TEST(what_does_not_fit_is_refused_with_numbers),
        EMBED_TEST(the_released_and_the_late_are_passed_over),
        EMBED_TEST(closing_ends_what_waits),
        EMBED_TEST(a_full_queue_takes_only_those_that_follow),
        EMBED_TEST(a_generating_model_makes_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
