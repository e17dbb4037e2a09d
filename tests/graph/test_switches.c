/* test_switches.c - sizes, shorthands and compile profiles through the public header: what each
 * default is, and that every switch does something to the numbers or the steps of a graph. */
#include <math.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "contract.h"

enum { N_IDS = 16 };

static const char dense[] = "gemma3/model-q8_0.gguf", mixed[] = "mixed/model-mixed.gguf",
                  capped[] = "gemma2/model-f16.gguf";

static void defaults_are_what_the_header_says(void **state)
{
    struct flow_options o;

    flow_options_default(&o);
    assert_int_equal(o.mode, FLOW_PREFILL);
    assert_int_equal(o.batch, 1);
    assert_int_equal(o.seq, 128);
    assert_int_equal(o.past_seq, 0);
    assert_int_equal(o.output, FLOW_LAST_LOGITS);
    assert_false(o.dynamic_seq || o.dynamic_past || o.export_kv || o.custom_mask || o.taps);
    assert_int_equal(o.effective_num_layers, 0);
    assert_int_equal(o.rope_positions, 0);
    assert_true(!o.windows && !o.hooks && !o.target);
    flow_prefill_options(&o, 3, 40);
    assert_true(o.mode == FLOW_PREFILL && o.batch == 3 && o.seq == 40 && o.past_seq == 0);
    flow_decode_options(&o, 4, 50);
    assert_true(o.mode == FLOW_DECODE && o.batch == 4 && o.seq == 1 && o.past_seq == 50);
    assert_int_equal(o.output, FLOW_LAST_LOGITS); /* the head is on */
}

static void modes_refuse_each_others_options(void **state)
{
    static const struct {
        struct flow_options o;
        const char *param;
    } bad[] = {
        {{.mode = FLOW_DECODE, .batch = 1, .seq = 1, .dynamic_seq = true}, "dynamic_seq"},
        {{.mode = FLOW_DECODE, .batch = 1, .seq = 2}, "seq"},
        {{.mode = FLOW_DECODE, .batch = 1, .seq = 1, .past_seq = -1}, "past_seq"},
        {{.mode = FLOW_DECODE, .batch = 1, .seq = 1, .past_seq = 1 << 30}, "past_seq"},
        {{.mode = FLOW_PREFILL, .batch = 1, .seq = 8, .dynamic_past = true}, "dynamic_past"},
        {{.mode = FLOW_PREFILL, .batch = 1, .seq = 8, .past_seq = 1}, "past_seq"},
        {{.mode = FLOW_PREFILL, .batch = 1, .seq = 8, .custom_mask = true}, "custom_mask"},
        {{.mode = FLOW_PREFILL, .batch = 2, .seq = 8, .dynamic_seq = true}, "batch"},
        {{.mode = FLOW_PREFILL, .batch = 0, .seq = 8}, "batch"},
        {{.mode = FLOW_PREFILL, .batch = 1 << 20, .seq = 1 << 20}, "batch"},
        {{.mode = FLOW_PREFILL, .batch = 8, .seq = 1 << 30}, "seq"},
        {{.mode = FLOW_PREFILL, .batch = 1, .seq = 8, .effective_num_layers = 8},
            "effective_num_layers"},
        {{.mode = FLOW_PREFILL, .batch = 1, .seq = 8, .effective_num_layers = -1},
            "effective_num_layers"},
    };
    struct flow_model *m = open_family(dense, 1);
    struct flow_profile p;
    struct graph *g;

    flow_profile_default(&p);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct err err;

        assert_int_equal(try_build(&g, m, &bad[i].o, &p, &err), GD_EINVAL);
        assert_string_equal(err.param, bad[i].param);
        assert_non_null(strstr(err.msg, bad[i].param));
    }
    flow_model_close(m);
}

/* ---- profiles ---- */

/* Logits of a prefill's last token, and its text. K and V of the model go to kv when not NULL. */
static struct graph *run(struct flow_model *m, enum flow_mode mode, const struct flow_profile *p,
    float *logits, struct tensors *kv)
{
    struct flow_options o;
    struct graph *g;
    int32_t ids[N_IDS];

    fill_ids(ids, N_IDS, 4);
    if (mode == FLOW_PREFILL)
        flow_prefill_options(&o, 1, N_IDS);
    else
        flow_decode_options(&o, 1, 0);
    o.export_kv = mode == FLOW_PREFILL;
    g = build(m, &o, p);
    exec(g, &(struct graph_io){.input_ids = ids,
                .output = logits,
                .new_k = kv ? kv->k : NULL,
                .new_v = kv ? kv->v : NULL});
    return g;
}

