/* POST /v1/embeddings and gemmad embed, with a golden EmbeddingGemma behind them. */
#include "client.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { WIDTH = 64 };

static struct daemon d;

static void start_with(const char *model, const char *option)
{
    const char *argv[] = {GEMMAD, "serve", "--port=0", "--queue_max=4", model, option, NULL};

    daemon_start_command(&d, argv, -1);
    daemon_wait_ready(&d);
}

static int start(void **state)
{
    start_with("--model=" GOLDEN_DIR "/model-bf16.gguf", "--profile=reference");
    return 0;
}

static int stop(void **state)
{
    return daemon_stop(&d, SIGTERM);
}

static cJSON *ask_json(const char *path, const char *body, int status)
{
    struct answer a;
    cJSON *json;

    ask_post(&d, &a, path, body);
    if (a.status != status)
        fail_msg("%s: %d %s", body, a.status, a.body.data);
    json = cJSON_Parse(a.body.data);
    assert_non_null(json);
    answer_free(&a);
    return json;
}

static void floats_of(const cJSON *array, float *out, int n)
{
    const cJSON *item;
    int i = 0;

    assert_int_equal(cJSON_GetArraySize(array), n);
    cJSON_ArrayForEach(item, array) out[i++] = (float)item->valuedouble;
}

/* data[i].embedding of an answer. */
static void vector_of(const cJSON *json, int i, float *out, int n)
{
    const cJSON *item = cJSON_GetArrayItem(cJSON_GetObjectItem(json, "data"), i);

    assert_string_equal(cJSON_GetObjectItem(item, "object")->valuestring, "embedding");
    assert_int_equal(cJSON_GetObjectItem(item, "index")->valueint, i);
    floats_of(cJSON_GetObjectItem(item, "embedding"), out, n);
}

static void expect_error(const char *path, const char *body, const char *param, const char *says)
{
    cJSON *json = ask_json(path, body, 400), *error = cJSON_GetObjectItem(json, "error");
    const char *message = cJSON_GetObjectItem(error, "message")->valuestring;

    assert_string_equal(cJSON_GetObjectItem(error, "param")->valuestring, param);
    if (!strstr(message, says))
        fail_msg("\"%s\" does not say \"%s\"", message, says);
    cJSON_Delete(json);
}

/* ---- the golden vectors ---- */

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

struct golden {
    struct buf text, data;
    cJSON *json;
    double bound;
};

static void golden_open(struct golden *g)
{
    g->text = read_all(GOLDEN_DIR "/golden.json");
    g->data = read_all(GOLDEN_DIR "/golden.f32");
    g->json = cJSON_Parse(g->text.data);
    assert_non_null(g->json);
    g->bound = cJSON_GetObjectItem(g->json, "bound")->valuedouble;
}

static void golden_close(struct golden *g)
{
    cJSON_Delete(g->json);
    buf_free(&g->text);
    buf_free(&g->data);
}

static const cJSON *golden_items(const struct golden *g)
{
    return cJSON_GetObjectItem(g->json, "embeddings");
}

static void assert_golden(const struct golden *g, const cJSON *item, const float *got)
{
    size_t at = (size_t)cJSON_GetObjectItem(item, "embedding_offset")->valueint;
    float want[WIDTH], min = 1, max = -1;

    assert_int_equal(cJSON_GetObjectItem(item, "embedding_width")->valueint, WIDTH);
    assert_true((at + WIDTH) * sizeof(float) < g->data.len);
    memcpy(want, g->data.data + at * sizeof(float), sizeof(want));
    for (int i = 0; i < WIDTH; i++) {
        min = fminf(min, want[i]);
        max = fmaxf(max, want[i]);
    }
    for (int i = 0; i < WIDTH; i++)
        assert_float_equal(got[i], want[i], g->bound * (double)(max - min));
}

