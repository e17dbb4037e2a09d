/* test_rope.c - rotation through the public header: tables built once hold the bits that runs
 * compute, end where they were told to, and follow the model's frequencies and factors. */
#include <math.h>
#include <unistd.h>

#include "contract.h"

enum { N_IDS = 40, ROOM = 64 };

/* One table and two, divisors of the frequencies, heads of two sizes, shared K and V. */
static const char *const families[] = {"gemma1/model-bf16.gguf", "gemma3/model-q8_0.gguf",
    "gemma3-mm/model-bf16.gguf", "gemma3n/model-bf16.gguf", "gemma4-e2b/model-bf16.gguf",
    "gemma4-dense"};
enum { N_FAMILIES = sizeof(families) / sizeof(families[0]) };

/* Logits of a prefill, its K and V, and of one more token decoded after it. */
struct answer {
    float logits[N_IDS * VOCAB], next[VOCAB];
};

static void ask(struct answer *a, struct flow_model *m, int rope_positions,
    const struct flow_profile *p, bool dynamic)
{
    struct tensors kv;
    int32_t ids[N_IDS + 1];
    struct flow_options o;
    struct graph *g;

    fill_ids(ids, N_IDS + 1, 3);
    tensors_init(&kv, m, N_IDS);
    flow_prefill_options(&o, 1, N_IDS);
    o.dynamic_seq = dynamic;
    o.output = FLOW_LOGITS;
    o.export_kv = true;
    o.rope_positions = rope_positions;
    g = build(m, &o, p);
    assert_int_equal(says(g, "rope: "), rope_positions > 0);
    exec(g, &(struct graph_io){
                .input_ids = ids, .seq = N_IDS, .output = a->logits, .new_k = kv.k, .new_v = kv.v});
    graph_destroy(g);
    flow_decode_options(&o, 1, dynamic ? 0 : N_IDS);
    o.dynamic_past = dynamic;
    o.rope_positions = rope_positions;
    g = build(m, &o, p);
    exec(g, &(struct graph_io){.input_ids = ids + N_IDS,
                .past = N_IDS,
                .past_k = (const float *const *)kv.k,
                .past_v = (const float *const *)kv.v,
                .output = a->next});
    graph_destroy(g);
    tensors_free(&kv);
}

static void tables_change_no_bit(void **state)
{
    static struct answer want, got;
    struct flow_profile p[2];

    flow_profile_reference(&p[0]);
    flow_profile_default(&p[1]);
    for (int f = 0; f < N_FAMILIES; f++)
        for (int profile = 0; profile < 2; profile++)
            for (int threads = 1; threads <= 3; threads += 2) {
                struct flow_model *m = open_family(families[f], threads);

                ask(&want, m, 0, &p[profile], false);
                for (int dynamic = 0; dynamic < 2; dynamic++) {
                    ask(&got, m, ROOM, &p[profile], dynamic);
                    if (!same_bits(want.logits, got.logits, N_IDS * VOCAB) ||
                        !same_bits(want.next, got.next, VOCAB))
                        fail_msg("%s: another answer with rope tables", families[f]);
                }
                flow_model_close(m);
            }
}

static struct graph *with_tables(struct flow_model *m, int rope_positions)
{
    struct flow_options o;

    flow_prefill_options(&o, 1, ROOM);
    o.dynamic_seq = true;
    o.rope_positions = rope_positions;
    return build(m, &o, NULL);
}

/* What config.json of the family says; n_turning pairs turn, the others stand still. */
struct frequencies {
    const char *family;
    int table, n_pairs, n_turning;
    double base, factor;
};

