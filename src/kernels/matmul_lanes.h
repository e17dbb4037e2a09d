/* matmul_lanes.h - scales of a packed tile in vector registers of F32_LANES rows. A template: each
 * level defines F32_LANES, includes its intrinsics and then this file. Compilers' vector extensions
 * give arithmetic and conversions for every width. */
typedef float fvec __attribute__((vector_size(4 * F32_LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * F32_LANES)));

/* Scale and base of F32_LANES rows, see wmat_scale(). */
struct scales {
    fvec scale, base;
};

/* One byte or 16-bit number per lane, zero-extended. */
ALWAYS_INLINE ivec load_bytes(const uint8_t *p)
{
    typedef uint8_t bytes __attribute__((vector_size(F32_LANES)));
    bytes v;

    memcpy(&v, p, sizeof(v));
    return __builtin_convertvector(v, ivec);
}

ALWAYS_INLINE ivec load_shorts(const uint8_t *p)
{
    typedef uint16_t shorts __attribute__((vector_size(2 * F32_LANES)));
    shorts v;

    memcpy(&v, p, sizeof(v));
    return __builtin_convertvector(v, ivec);
}

ALWAYS_INLINE fvec to_float(ivec v)
{
    return __builtin_convertvector(v, fvec);
}

ALWAYS_INLINE fvec load_halves(const uint8_t *p)
{
#if defined(USE_SIMDE)
    fvec v;

    for (int i = 0; i < F32_LANES; i++)
        v[i] = load_f16(p, i);
    return v;
#elif defined(SIMD_NEON)
    return (fvec)vcvt_f32_f16(vld1_f16((const float16_t *)p));
#elif F32_LANES == 8
    return (fvec)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
    return (fvec)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#endif
}

/* a * b + c, rounded once. */
ALWAYS_INLINE fvec fma_lanes(fvec a, fvec b, fvec c)
{
#if defined(USE_SIMDE) /* whose fma rounds twice */
    for (int i = 0; i < F32_LANES; i++)
        c[i] = __builtin_fmaf(a[i], b[i], c[i]);
    return c;
#elif defined(SIMD_NEON)
    return (fvec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#elif F32_LANES == 8
    return (fvec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return (fvec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#endif
}

/* Two 6-bit numbers of block j per lane, see wmat_pair(). */
ALWAYS_INLINE void load_pair(const uint8_t *pairs, int j, int row, ivec *a, ivec *b)
{
    const ivec low = load_bytes(pairs + 16 * j + row);
    ivec high;

    memcpy(&high, pairs + 128 + 4 * row, sizeof(high));
    high >>= 4 * j; /* arithmetic, but what it brings in is masked */
    *a = (low & 15) | (high << 4 & 48);
    *b = (low >> 4) | (high << 2 & 48);
}

/* wmat_scale() for rows row .. row + F32_LANES - 1. */
ALWAYS_INLINE struct scales load_scales(
    enum dtype type, const uint8_t *tile, int j, int half, int row)
{
    const uint8_t *first = tile + 2 * row, *second = tile + 32 + 2 * row; /* of 16-bit arrays */
    ivec a, b;

    switch (type) {
    case DTYPE_Q4_1:
    case DTYPE_Q5_1: return (struct scales){load_halves(first), load_halves(second)};
    case DTYPE_MXFP4:
        a = load_bytes(tile + 16 * j + row);
        b = a < 2; /* all ones where true */
        return (struct scales){.scale = (fvec)((b & ((a + 1) << 21)) | (~b & ((a - 1) << 23)))};
    case DTYPE_Q2_K:
        a = load_bytes(tile + 64 + 16 * (2 * j + half) + row);
        return (struct scales){
            load_halves(first) * to_float(a & 15), -load_halves(second) * to_float(a >> 4)};
    case DTYPE_Q3_K:
        load_pair(tile + 64, j, row, &a, &b);
        return (struct scales){.scale = load_halves(first) * to_float((half ? b : a) - 32)};
    case DTYPE_Q4_K:
    case DTYPE_Q5_K:
        load_pair(tile + 64, j, row, &a, &b);
        return (struct scales){
            load_halves(first) * to_float(a), -load_halves(second) * to_float(b)};
    case DTYPE_Q6_K:
        a = load_bytes(tile + 64 + 16 * (2 * j + half) + row);
        return (struct scales){.scale = load_halves(first) * to_float(a << 24 >> 24)};
    case DTYPE_IQ4_XS:
        a = load_bytes(tile + 64 + j / 2 * 16 + row) >> j % 2 * 4 & 15;
        b = load_shorts(second) >> 2 * j & 3;
        return (struct scales){.scale = load_halves(first) * to_float((a | b << 4) - 32)};
    default: return (struct scales){.scale = load_halves(first + 32 * j)};
    }
}

/* log2 of the zero point of the codes as the integer kernels see them; -1 for none. The table
 * types' values are moved up to be unsigned. */
ALWAYS_INLINE int zero_log2(enum dtype type)
{
    switch (type) {
    case DTYPE_Q8_0:
    case DTYPE_Q8_0_PLANES:
    case DTYPE_Q8_0_COARSE:
    case DTYPE_IQ4_NL:
    case DTYPE_IQ4_XS: return 7;
    case DTYPE_Q6_K: return 5;
    case DTYPE_Q5_0:
    case DTYPE_MXFP4: return 4;
    case DTYPE_Q4_0: return 3;
    case DTYPE_Q3_K: return 2;
    default: return -1;
    }
}

/* A column's integer sums from those of its planes. */
ALWAYS_INLINE ivec join_planes(const int planes, ivec first, ivec last)
{
    return planes == 2 ? first * 256 + last : first;
}

/* x_scale * (sum of x codes), of one half where sub-blocks are 16 wide: the base's factor. */
ALWAYS_INLINE float base_factor(int sub, const struct act_block *x, int half)
{
    const int32_t offset = half ? x->offset_high : x->offset - x->offset_high;

    return sub == 32 ? x->sum : x->scale * ((float)offset * -0x1p-7f);
}