static void vectors_are_the_golden_ones(void **state)
{
    struct buf body = {0};
    struct golden g;
    const cJSON *item;
    cJSON *json, *usage;
    int n_tokens = 0, i = 0;
    float got[WIDTH];

    golden_open(&g);
    buf_puts(&body, "{\"input\":[");
    cJSON_ArrayForEach(item, golden_items(&g))
    {
        const cJSON *ids = cJSON_GetObjectItem(item, "prompt_ids");
        char *text = cJSON_PrintUnformatted(ids);

        buf_printf(&body, "%s%s", n_tokens ? "," : "", text);
        n_tokens += cJSON_GetArraySize(ids);
        free(text);
    }
    buf_puts(&body, "]}");
    json = ask_json("/v1/embeddings", body.data, 200);
    assert_string_equal(cJSON_GetObjectItem(json, "object")->valuestring, "list");
    assert_non_null(cJSON_GetObjectItem(json, "model"));
    usage = cJSON_GetObjectItem(json, "usage");
    assert_int_equal(cJSON_GetObjectItem(usage, "prompt_tokens")->valueint, n_tokens);
    assert_int_equal(cJSON_GetObjectItem(usage, "total_tokens")->valueint, n_tokens);
    assert_int_equal(cJSON_GetArraySize(cJSON_GetObjectItem(json, "data")), 3);
    cJSON_ArrayForEach(item, golden_items(&g))
    {
        vector_of(json, i++, got, WIDTH);
        assert_golden(&g, item, got);
    }
    cJSON_Delete(json);
    buf_free(&body);
    golden_close(&g);
}

/* ---- the rest of the contract ---- */

static void text_begins_and_ends_as_the_file_says(void **state)
{
    cJSON *ids = ask_json("/tokenize", "{\"content\":\"a dog\",\"add_special\":true}", 200);
    char *list = cJSON_PrintUnformatted(cJSON_GetObjectItem(ids, "tokens")), body[512];
    cJSON *from_text = ask_json("/v1/embeddings", "{\"input\":\"a dog\",\"user\":\"me\"}", 200);
    cJSON *from_ids;
    float a[WIDTH], b[WIDTH];

    snprintf(body, sizeof(body), "{\"input\":%s}", list);
    from_ids = ask_json("/v1/embeddings", body, 200);
    vector_of(from_text, 0, a, WIDTH);
    vector_of(from_ids, 0, b, WIDTH);
    assert_memory_equal(a, b, sizeof(a));
    free(list);
    cJSON_Delete(ids);
    cJSON_Delete(from_text);
    cJSON_Delete(from_ids);
}

/* More inputs than the queue holds, more than one run takes, the same ones again and again. */
static void strangers_do_not_change_a_vector(void **state)
{
    enum { MANY = 200, KINDS = 9 };
    struct buf body = {0};
    float alone[KINDS][WIDTH], got[WIDTH];
    cJSON *json;

    for (int i = 0; i < KINDS; i++) {
        char one[64];

        snprintf(one, sizeof(one), "{\"input\":\"%.*s\"}", 1 + 3 * i, "a cat sat on the red mat.");
        json = ask_json("/v1/embeddings", one, 200);
        vector_of(json, 0, alone[i], WIDTH);
        cJSON_Delete(json);
    }
    buf_puts(&body, "{\"input\":[");
    for (int i = 0; i < MANY; i++)
        buf_printf(
            &body, "%s\"%.*s\"", i ? "," : "", 1 + 3 * (i % KINDS), "a cat sat on the red mat.");
    buf_puts(&body, "]}");
    json = ask_json("/v1/embeddings", body.data, 200);
    for (int i = 0; i < MANY; i++) {
        vector_of(json, i, got, WIDTH);
        assert_memory_equal(got, alone[i % KINDS], sizeof(got));
    }
    cJSON_Delete(json);
    buf_free(&body);
}

static int sextet(char c)
{
    const char *digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = strchr(digits, c);

    assert_true(c && at);
    return (int)(at - digits);
}

static void base64_holds_the_same_floats(void **state)
{
    cJSON *floats = ask_json("/v1/embeddings", "{\"input\":\"a dog\"}", 200);
    cJSON *coded =
        ask_json("/v1/embeddings", "{\"input\":\"a dog\",\"encoding_format\":\"base64\"}", 200);
    const char *text =
        cJSON_GetObjectItem(cJSON_GetArrayItem(cJSON_GetObjectItem(coded, "data"), 0), "embedding")
            ->valuestring;
    unsigned char bytes[4 * WIDTH + 2];
    float want[WIDTH];

    assert_int_equal(strlen(text), (4 * WIDTH + 2) / 3 * 4);
    for (int i = 0, at = 0; at < 4 * WIDTH; i += 4) {
        unsigned v = 0;

        for (int k = 0; k < 4; k++)
            v = v << 6 | (unsigned)(text[i + k] == '=' ? 0 : sextet(text[i + k]));
        for (int k = 16; k >= 0; k -= 8)
            bytes[at++] = (unsigned char)(v >> k);
    }
    vector_of(floats, 0, want, WIDTH);
    assert_memory_equal(bytes, want, sizeof(want)); /* this machine is little-endian too */
    cJSON_Delete(floats);
    cJSON_Delete(coded);
}