static void check_frequencies(const struct frequencies *want)
{
    struct flow_model *m = open_family(want->family, 2);
    struct graph *g = with_tables(m, ROOM);
    struct graph_rope r;
    float c[64], s[64];

    assert_true(graph_rope(g, want->table, &r));
    assert_int_equal(r.n_pairs, want->n_pairs);
    assert_int_equal(r.n_positions, ROOM);
    for (int i = 0; i < r.n_pairs; i++) {
        double inv =
            i < want->n_turning ? 1 / pow(want->base, (double)i / want->n_pairs) / want->factor : 0;

        if (!(fabs((double)r.inv_freq[i] - inv) <= 2e-7 * inv + 1e-29))
            fail_msg(
                "%s: pair %d turns by %g, want %g", want->family, i, (double)r.inv_freq[i], inv);
    }
    for (int p = 0; p < ROOM; p++) {
        const float *cos_row = r.cos + (size_t)p * (size_t)r.n_pairs,
                    *sin_row = r.sin + (size_t)p * (size_t)r.n_pairs;

        flow_rope_rows(r.inv_freq, r.n_pairs, p, 1, c, s);
        assert_memory_equal(cos_row, c, (size_t)r.n_pairs * sizeof(*c));
        assert_memory_equal(sin_row, s, (size_t)r.n_pairs * sizeof(*s));
        for (int i = 0; i < r.n_pairs; i++) {
            double angle = (double)((float)p * r.inv_freq[i]);

            assert_true(fabs(cos(angle) - (double)c[i]) < 1e-6);
            assert_true(fabs(sin(angle) - (double)s[i]) < 1e-6);
        }
    }
    graph_destroy(g);
    flow_model_close(m);
}

static void tables_follow_the_models_frequencies(void **state)
{
    static const struct frequencies all[] = {
        {"gemma1/model-bf16.gguf", 0, 16, 16, 1e4, 1},
        {"gemma3/model-bf16.gguf", 0, 16, 16, 1e6, 1},
        {"gemma3/model-bf16.gguf", 1, 16, 16, 1e4, 1},
        {"gemma3-mm/model-bf16.gguf", 0, 16, 16, 1e6, 8}, /* linear scaling */
        {"gemma3-mm/model-bf16.gguf", 1, 16, 16, 1e4, 1},
        {"gemma4-e2b/model-bf16.gguf", 0, 32, 8, 1e6, 1}, /* a quarter turns: rope_freqs.weight */
        {"gemma4-e2b/model-bf16.gguf", 1, 16, 16, 1e4, 1},
        {"gemma4-e2b", 0, 32, 8, 1e6, 1}, /* partial_rotary_factor of config.json */
        {"gemma4-e2b", 1, 16, 16, 1e4, 1},
    };

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        check_frequencies(&all[i]);
}

static void a_model_has_as_many_tables_as_it_says(void **state)
{
    for (int f = 0; f < N_FAMILIES; f++) {
        struct flow_model *m = open_family(families[f], 1);
        struct graph *g = with_tables(m, 0);
        struct flow_model_size size;
        struct graph_rope r;

        flow_model_size(m, &size);
        assert_int_equal(size.n_rope_tables, f == 0 ? 1 : 2);
        for (int t = 0; t < size.n_rope_tables; t++) {
            assert_true(graph_rope(g, t, &r));
            assert_true(r.inv_freq && !r.cos && !r.sin && r.n_positions == 0);
        }
        assert_false(graph_rope(g, -1, &r));
        assert_false(graph_rope(g, size.n_rope_tables, &r));
        graph_destroy(g);
        flow_model_close(m);
    }
}

static void refused(struct graph *g, const struct graph_io *io, const char *param, const char *part)
{
    struct err err = {0};

    assert_int_equal(graph_exec(g, io, &err), GD_EINVAL);
    assert_string_equal(err.param, param);
    if (!strstr(err.msg, part))
        fail_msg("\"%s\" does not say \"%s\"", err.msg, part);
}

