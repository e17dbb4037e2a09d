/* The answer to a chat, split on its way to the reader: order, stop strings, counts. Control bytes
 * stand for the marks of Gemma 4's format. */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>
#include <stdlib.h>
#include <string.h>

#include "base/mem.h"
#include "engine/choice.h"
#include "fake.h"

#define CHANNEL "\x01"
#define CHANNEL_END "\x02"
#define CALL "\x03"
#define CALL_END "\x04"
#define QUOTE "\x05"

static struct chat_marks marks;

static struct job *make_job(enum chat_format f, const char *const *stops, size_t n_stops)
{
    struct job *j = xcalloc(1, sizeof(*j));

    for (int i = 0; i < N_MARKS; i++)
        marks.id[i] = FAKE_BYTE + i;
    job_params_default(&j->params);
    j->prompt = xcalloc(1, sizeof(*j->prompt));
    j->n_prompt = 1;
    j->stops = stop_set_create(stops, n_stops);
    j->max_tokens = 1000;
    j->format = f;
    j->marks = &marks;
    j->tools = xcalloc(1, sizeof(*j->tools));
    j->tools[j->n_tools++] = xstrdup("f");
    j->news = xcalloc(1, sizeof(*j->news));
    pthread_mutex_init(&j->lock, NULL);
    atomic_init(&j->refs, 1);
    return j;
}

/* One event as text: C:content R:reasoning F:name(arguments), tokens counted. */
static void show(const struct job_event *ev, struct buf *out, size_t *n_tokens)
{
    *n_tokens += ev->n_tokens;
    if (ev->kind == EVENT_CALL)
        buf_printf(out, "F:%s(%.*s)|", ev->name, (int)ev->text_len, ev->text);
    else if (ev->text_len)
        buf_printf(out, "%c:%.*s|", ev->channel == CHANNEL_REASONING ? 'R' : 'C', (int)ev->text_len,
            ev->text);
}

/* What a reader sees of an answer of these bytes and the end of the turn. read_each: after every
 * token; else at the end, joined. */
static void answers(
    struct job *j, const char *bytes, bool read_each, const char *want, int n_reasoning, int stop)
{
    struct choice *c = choice_create(j, 0, 100);
    struct job_event ev;
    struct finish finish = {0};
    struct buf got = {0};
    size_t n_tokens = 0, n_given = 0;
    bool ended = false;

    for (const char *at = bytes; !ended; at++) {
        c->pick = (struct pick){.id = *at ? FAKE_BYTE + (unsigned char)*at : FAKE_EOT};
        ended = choice_accept(c, NULL, &finish);
        n_given++;
        while (read_each && job_next(j, &ev))
            show(&ev, &got, &n_tokens);
    }
    while (job_next(j, &ev))
        show(&ev, &got, &n_tokens);
    if (!read_each)
        assert_string_equal(got.data ? got.data : "", want);
    assert_int_equal(n_tokens, n_given);
    assert_int_equal(c->n_reasoning, n_reasoning);
    assert_int_equal(finish.reason, FINISH_STOP);
    assert_int_equal(finish.stop, stop);
    buf_free(&got);
    choice_destroy(c);
    job_unref(j);
}

static void thoughts_content_and_calls_come_in_order(void **state)
{
    static const char text[] = CHANNEL "thought\nhm" CHANNEL_END "Now:" CALL "call:f{a:" QUOTE
                                       "x" QUOTE "}" CALL_END "and" CALL "call:f{}" CALL_END;

    for (int each = 0; each < 2; each++)
        answers(make_job(CHAT_GEMMA4, NULL, 0), text, each,
            "R:hm|C:Now:|F:f({\"a\":\"x\"})|C:and|F:f({})|", 12, -1);
}

static void what_is_held_comes_at_the_end(void **state)
{
    answers(make_job(CHAT_GEMMA4, NULL, 0), "a" CALL "call:f{a:1", false,
        "C:a<|tool_call>call:f{a:1|", 0, -1);
    answers(make_job(CHAT_GEMMA4, NULL, 0), CHANNEL "though", false, "R:though|", 7, -1);
    answers(make_job(CHAT_GEMMA4, NULL, 0), "\xc3" CHANNEL "thought\n\xc3", false,
        "C:\xef\xbf\xbd|R:\xef\xbf\xbd|", 10, -1);
}

static void stop_strings_are_looked_for_in_content(void **state)
{
    static const char *const stops[] = {"stop", "ab"};

    answers(make_job(CHAT_GEMMA4, stops, 2), CHANNEL "thought\nstop" CHANNEL_END "x stop y", false,
        "R:stop|C:x |", 14, 0);
    /* "a", a thought, "b" is not "ab", and what was held comes before the thought. */
    answers(make_job(CHAT_GEMMA4, stops, 2), "a" CHANNEL "thought\nt" CHANNEL_END "b!ab", false,
        "C:a|R:t|C:b!|", 11, 1);
    /* What the stop string ends is not followed by anything. */
    answers(make_job(CHAT_GEMMA4, stops, 2), CALL "call:g{ab}" CALL_END CHANNEL "x", false,
        "C:<|tool_call>call:g{|", 0, 1);
}

static void without_a_format_nothing_is_split(void **state)
{
    answers(make_job(CHAT_NONE, NULL, 0), "a" CHANNEL "b", false, "C:a" CHANNEL "b|", 0, -1);
}

static void shown_special_tokens_keep_thoughts_in_the_content(void **state)
{
    struct job *j = make_job(CHAT_GEMMA4, NULL, 0);

    j->params.skip_special = false;
    answers(j, CHANNEL "thought\nx" CHANNEL_END "y" CALL "call:f{}" CALL_END, false,
        "C:<|channel>thought\nx<channel|>y|F:f({})|", 0, -1);
}

/* A call that nobody will end: its text, then the end that the clock brings. */
static void what_is_held_when_time_is_up_is_posted(void **state)
{
    struct job *j = make_job(CHAT_GEMMA4, NULL, 0);
    struct choice *c = choice_create(j, 0, 100);
    struct job_event ev;
    struct finish finish;
    struct buf got = {0};
    size_t n = 0;

    for (const char *at = "x" CALL "call:f"; *at; at++) {
        c->pick = (struct pick){.id = FAKE_BYTE + (unsigned char)*at};
        assert_false(choice_accept(c, NULL, &finish));
    }
    finish.reason = FINISH_TIMEOUT;
    choice_cut(c, &finish);
    while (job_next(j, &ev))
        show(&ev, &got, &n);
    assert_string_equal(got.data, "C:x<|tool_call>call:f|");
    buf_free(&got);
    choice_destroy(c);
    job_unref(j);
}

static void one_call_ends_the_answer(void **state)
{
    struct job *j = make_job(CHAT_GEMMA4, NULL, 0);

    j->params.one_call = true;
    answers(j, CALL "call:f{}" CALL_END, false, "F:f({})|", 0, -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thoughts_content_and_calls_come_in_order),
        cmocka_unit_test(what_is_held_comes_at_the_end),
        cmocka_unit_test(stop_strings_are_looked_for_in_content),
        cmocka_unit_test(what_is_held_when_time_is_up_is_posted),
        cmocka_unit_test(one_call_ends_the_answer),
        cmocka_unit_test(without_a_format_nothing_is_split),
        cmocka_unit_test(shown_special_tokens_keep_thoughts_in_the_content),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