static void precision_changes_steps_and_numbers(void **state)
{
    struct flow_model *m = open_family(dense, 2);

    static const char *const inputs[] = {
        [FLOW_DEFAULT] = "Q8_0*q8/", [FLOW_PRECISE] = "Q8_0*q16/", [FLOW_REFERENCE] = "Q8_0*f32/"};

    for (int mode = 0; mode < 2; mode++) {
        float logits[3][VOCAB];

        for (int i = 0; i < 3; i++) {
            struct flow_profile p;
            struct graph *g;

            flow_profile_default(&p);
            p.kv = FLOW_KV_F32;
            p.precision = (enum flow_precision)i;
            g = run(m, (enum flow_mode)mode, &p, logits[i], NULL);
            for (int j = 0; j < 3; j++)
                assert_int_equal(says(g, inputs[j]) > 0, i == j);
            graph_destroy(g);
        }
        assert_memory_not_equal(logits[0], logits[1], sizeof(logits[0]));
        assert_memory_not_equal(logits[1], logits[2], sizeof(logits[1]));
    }
    flow_model_close(m);
}

/* K and V of bf16 pages have 16 bits of mantissa and exponent. */
static void page_type_shows_in_k_and_v(void **state)
{
    struct flow_model *m = open_family(dense, 2);

    for (int type = 0; type < 2; type++) {
        struct flow_profile p;
        struct tensors kv;
        float logits[VOCAB];
        size_t n = head_floats(m, 1) * N_IDS, rounded = 0;

        tensors_init(&kv, m, N_IDS);
        flow_profile_default(&p);
        p.kv = type == 0 ? FLOW_KV_F32 : FLOW_KV_BF16;
        graph_destroy(run(m, FLOW_PREFILL, &p, logits, &kv));
        for (size_t i = 0; i < n; i++) {
            uint32_t bits;

            memcpy(&bits, &kv.v[1][i], sizeof(bits));
            rounded += (bits & 0xffff) == 0;
        }
        assert_true(type == 0 ? rounded < n / 8 : rounded == n);
        tensors_free(&kv);
    }
    flow_model_close(m);
}

/* Each mode has a profile of its own; an override is for one type and leaves the others. */
static void backends_are_per_phase_and_type(void **state)
{
    struct flow_model *m = open_family(mixed, 2);

    for (int mode = 0; mode < 2; mode++) {
        float native[VOCAB], blas[VOCAB];
        struct flow_profile p;
        struct graph *g;
        int all;

        flow_profile_default(&p);
        p.matmul = BACKEND_NATIVE;
        g = run(m, (enum flow_mode)mode, &p, native, NULL);
        all = says(g, "/native");
        assert_true(all > 10 && says(g, "/blas") == 0);
        graph_destroy(g);
        p.override[12] = BACKEND_BLAS; /* Q4_K */
        g = run(m, (enum flow_mode)mode, &p, blas, NULL);
        assert_int_equal(says(g, "Q4_K*f32/blas"), says(g, "Q4_K*"));
        assert_true(says(g, "Q4_K*") > 0);
        assert_int_equal(says(g, "/blas"), says(g, "Q4_K*"));
        assert_int_equal(says(g, "/native"), all - says(g, "Q4_K*"));
        graph_destroy(g);
        assert_memory_not_equal(native, blas, sizeof(native));
        p.override[12] = -1;
        p.matmul = BACKEND_BLAS;
        g = run(m, (enum flow_mode)mode, &p, blas, NULL);
        assert_int_equal(says(g, "/blas"), all);
        graph_destroy(g);
    }
    flow_model_close(m);
}

/* Fusions and passes move operations between steps and never change a bit. */
static void fusion_and_passes_change_steps_only(void **state)
{
    struct flow_model *m = open_family(dense, 2);

    for (int mode = 0; mode < 2; mode++) {
        struct flow_profile d, p[8];
        float want[VOCAB], got[VOCAB];
        struct graph *g;
        int fused, n = 0;

        flow_profile_default(&d);
        g = run(m, (enum flow_mode)mode, &d, want, NULL);
        fused = says(g, "\n");
        graph_destroy(g);
        for (unsigned bit = 1; bit <= FUSE_RESIDUAL; bit *= 2) {
            p[n] = d;
            p[n++].skip = bit;
        }
        p[n] = d;
        p[n++].target = FUSE_ATTENTION;
        p[n] = d;
        p[n++].policy = FUSION_DIRECT;
        p[n] = d;
        p[n].skip = FUSE_EPILOGUE;
        p[n++].constant_folding = false;
        for (int i = 0; i < n; i++) {
            g = run(m, (enum flow_mode)mode, &p[i], got, NULL);
            assert_true(says(g, "\n") > fused);
            assert_memory_equal(want, got, sizeof(want));
            graph_destroy(g);
        }
    }
    flow_model_close(m);
}

static void the_final_softcap_bounds_logits(void **state)
{
    struct flow_model *m = open_family(capped, 2);
    struct flow_profile p;
    struct graph *g;
    float logits[VOCAB], most = 0;

    flow_profile_default(&p);
    g = run(m, FLOW_PREFILL, &p, logits, NULL);
    assert_true(says(g, "softcap") > 0);
    for (int i = 0; i < VOCAB; i++)
        most = fabsf(logits[i]) > most ? fabsf(logits[i]) : most;
    assert_true(most > 1 && most < 30);
    graph_destroy(g);
    flow_model_close(m);
}