static void a_position_beyond_the_tables_is_refused(void **state)
{
    struct flow_model *m = open_family("gemma3/model-bf16.gguf", 2);
    struct graph *prefill = with_tables(m, 9), *decode;
    struct tensors past;
    struct flow_options o;
    struct graph_rope r[2];
    float logits[VOCAB], want[VOCAB], rows[4][16];
    int32_t ids[ROOM];
    struct graph_io io = {.input_ids = ids, .seq = 9, .last_index = 8, .output = logits};

    fill_ids(ids, ROOM, 3);
    exec(prefill, &io);
    io.seq = 10;
    refused(prefill, &io, "rope_positions", "position 9 lies beyond");
    tensors_init(&past, m, 9);
    flow_decode_options(&o, 1, 0);
    o.dynamic_past = true;
    o.rope_positions = 9;
    decode = build(m, &o, NULL);
    io = (struct graph_io){.input_ids = ids,
        .past = 8,
        .past_k = (const float *const *)past.k,
        .past_v = (const float *const *)past.v,
        .output = logits};
    exec(decode, &io);
    io.past = 9;
    refused(decode, &io, "rope_positions", "position 9 lies beyond");
    io.positions = &(int){8}; /* the token's position counts, not how many there were */
    exec(decode, &io);
    io.positions = &(int){9};
    refused(decode, &io, "rope_positions", "position 9 lies beyond");
    io.positions = NULL; /* rows that are inputs need no table */
    io.rope_cos = (const float *const[]){rows[0], rows[1]};
    io.rope_sin = (const float *const[]){rows[2], rows[3]};
    for (int t = 0; t < 2; t++) {
        assert_true(graph_rope(decode, t, &r[t]));
        flow_rope_rows(r[t].inv_freq, r[t].n_pairs, 9, 1, rows[t], rows[2 + t]);
    }
    exec(decode, &io);
    graph_destroy(decode);
    o.rope_positions = 0;
    decode = build(m, &o, NULL);
    io.rope_cos = io.rope_sin = NULL;
    io.output = want;
    exec(decode, &io);
    assert_memory_equal(logits, want, sizeof(want));
    tensors_free(&past);
    graph_destroy(decode);
    graph_destroy(prefill);
    flow_model_close(m);
}

static void option_refused(
    struct flow_model *m, const struct flow_options *o, int code, const char *param)
{
    struct flow_profile p;
    struct graph *g;
    struct err err = {0};

    flow_profile_reference(&p);
    assert_int_equal(try_build(&g, m, o, &p, &err), code);
    assert_string_equal(err.param, param);
}

/* The file with another context_length, in a new temporary file that the caller removes. */
static void with_context(const char *file, const char *key, uint32_t context, char path[64])
{
    FILE *in = fopen(family_path(file), "rb"), *out;
    size_t len, n = strlen(key);
    char *bytes = malloc(4u << 20), *at = NULL;

    assert_true(in && bytes);
    len = fread(bytes, 1, 4u << 20, in);
    fclose(in);
    for (size_t i = 0; i + n + 8 < len && !at; i++)
        if (memcmp(bytes + i, key, n) == 0)
            at = bytes + i + n + sizeof(uint32_t); /* behind the value's type */
    assert_non_null(at);
    memcpy(at, &context, sizeof(context));
    snprintf(path, 64, "/tmp/gemmad-context-XXXXXX");
    out = fdopen(mkstemp(path), "wb");
    assert_true(out && fwrite(bytes, 1, len, out) == len);
    fclose(out);
    free(bytes);
}

static void sizes_that_cannot_be_are_refused(void **state)
{
    struct flow_model *m = open_family("gemma3/model-bf16.gguf", 1);
    struct flow_model_size size;
    struct flow_options o;
    char path[64];
    struct err err;

    flow_model_size(m, &size);
    assert_int_equal(size.context, 4096);
    flow_prefill_options(&o, 1, 16);
    o.rope_positions = -1;
    option_refused(m, &o, GD_EINVAL, "rope_positions");
    o.rope_positions = size.context + 1;
    option_refused(m, &o, GD_EINVAL, "rope_positions");
    o.rope_positions = 15; /* this graph could never run */
    option_refused(m, &o, GD_EINVAL, "rope_positions");
    o.rope_positions = 16;
    graph_destroy(build(m, &o, NULL));
    flow_model_close(m);

    /* two tables of 16 pairs: 256 bytes a position */
    with_context("gemma3/model-bf16.gguf", "gemma3.context_length", 1 << 24, path);
    assert_int_equal(flow_model_open(&m, path, 1, &err), 0);
    unlink(path);
    o.rope_positions = FLOW_MAX_ROPE_BYTES / 256 + 1;
    option_refused(m, &o, GD_ETOOBIG, "rope_positions");
    flow_model_close(m);
}

/* A fixed decode graph computes its row in the first run and keeps it, whatever other runs bring.
 */
