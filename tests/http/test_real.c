/* The whole thing: gemmad with the demo model, through its socket and its commands. */
#include "client.h"

#include <cjson/cJSON.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static struct daemon d;

static void start_with(const char *option)
{
    const char *argv[] = {GEMMAD, "serve", "--port=0", "--max_sequences=8", option, NULL};

    daemon_start_command(&d, argv, -1);
    daemon_wait_ready(&d);
}

static int start(void **state)
{
    start_with("--log_level=info");
    return 0;
}

static int stop(void **state)
{
    return daemon_stop(&d, SIGTERM);
}

static char *read_all(const char *path)
{
    FILE *f = fopen(path, "r");
    struct buf b = {0};
    size_t n;

    assert_non_null(f);
    do {
        buf_reserve(&b, 65536);
        n = fread(b.data + b.len, 1, 65536, f);
        b.len += n;
    } while (n > 0);
    fclose(f);
    buf_putc(&b, 0);
    return b.data;
}

/* choices[0].message.content or .text of an answer; caller frees. */
static char *content_of(const struct answer *a)
{
    cJSON *j = cJSON_Parse(a->body.data);
    cJSON *c = cJSON_GetArrayItem(cJSON_GetObjectItem(j, "choices"), 0);
    cJSON *m = cJSON_GetObjectItem(c, "message");
    char *text;

    assert_non_null(c);
    text = strdup(cJSON_GetObjectItem(m ? m : c, m ? "content" : "text")->valuestring);
    cJSON_Delete(j);
    return text;
}

/* The deltas of a stream joined; caller frees. */
static char *streamed_content(const struct answer *a)
{
    struct buf text = {0};

    for (const char *p = a->body.data; (p = strstr(p, "data: {")); p += 6) {
        cJSON *j = cJSON_Parse(p + 6), *c, *delta, *s;

        c = cJSON_GetArrayItem(cJSON_GetObjectItem(j, "choices"), 0);
        delta = cJSON_GetObjectItem(c, "delta");
        s = cJSON_GetObjectItem(delta ? delta : c, delta ? "content" : "text");
        if (cJSON_IsString(s))
            buf_puts(&text, s->valuestring);
        cJSON_Delete(j);
    }
    return buf_take(&text);
}

static void answers_are_those_of_the_reference(void **state)
{
    char *golden = read_all(GOLDEN);
    cJSON *root = cJSON_Parse(golden), *prompt;
    int n = 0;

    assert_int_equal(stop(NULL), 0);
    start_with("--profile=reference");
    cJSON_ArrayForEach(prompt, cJSON_GetObjectItem(root, "prompts"))
    {
        cJSON *body = cJSON_CreateObject();
        const char *want =
            cJSON_GetObjectItem(cJSON_GetObjectItem(prompt, "q8_0"), "text")->valuestring;
        char *text, *got;
        struct answer a;

        cJSON_AddItemToObject(
            body, "messages", cJSON_Duplicate(cJSON_GetObjectItem(prompt, "messages"), true));
        cJSON_AddNumberToObject(body, "max_tokens", 64);
        cJSON_AddNumberToObject(body, "temperature", 0);
        text = cJSON_PrintUnformatted(body);
        ask_post(&d, &a, "/v1/chat/completions", text);
        assert_int_equal(a.status, 200);
        got = content_of(&a);
        assert_string_equal(got, want);
        n++;
        answer_free(&a);
        free(got);
        free(text);
        cJSON_Delete(body);
    }
    assert_true(n >= 5);
    cJSON_Delete(root);
    free(golden);
    assert_int_equal(stop(NULL), 0);
    start(NULL);
}

static char *one_text(void)
{
    struct answer a;
    char *text;

    ask_post(&d, &a, "/v1/completions",
        "{\"prompt\":\"Once upon a time\",\"max_tokens\":40,\"temperature\":0}");
    assert_int_equal(a.status, 200);
    text = content_of(&a);
    answer_free(&a);
    return text;
}

