/* kernels.c - fills the kernel table: plain C first, then each level this build and this CPU have.
 *
 * x86 levels build on each other; NEON stands beside them. The simde build compiles every level for
 * any machine (tests on machines that lack one), so there every level is present. */
#include "kernels/kernels.h"

#include <string.h>
#ifdef HAVE_NEONDOT
#include <sys/auxv.h>
#endif

#if defined(HAVE_AVX2) && !defined(USE_SIMDE)
#include <cpuid.h>
#endif

#include "kernels/attention_impl.h"
#include "kernels/matmul_impl.h"
#include "kernels/ops.h"

static const char *const names[ISA_COUNT] = {"c", "avx2", "avxvnni", "avx512", "neon"};

/* __builtin_cpu_supports() looks at the CPU and at the register state the system saves. */
#ifdef HAVE_AVX2
static bool cpu_has_avx2(void)
{
#ifdef USE_SIMDE
    return true;
#else
    unsigned a, b, c, d;

    if (!__get_cpuid(1, &a, &b, &c, &d) || !(c & bit_F16C)) /* clang 14 has no name for it */
        return false;
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
}
#endif

#ifdef HAVE_AVXVNNI
static bool cpu_has_avxvnni(void)
{
#ifdef USE_SIMDE
    return true;
#else
    const unsigned bit_avxvnni = 1u << 4; /* compilers have no name for it yet */
    unsigned a, b, c, d;

    return cpu_has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & bit_avxvnni);
#endif
}
#endif

#ifdef HAVE_AVX512
static bool cpu_has_avx512(void)
{
#ifdef USE_SIMDE
    return true;
#else
    return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
           __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
#endif
}

static bool cpu_has_bf16(void)
{
#if !defined(HAVE_AVX512BF16)
    return false;
#elif defined(USE_SIMDE)
    return true;
#else
    return __builtin_cpu_supports("avx512bf16");
#endif
}
#endif

bool kernels_has(enum isa isa)
{
    switch (isa) {
    case ISA_C: return true;
#ifdef HAVE_AVX2
    case ISA_AVX2: return cpu_has_avx2();
#endif
#ifdef HAVE_AVXVNNI
    case ISA_AVXVNNI: return cpu_has_avxvnni();
#endif
#ifdef HAVE_AVX512
    case ISA_AVX512: return cpu_has_avx512();
#endif
#ifdef HAVE_NEON
    case ISA_NEON: return true; /* part of every aarch64 */
#endif
    default: return false;
    }
}

enum isa kernels_best(void)
{
    static const enum isa order[] = {ISA_AVX512, ISA_AVXVNNI, ISA_AVX2, ISA_NEON};

    for (size_t i = 0; i < sizeof(order) / sizeof(order[0]); i++) {
        if (kernels_has(order[i]))
            return order[i];
    }
    return ISA_C;
}

static void fill(struct kernels *k, enum isa max, bool bf16)
{
    *k = (struct kernels){.isa = ISA_C};
    ops_init_c(k);
    attention_init_c(k);
    matmul_init_c(k);
#ifdef HAVE_AVX2
    if (max >= ISA_AVX2 && max <= ISA_AVX512 && cpu_has_avx2()) {
        k->isa = ISA_AVX2;
        ops_init_avx2(k);
        matmul_init_avx2(k);
        attention_init_avx2(k);
    }
#endif
#ifdef HAVE_AVXVNNI
    if (max >= ISA_AVXVNNI && max <= ISA_AVX512 && cpu_has_avxvnni()) {
        k->isa = ISA_AVXVNNI;
        matmul_init_avxvnni(k);
    }
#endif
#ifdef HAVE_AVX512
    if (max == ISA_AVX512 && cpu_has_avx512()) {
        k->isa = ISA_AVX512;
        k->bf16 = bf16 && cpu_has_bf16();
        ops_init_avx512(k);
        matmul_init_avx512(k);
        attention_init_avx512(k);
#ifdef HAVE_AVX512BF16
        if (k->bf16) {
            attention_init_avx512bf16(k);
            matmul_init_avx512bf16(k);
        }
#endif
    }
#endif
#ifdef HAVE_NEON
    if (max == ISA_NEON) {
        k->isa = ISA_NEON;
        ops_init_neon(k);
        matmul_init_neon(k);
#ifdef HAVE_NEONDOT
        if (getauxval(AT_HWCAP) & HWCAP_ASIMDDP)
            matmul_init_neondot(k);
#endif
        attention_init_neon(k);
    }
#endif
}

void kernels_init(struct kernels *k, enum isa max)
{
    fill(k, max, true);
}

void kernels_init_without_bf16(struct kernels *k, enum isa max)
{
    fill(k, max, false);
}

const char *isa_name(enum isa isa)
{
    return isa >= 0 && isa < ISA_COUNT ? names[isa] : "unknown";
}

int isa_parse(const char *name)
{
    if (strcmp(name, "auto") == 0)
        return (int)kernels_best();
    for (int i = 0; i < ISA_COUNT; i++) {
        if (strcmp(name, names[i]) == 0)
            return i;
    }
    return -1;
}