static void a_fixed_decode_graph_keeps_its_row(void **state)
{
    for (int rope_positions = 0; rope_positions <= ROOM; rope_positions += ROOM) {
        struct flow_model *m = open_family("gemma4-e2b/model-bf16.gguf", 2);
        float want[VOCAB], got[VOCAB], still[32];
        const float *ones[] = {still, still};
        struct tensors past;
        struct flow_options o;
        struct graph *g;
        int32_t id = 5;
        struct graph_io io = {.input_ids = &id, .output = want};

        tensors_init(&past, m, 20);
        for (int i = 0; i < 6; i++) /* all alike would hide a rotation */
            for (size_t j = 0; j < head_floats(m, i) * 20; j++)
                past.k[i][j] = past.v[i][j] = (float)(j * 7 % 11) - 5;
        for (int i = 0; i < 32; i++)
            still[i] = 1;
        io.past_k = (const float *const *)past.k;
        io.past_v = (const float *const *)past.v;
        flow_decode_options(&o, 1, 20);
        o.rope_positions = rope_positions;
        g = build(m, &o, NULL);
        exec(g, &io);
        io.output = got;
        exec(g, &io); /* with the row of the first run */
        assert_memory_equal(want, got, sizeof(want));
        io.positions = &(int){3};
        exec(g, &io);
        assert_memory_not_equal(want, got, sizeof(want));
        io.positions = NULL;
        exec(g, &io);
        assert_memory_equal(want, got, sizeof(want));
        io.rope_cos = io.rope_sin = ones;
        exec(g, &io);
        assert_memory_not_equal(want, got, sizeof(want));
        io.rope_cos = io.rope_sin = NULL;
        exec(g, &io);
        assert_memory_equal(want, got, sizeof(want));
        tensors_free(&past);
        graph_destroy(g);
        flow_model_close(m);
    }
}

/* One row per sequence and table for a batch whose tokens stand at positions of their own. */
static void rows_may_be_inputs(void **state)
{
    enum { BATCH = 3, PAST = 20 };
    static const int positions[BATCH] = {31, 20, 4000};
    struct flow_model *m = open_family("gemma4-e2b/model-bf16.gguf", 2);
    float want[BATCH * VOCAB], got[BATCH * VOCAB], rows[4][BATCH * 32];
    struct tensors past;
    struct flow_options o;
    struct graph *g;
    int32_t ids[BATCH];
    struct graph_io io = {.input_ids = ids, .past = PAST, .output = want};

    fill_ids(ids, BATCH, 8);
    tensors_init(&past, m, BATCH * PAST);
    for (int i = 0; i < 6; i++)
        for (size_t j = 0; j < head_floats(m, i) * BATCH * PAST; j++)
            past.k[i][j] = past.v[i][j] = (float)(j * 7 % 11) - 5;
    io.past_k = (const float *const *)past.k;
    io.past_v = (const float *const *)past.v;
    flow_decode_options(&o, BATCH, 0);
    o.dynamic_past = true;
    g = build(m, &o, NULL);
    io.positions = positions;
    exec(g, &io);
    io.positions = NULL;
    io.output = got;
    exec(g, &io);
    assert_false(same_bits(want, got, BATCH * VOCAB));
    io.rope_cos = (const float *const[]){rows[0], rows[1]};
    io.rope_sin = (const float *const[]){rows[2], rows[3]};
    for (int t = 0; t < 2; t++)
        for (int s = 0; s < BATCH; s++) {
            struct graph_rope r;

            assert_true(graph_rope(g, t, &r));
            flow_rope_rows(r.inv_freq, r.n_pairs, positions[s], 1, rows[t] + s * r.n_pairs,
                rows[2 + t] + s * r.n_pairs);
        }
    exec(g, &io);
    assert_true(same_bits(want, got, BATCH * VOCAB));
    rows[1][17] = -rows[1][17]; /* of the second sequence's local table */
    exec(g, &io);
    assert_true(same_bits(want, got, VOCAB));
    assert_false(same_bits(want + VOCAB, got + VOCAB, VOCAB));
    assert_true(same_bits(want + 2 * VOCAB, got + 2 * VOCAB, VOCAB));
    tensors_free(&past);
    graph_destroy(g);
    flow_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tables_change_no_bit),
        cmocka_unit_test(tables_follow_the_models_frequencies),
        cmocka_unit_test(a_model_has_as_many_tables_as_it_says),
        cmocka_unit_test(a_position_beyond_the_tables_is_refused),
        cmocka_unit_test(sizes_that_cannot_be_are_refused),
        cmocka_unit_test(rows_may_be_inputs),
        cmocka_unit_test(a_fixed_decode_graph_keeps_its_row),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