/* The first start writes its weights beside serving, the second maps them. */
static void packed_weights_are_kept_for_the_next_start(void **state)
{
    char option[160], *before = one_text(), *text;

    assert_int_equal(stop(NULL), 0);
    snprintf(option, sizeof(option), "--packed_file=%s", test_file("packed", ""));
    start_with(option);
    for (int64_t until = test_ms() + PATIENCE_MS; !daemon_log_has(&d, "wrote the packed weights");
         sleep_ms(10))
        assert_true(test_ms() < until);
    assert_false(daemon_log_has(&d, "mapped packed weights"));
    text = one_text();
    assert_string_equal(text, before);
    free(text);
    assert_int_equal(stop(NULL), 0);
    start_with(option);
    assert_true(daemon_log_has(&d, "mapped packed weights"));
    assert_false(daemon_log_has(&d, "wrote"));
    text = one_text();
    assert_string_equal(text, before);
    free(text);
    free(before);
    assert_int_equal(stop(NULL), 0);
    start(NULL);
}

static const char *const asks[8] = {"Hi", "Tell me a story about a cat.", "What is 3 + 4?",
    "Write a poem about the sea.", "Who are you?", "Tell me a story about a dragon and a baker.",
    "What is 12 + 30?", "Tell me a story about rain."};

static void ask_chat(int fd, const char *text, bool stream)
{
    char body[512];

    snprintf(body, sizeof(body),
        "{\"messages\":[{\"role\":\"user\",\"content\":\"%s\"}],\"max_tokens\":80,\"seed\":7,"
        "\"temperature\":0.8,\"stream\":%s}",
        text, stream ? "true" : "false");
    post(fd, "/v1/chat/completions", body);
}

static void eight_at_once_get_what_each_gets_alone(void **state)
{
    struct answer a;
    char *alone[8], *together;
    int fd[8];

    for (int i = 0; i < 8; i++) {
        fd[i] = dial(&d);
        ask_chat(fd[i], asks[i], false);
        hear(fd[i], &a);
        assert_int_equal(a.status, 200);
        alone[i] = content_of(&a);
        answer_free(&a);
    }
    for (int i = 0; i < 8; i++)
        ask_chat(fd[i], asks[i], i % 2);
    for (int i = 0; i < 8; i++) {
        hear(fd[i], &a);
        assert_int_equal(a.status, 200);
        assert_true(a.complete);
        together = i % 2 ? streamed_content(&a) : content_of(&a);
        assert_string_equal(together, alone[i]);
        free(together);
        free(alone[i]);
        answer_free(&a);
        hang_up(fd[i]);
    }
}

static void a_client_that_leaves_frees_its_slot(void **state)
{
    int64_t began;
    int fd = dial(&d);
    struct answer a;

    post(fd, "/v1/completions",
        "{\"prompt\":\"Once\",\"max_tokens\":1900,\"ignore_eos\":true,\"stream\":true}");
    hear_head(fd, &a);
    assert_int_equal(a.status, 200);
    hear_chunk(fd, &a);
    answer_free(&a);
    began = test_ms();
    hang_up(fd);
    wait_metric(&d, "gemmad_requests_running", 0);
    assert_true(test_ms() - began < 5000);
}

static int cached_tokens(const struct answer *a)
{
    const char *at = strstr(a->body.data, "\"cached_tokens\":");

    assert_non_null(at);
    return atoi(at + 16);
}

/* A prompt that begins like an earlier one costs only what is new, and the answer is the same. */
static void a_known_beginning_is_not_computed_again(void **state)
{
    struct buf body = {0};
    struct answer a, b;
    char *first, *second;

    buf_puts(&body, "{\"max_tokens\":20,\"temperature\":0,\"prompt\":\"");
    for (int i = 0; i < 60; i++)
        buf_printf(&body, "The cat number %d went to the sea. ", i);
    buf_puts(&body, "\"}");
    ask_post(&d, &a, "/v1/completions", body.data);
    assert_int_equal(a.status, 200);
    assert_int_equal(cached_tokens(&a), 0);
    ask_post(&d, &b, "/v1/completions", body.data);
    assert_true(cached_tokens(&b) >= 64);
    first = content_of(&a);
    second = content_of(&b);
    assert_string_equal(first, second);
    free(first);
    free(second);
    answer_free(&a);
    answer_free(&b);
    assert_int_equal(stop(NULL), 0);
    start_with("--prefix_cache=false");
    for (int i = 0; i < 2; i++) {
        ask_post(&d, &a, "/v1/completions", body.data);
        assert_int_equal(cached_tokens(&a), 0);
        answer_free(&a);
    }
    assert_int_equal(stop(NULL), 0);
    start(NULL);
    buf_free(&body);
}