/* ---- for people ---- */

static int count(const char *text, const char *what)
{
    int n = 0;

    for (; (text = strstr(text, what)); text++)
        n++;
    return n;
}

static void graphs_are_drawn(void **state)
{
    struct flow_model *m = open_family("gemma1/model-bf16.gguf", 1); /* 6 layers */
    struct flow_profile p;
    float logits[VOCAB];
    struct graph *g;
    char *text, *dot;

    flow_profile_default(&p);
    g = run(m, FLOW_PREFILL, &p, logits, NULL);
    text = graph_text(g, false);
    dot = graph_text(g, true);
    assert_true(count(text, "\n") <= 40); /* one screen */
    assert_int_equal(count(dot, "digraph"), 1);
    assert_int_equal(count(dot, "subgraph"), 6);
    assert_int_equal(count(dot, "{"), count(dot, "}"));
    assert_int_equal(count(dot, " [label=\""), count(text, "\n") - 1 + count(dot, " -> "));
    free(text);
    free(dot);
    graph_destroy(g);
    flow_model_close(m);
}

/* ---- gemmad.profile beside the weights, and gemmad graph ---- */

static char folder[] = "/tmp/gemmad-switches-XXXXXX";

static const char *in_folder(const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

/* Output of gemmad graph on the folder's model (stdout and stderr); caller frees. */
static char *gemmad_graph(const char *mode, int *status)
{
    char command[1024], *out = calloc(1 << 16, 1);
    FILE *f;

    snprintf(command, sizeof(command), "'%s' graph --threads=1 --mode=%s '%s' 2>&1", GEMMAD, mode,
        in_folder("model.gguf"));
    f = popen(command, "r");
    assert_true(f && out);
    out[fread(out, 1, (1 << 16) - 1, f)] = 0;
    *status = WEXITSTATUS(pclose(f));
    return out;
}

static void write_profile(const char *text)
{
    FILE *f = fopen(in_folder("gemmad.profile"), "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void a_profile_beside_the_weights_is_read(void **state)
{
    char *plain[2], *out;
    int status;

    assert_non_null(mkdtemp(folder));
    assert_int_equal(symlink(family_path(dense), in_folder("model.gguf")), 0);
    plain[0] = gemmad_graph("prefill", &status);
    assert_int_equal(status, 0);
    plain[1] = gemmad_graph("decode", &status);
    write_profile("# only decoding\n[decode]\nfusion.policy = direct\npasses.verbose = on\n");
    out = gemmad_graph("prefill", &status);
    assert_string_equal(out, plain[0]);
    free(out);
    out = gemmad_graph("decode", &status);
    assert_int_equal(count(plain[1], "passes: "), 0);
    assert_int_equal(count(out, "passes: "), 1);
    assert_true(count(out, "\n") > 2 * count(plain[1], "\n"));
    free(out);
    write_profile("[prefill]\n\nmatmul.Q8_0 = blas\n[decode]\nfusion.policy = maybe\n");
    out = gemmad_graph("prefill", &status);
    assert_int_equal(status, 2);
    assert_non_null(strstr(out, "gemmad.profile:5:"));
    free(out);
    unlink(in_folder("gemmad.profile"));
    unlink(in_folder("model.gguf"));
    rmdir(folder);
    free(plain[0]);
    free(plain[1]);
}

static void a_profile_is_text_and_back(void **state)
{
    struct flow_profile p, q;
    char path[] = "/tmp/gemmad-profile-XXXXXX", *text, *again;
    struct err err;
    FILE *f = fdopen(mkstemp(path), "w");

    flow_profile_default(&p);
    p.skip = FUSE_PROLOGUE;
    p.override[12] = BACKEND_BLAS;
    text = flow_profile_text(&p, FLOW_DECODE);
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
    flow_profile_reference(&q);
    assert_int_equal(flow_profile_load(&q, path, FLOW_DECODE, &err), 0);
    again = flow_profile_text(&q, FLOW_DECODE);
    assert_string_equal(text, again);
    assert_non_null(strstr(text, "matmul.Q4_K = blas"));
    unlink(path);
    free(text);
    free(again);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_what_the_header_says),
        cmocka_unit_test(modes_refuse_each_others_options),
        cmocka_unit_test(precision_changes_steps_and_numbers),
        cmocka_unit_test(page_type_shows_in_k_and_v),
        cmocka_unit_test(backends_are_per_phase_and_type),
        cmocka_unit_test(fusion_and_passes_change_steps_only),
        cmocka_unit_test(the_final_softcap_bounds_logits),
        cmocka_unit_test(graphs_are_drawn),
        cmocka_unit_test(a_profile_beside_the_weights_is_read),
        cmocka_unit_test(a_profile_is_text_and_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
