/* simd.h - the intrinsics of the instruction set a file is written for.
 *
 * A normal build includes the compiler's own header. The simde build (-Dsimde=true) compiles the
 * same source for any machine through SIMDe, so that each level can be tested everywhere. Files say
 * which set they need by defining SIMD_X86 or SIMD_NEON before including this. */
#ifndef KERNELS_SIMD_H
#define KERNELS_SIMD_H

#ifdef USE_SIMDE
#define SIMDE_ENABLE_NATIVE_ALIASES
#endif

#if !defined(USE_SIMDE) && defined(SIMD_X86)
#include <immintrin.h>
#elif !defined(USE_SIMDE) && defined(SIMD_NEON)
#include <arm_neon.h>
#elif defined(SIMD_X86)
#include <simde/x86/avx512.h>
#include <simde/x86/f16c.h>
#include <simde/x86/fma.h>
#elif defined(SIMD_NEON)
#include <simde/arm/neon.h>
#endif

#ifdef USE_SIMDE
#include "kernels/simd_fill.h"
#endif

#endif