static void what_cannot_fit_is_told_with_numbers(void **state)
{
    struct answer a;

    ask_post(&d, &a, "/v1/completions", "{\"prompt\":\"Once\",\"max_tokens\":5000}");
    assert_int_equal(a.status, 400);
    assert_non_null(strstr(a.body.data, "\"code\":\"context_length_exceeded\""));
    assert_non_null(strstr(a.body.data, "2048"));
    answer_free(&a);
}

static void text_goes_to_ids_and_back(void **state)
{
    struct answer a, b;
    char body[512];

    ask_post(&d, &a, "/tokenize", "{\"content\":\"Hello w\xc3\xb6rld \xf0\x9f\x99\x82\"}");
    assert_int_equal(a.status, 200);
    ask_post(&d, &b, "/detokenize", a.body.data);
    assert_string_equal(b.body.data, "{\"content\":\"Hello w\xc3\xb6rld \xf0\x9f\x99\x82\"}");
    answer_free(&a);
    answer_free(&b);
    ask_post(&d, &a, "/apply-template", "{\"messages\":[{\"role\":\"user\",\"content\":\"Hi\"}]}");
    snprintf(body, sizeof(body), "%s", a.body.data);
    assert_string_equal(body, "{\"prompt\":\"<bos><start_of_turn>user\\nHi<end_of_turn>\\n"
                              "<start_of_turn>model\\n\"}");
    answer_free(&a);
}

/* Runs a command; its output (stdout and stderr) goes to out, its exit code is returned. */
static int run(const char *args, char *out, size_t cap)
{
    char command[512];
    size_t n;
    FILE *p;
    int r;

    snprintf(command, sizeof(command), "%s %s 2>&1", GEMMAD, args);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(out, 1, cap - 1, p);
    out[n] = 0;
    r = pclose(p);
    return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

static void commands_do_what_they_say(void **state)
{
    char out[16384];

    assert_int_equal(run("--version", out, sizeof(out)), 0);
    assert_memory_equal(out, "gemmad ", 7);
    assert_int_equal(run("", out, sizeof(out)), 2);
    assert_int_equal(run("nonsense", out, sizeof(out)), 2);
    assert_non_null(strstr(out, "no command \"nonsense\""));
    assert_int_equal(run("generate --prompt Hi --profile=reference", out, sizeof(out)), 0);
    assert_string_equal(out,
        "Hi there! I am gemmad's little demo model. Ask me for a story, a poem or a small sum.\n");
    assert_int_equal(run("generate --prompt Hi --max_tokens 0", out, sizeof(out)), 2);
    assert_int_equal(run("generate --prompt Hi --zeta", out, sizeof(out)), 2);
    assert_int_equal(run("tokenize --text 'Hello world' --ids", out, sizeof(out)), 0);
    assert_int_equal(run("tokenize --decode --text '967 1042'", out, sizeof(out)), 0);
    assert_string_equal(out, "Hello world\n");
    assert_int_equal(run("tokenize --decode --text '967 99999'", out, sizeof(out)), 2);
    assert_int_equal(run("tokenize --model=/etc/passwd --text x", out, sizeof(out)), 2);
    assert_int_equal(run("plan", out, sizeof(out)), 0);
    assert_non_null(strstr(out, "sliding layers"));
    assert_int_equal(run("plan --ctx_tokens=100000", out, sizeof(out)), 2);
    assert_int_equal(run("serve --model=/etc/passwd --port=0", out, sizeof(out)), 2);
    assert_non_null(strstr(out, "not a GGUF file"));
    for (const char *const *c =
             (const char *const[]){"serve", "generate", "tokenize", "plan", NULL};
         *c; c++) {
        char args[64];

        snprintf(args, sizeof(args), "%s --help", *c);
        assert_int_equal(run(args, out, sizeof(out)), 0);
        assert_non_null(strstr(out, "usage: gemmad "));
        assert_non_null(strstr(out, "xit codes"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(answers_are_those_of_the_reference),
        cmocka_unit_test(packed_weights_are_kept_for_the_next_start),
        cmocka_unit_test(eight_at_once_get_what_each_gets_alone),
        cmocka_unit_test(a_client_that_leaves_frees_its_slot),
        cmocka_unit_test(a_known_beginning_is_not_computed_again),
        cmocka_unit_test(what_cannot_fit_is_told_with_numbers),
        cmocka_unit_test(text_goes_to_ids_and_back),
        cmocka_unit_test(commands_do_what_they_say),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