static void fewer_dimensions_begin_the_same(void **state)
{
    cJSON *json = ask_json("/v1/embeddings", "{\"input\":\"a dog\"}", 200);
    float whole[WIDTH], cut[WIDTH];

    vector_of(json, 0, whole, WIDTH);
    cJSON_Delete(json);
    for (int n = 1; n <= WIDTH; n *= 4) {
        double sum = 0, length = 0;
        char body[64];

        snprintf(body, sizeof(body), "{\"input\":\"a dog\",\"dimensions\":%d}", n);
        json = ask_json("/v1/embeddings", body, 200);
        vector_of(json, 0, cut, n);
        for (int i = 0; i < n; i++) {
            sum += (double)cut[i] * (double)cut[i];
            length += (double)whole[i] * (double)whole[i];
        }
        assert_float_equal(sum, 1, 1e-5);
        for (int i = 0; i < n; i++)
            assert_float_equal(cut[i], whole[i] / sqrt(length), 1e-6);
        cJSON_Delete(json);
    }
}

static void what_it_cannot_do_it_says(void **state)
{
    struct buf body = {0};

    expect_error("/v1/embeddings", "{\"input\":\"\"}", "input", "must not be empty");
    expect_error("/v1/embeddings", "{\"input\":\"x\",\"dimensions\":65}", "dimensions", "1..64");
    expect_error("/v1/embeddings", "{\"input\":[512]}", "input[0]", "a token id in 0..511");
    expect_error("/v1/chat/completions", "{\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}",
        "model", "generates no text");
    expect_error("/v1/completions", "{\"prompt\":\"hi\"}", "model", "generates no text");
    buf_puts(&body, "{\"input\":\"");
    for (int i = 0; i < 20000; i++)
        buf_puts(&body, "7 \\u00e9");
    buf_puts(&body, "\"}");
    expect_error("/v1/embeddings", body.data, "prompt", "more than the context of");
    buf_free(&body);
}

static void what_is_ignored_is_named_and_counted(void **state)
{
    double before = metric(&d, "gemmad_prompt_tokens_total");
    struct answer a;

    ask_post(&d, &a, "/v1/embeddings", "{\"input\":[5,6,7],\"zeta\":1}");
    assert_int_equal(a.status, 200);
    assert_string_equal(answer_header(&a, "X-Ignored-Params"), "zeta");
    assert_string_equal(answer_header(&a, "Content-Type"), "application/json");
    answer_free(&a);
    wait_metric(&d, "gemmad_prompt_tokens_total", before + 3);
    wait_metric(&d, "gemmad_requests_running", 0);
}

static void a_client_that_leaves_is_forgotten(void **state)
{
    struct buf body = {0};
    struct answer a;
    int fd = dial(&d);

    buf_puts(&body, "{\"input\":[\"x\"");
    for (int i = 0; i < 2000; i++)
        buf_puts(&body, ",\"some text of no use\"");
    buf_puts(&body, "]}");
    post(fd, "/v1/embeddings", body.data);
    sleep_ms(5);
    hang_up_hard(fd);
    buf_free(&body);
    wait_metric(&d, "gemmad_http_requests_in_flight", 0); /* not still becoming jobs */
    wait_metric(&d, "gemmad_requests_running", 0);
    wait_metric(&d, "gemmad_requests_waiting", 0);
    ask_post(&d, &a, "/v1/embeddings", "{\"input\":\"x\"}");
    assert_int_equal(a.status, 200);
    answer_free(&a);
}

static void a_generating_model_says_so(void **state)
{
    struct daemon embeds = d;

    start_with("--model=" DEMO_MODEL, "--log_level=info");
    expect_error("/v1/embeddings", "{\"input\":\"x\"}", "model", "makes no embeddings");
    assert_int_equal(daemon_stop(&d, SIGTERM), 0);
    d = embeds;
}

/* ---- gemmad embed ---- */

/* Runs gemmad under the shell; before: what comes before it in the pipe. */
static int run(const char *before, const char *args, char *out, size_t cap)
{
    char command[1024];
    size_t n;
    FILE *p;
    int r;

    snprintf(command, sizeof(command), "%s " GEMMAD " %s 2>&1", before, args);
    p = popen(command, "r");
    assert_non_null(p);
    n = fread(out, 1, cap - 1, p);
    out[n] = 0;
    r = pclose(p);
    return WIFEXITED(r) ? WEXITSTATUS(r) : -1;
}

#define MODEL "--model=" GOLDEN_DIR "/model-bf16.gguf "

/* The lines must hold the server's vectors of "a dog" and "-x". */
static void assert_lines(const char *out, int dimensions)
{
    char body[96];
    const char *line = out;
    cJSON *json;

    snprintf(body, sizeof(body), "{\"input\":[\"a dog\",\"-x\"],\"dimensions\":%d}", dimensions);
    json = ask_json("/v1/embeddings", body, 200);
    for (int i = 0; i < 2; i++) {
        const char *end = strchr(line, '\n');
        cJSON *array = cJSON_ParseWithLength(line, end ? (size_t)(end - line) : 0);
        float got[WIDTH], want[WIDTH];

        assert_non_null(array);
        floats_of(array, got, dimensions);
        vector_of(json, i, want, dimensions);
        assert_memory_equal(got, want, (size_t)dimensions * sizeof(float));
        cJSON_Delete(array);
        line = end + 1;
    }
    assert_string_equal(line, "");
    cJSON_Delete(json);
}

static void the_command_prints_the_same_vectors(void **state)
{
    static char out[65536];
    int lines, words;

    assert_int_equal(
        run("", "embed " MODEL "--profile=reference 'a dog' -- -x", out, sizeof(out)), 0);
    assert_lines(out, WIDTH);
    assert_int_equal(run("printf 'a dog\\r\\n-x' |",
                         "embed " MODEL "--profile=reference --dimensions 16", out, sizeof(out)),
        0);
    assert_lines(out, 16);
    assert_int_equal(run("", "embed " MODEL "</dev/null", out, sizeof(out)), 0);
    assert_string_equal(out, "");
    /* more than the window, in order: every seven lines are the first seven */
    assert_int_equal(run("for i in $(seq 700); do echo $((i % 7)); done |",
                         "embed " MODEL "--dimensions 3 | paste - - - - - - - | uniq | wc -lw", out,
                         sizeof(out)),
        0);
    assert_int_equal(sscanf(out, "%d %d", &lines, &words), 2);
    assert_int_equal(lines, 1);
    assert_int_equal(words, 7);
}

static void the_command_ends_as_all_do(void **state)
{
    static char out[65536];

    assert_int_equal(run("", "embed --help", out, sizeof(out)), 0);
    assert_non_null(strstr(out, "usage: gemmad embed"));
    assert_non_null(strstr(out, "Exit codes"));
    assert_int_equal(run("printf 'a\\n\\nb\\n' |", "embed " MODEL, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "line 2: must not be empty"));
    assert_int_equal(run("", "embed " MODEL "--dimensions 65 x", out, sizeof(out)), 2);
    assert_non_null(strstr(out, "have 64"));
    assert_int_equal(run("", "embed " MODEL "--dimensions 0 x", out, sizeof(out)), 2);
    assert_int_equal(run("", "embed " MODEL "--zeta x", out, sizeof(out)), 2);
    assert_int_equal(run("", "embed --model=" DEMO_MODEL " x", out, sizeof(out)), 2);
    assert_non_null(strstr(out, "makes no embeddings"));
    assert_int_equal(run("", "embed " MODEL "x \"$(seq 9000)\"", out, sizeof(out)), 2);
    assert_non_null(strstr(out, "text 2: the prompt has"));
    assert_int_equal(run("", "generate " MODEL "--prompt x", out, sizeof(out)), 2);
    assert_non_null(strstr(out, "generates no text"));
    assert_int_equal(run("", "graph --mode decode " GOLDEN_DIR, out, sizeof(out)), 2);
    assert_non_null(strstr(out, "no decode graph"));
    assert_int_equal(run("", "bench --repeat 1 --prompt 9 " GOLDEN_DIR, out, sizeof(out)), 0);
    assert_null(strstr(out, "decode"));
    assert_int_equal(run("", "bench --prompt 100000 " GOLDEN_DIR, out, sizeof(out)), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_the_golden_ones),
        cmocka_unit_test(text_begins_and_ends_as_the_file_says),
        cmocka_unit_test(strangers_do_not_change_a_vector),
        cmocka_unit_test(base64_holds_the_same_floats),
        cmocka_unit_test(fewer_dimensions_begin_the_same),
        cmocka_unit_test(what_it_cannot_do_it_says),
        cmocka_unit_test(what_is_ignored_is_named_and_counted),
        cmocka_unit_test(a_client_that_leaves_is_forgotten),
        cmocka_unit_test(a_generating_model_says_so),
        cmocka_unit_test(the_command_prints_the_same_vectors),
        cmocka_unit_test(the_command_ends_as_all_do),
    };

    return cmocka_run_group_tests(tests, start, stop);
}
