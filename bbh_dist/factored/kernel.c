/* Products and sweeps over rows [begin, end) of a weight matrix W (D, F); reference.py says the same in torch.
 *
 * Legend: S samples, D rows (outputs), F columns (features). Bytes moved are the limit, so every sweep reads and writes
 * weights and state once, rows are taken in blocks whose features and sums stay in registers and L1, and the block
 * after is prefetched: a row is too short for the hardware to see a stream. Prefetches go through that block in the
 * order of memory, not a vector of each row in turn, with which a sweep takes up to 18 % longer.
 * Portable: vectors are the extension that GCC and clang share. Roots, and conversions from and to bfloat16, have a
 * second form by AVX-512's instructions, of which GCC 12 does not make use by itself. The file includes itself once per
 * pair of types.
 */
#ifndef WEIGHT
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
#define BYTES 64
#elif defined(__AVX__)
#define BYTES 32
#else
#define BYTES 16
#endif
#ifndef __has_builtin /* GCC before 10 */
#define __has_builtin(name) 0
#endif
/* What is summed must stay in registers, ROWS * SAMPLES or 2 * ROWS * WIDE vectors: x86 has 16 before AVX-512. */
#if defined(__x86_64__) && !defined(__AVX512F__)
#define ROWS 2
#else
#define ROWS 4
#endif
#define WIDE 2
#define SAMPLES 5
#define INLINE static inline __attribute__((always_inline))
#define EACH(i, n) for (size_t i = 0; i < (size_t)(n); i++)
#define CAT_(a, b) a##_##b
#define CAT(a, b) CAT_(a, b)

typedef float vec_f32 __attribute__((vector_size(BYTES)));
typedef double vec_f64 __attribute__((vector_size(BYTES)));
typedef uint32_t bits_f32 __attribute__((vector_size(BYTES)));
typedef uint64_t bits_f64 __attribute__((vector_size(BYTES)));
typedef uint16_t half __attribute__((vector_size(BYTES / 2)));
typedef float f32;
typedef double f64;
typedef uint16_t bf16;
#define real_f32 f32 /* what to compute in */
#define real_bf16 f32
#define real_f64 f64

struct layer { /* the same fields as compiled.py's Layer */
    void *weight, *first, *second;         /* (D, F), rows of F; moments where the rule has them */
    const void *features, *bias;           /* (S, width), zeros beyond F; (D,) */
    void *sides;                           /* (S, D): gradients or outputs, by the two strides in numbers */
    ptrdiff_t sample_stride, row_stride, samples, columns, width;
    double coefficients[6];
    uint32_t seed, first_row;
};

enum { READ, RMSPROP, ADAM, SGD };

/* Of `n` numbers at p; n is the constant LANES but for the last columns. */
INLINE vec_f32 load_f32(const float *p, size_t n) { vec_f32 x = {0}; memcpy(&x, p, n * sizeof *p); return x; }
INLINE vec_f64 load_f64(const double *p, size_t n) { vec_f64 x = {0}; memcpy(&x, p, n * sizeof *p); return x; }
INLINE void store_f32(float *p, vec_f32 x, size_t n, bits_f32 noise) { (void)noise; memcpy(p, &x, n * sizeof *p); }
INLINE void store_f64(double *p, vec_f64 x, size_t n, bits_f64 noise) { (void)noise; memcpy(p, &x, n * sizeof *p); }
#if defined(__AVX512F__)
INLINE bits_f32 widened(half x) { return (bits_f32)_mm512_cvtepu16_epi32((__m256i)x); }
INLINE half narrowed(bits_f32 x) { return (half)_mm512_cvtepi32_epi16((__m512i)x); }
INLINE bits_f32 where_nan(vec_f32 x, bits_f32 yes, bits_f32 no) {
    __mmask16 nan = _mm512_cmp_ps_mask((__m512)x, (__m512)x, _CMP_UNORD_Q);
    return (bits_f32)_mm512_mask_blend_epi32(nan, (__m512i)no, (__m512i)yes);
}
#else
INLINE bits_f32 widened(half x) { return __builtin_convertvector(x, bits_f32); }
INLINE half narrowed(bits_f32 x) { return __builtin_convertvector(x, half); }
INLINE bits_f32 where_nan(vec_f32 x, bits_f32 yes, bits_f32 no) {
    bits_f32 nan = (bits_f32)(x != x);
    return (yes & nan) | (no & ~nan);
}
#endif
INLINE vec_f32 load_bf16(const bf16 *p, size_t n) {
    half x = {0};
    memcpy(&x, p, n * sizeof *p);
    return (vec_f32)(widened(x) << 16);
}
/* Stochastic rounding by 16 bits of noise. A NaN keeps its upper bits, made quiet lest it become infinity. */
INLINE void store_bf16(bf16 *p, vec_f32 x, size_t n, bits_f32 noise) {
    bits_f32 bits = (bits_f32)x;
    half y = narrowed(where_nan(x, bits | 0x400000, bits + noise) >> 16);
    memcpy(p, &y, n * sizeof *p);
}

/* The sum of a vector's numbers, halves added to halves: through memory, number by number, it costs what the products
 * do. The last 16 bytes are added by name. */
typedef float quarter_f32 __attribute__((vector_size(16)));
typedef double quarter_f64 __attribute__((vector_size(16)));
INLINE float sum_f32(vec_f32 x) {
    quarter_f32 part[BYTES / 16];
    memcpy(part, &x, sizeof x);
    for (size_t half = BYTES / 32; half; half /= 2) EACH(j, half) part[j] += part[j + half];
    return (part[0][0] + part[0][2]) + (part[0][1] + part[0][3]);
}
INLINE double sum_f64(vec_f64 x) {
    quarter_f64 part[BYTES / 16];
    memcpy(part, &x, sizeof x);
    for (size_t half = BYTES / 32; half; half /= 2) EACH(j, half) part[j] += part[j + half];
    return part[0][0] + part[0][1];
}

/* Square roots. Of the loops GCC makes vectors, but of half the width where its tables call whole ones slow. */
#if defined(__AVX512F__)
INLINE vec_f32 root_f32(vec_f32 x) { return (vec_f32)_mm512_sqrt_ps((__m512)x); }
INLINE vec_f64 root_f64(vec_f64 x) { return (vec_f64)_mm512_sqrt_pd((__m512d)x); }
#elif __has_builtin(__builtin_elementwise_sqrt)
INLINE vec_f32 root_f32(vec_f32 x) { return __builtin_elementwise_sqrt(x); }
INLINE vec_f64 root_f64(vec_f64 x) { return __builtin_elementwise_sqrt(x); }
#else
INLINE vec_f32 root_f32(vec_f32 x) {
    float y[BYTES / 4];
    memcpy(y, &x, sizeof y);
    EACH(i, BYTES / 4) y[i] = sqrtf(y[i]);
    return load_f32(y, BYTES / 4);
}
INLINE vec_f64 root_f64(vec_f64 x) {
    double y[BYTES / 8];
    memcpy(y, &x, sizeof y);
    EACH(i, BYTES / 8) y[i] = sqrt(y[i]);
    return load_f64(y, BYTES / 8);
}
#endif

/* The hash of rounding.py. Macro: for a number and for a vector. */
#define MIX(x) ((x) ^= (x) >> 16, (x) *= 0x7feb352du, (x) ^= (x) >> 15, (x) *= 0x846ca68bu, (x) ^= (x) >> 16)
INLINE bits_f32 hash_f32(uint32_t row_key, size_t column) {
    bits_f32 x = {0};
    EACH(i, BYTES / 4) x[i] = i;
    x += row_key + (uint32_t)column;
    MIX(x);
    return x;
}
INLINE bits_f64 hash_f64(uint32_t row_key, size_t column) { (void)row_key, (void)column; return (bits_f64){0}; }

#define WEIGHT f32
#define SECOND f32
#include "kernel.c"
#define WEIGHT f32
#define SECOND bf16
#define AGAIN /* what has no second moment is there already */
#include "kernel.c"
#define WEIGHT bf16
#define SECOND f32
#include "kernel.c"
#define WEIGHT bf16
#define SECOND bf16
#define AGAIN
#include "kernel.c"
#define WEIGHT f64
#define SECOND f64
#include "kernel.c"

#else /* once for every pair of types ------------------------------------------------------------------------------ */

#define NAME(x) CAT(x, CAT(WEIGHT, SECOND))
#define REAL CAT(real, WEIGHT)
#define VEC CAT(vec, REAL)
#define BITS CAT(bits, REAL)
#define LANES (BYTES / sizeof(REAL))
#define LOAD(type, p, n) CAT(load, type)(p, n)
#define STORE(type, p, x, n, noise) CAT(store, type)(p, x, n, noise)

/* New weights of old ones; moments step in memory. Coefficients as in rules.py. */
INLINE VEC NAME(step)(const struct layer *l, int rule, size_t at, size_t n, VEC w, VEC g, BITS noise) {
    const double *c = l->coefficients;
    REAL *first = (REAL *)l->first + at;
    SECOND *second = (SECOND *)l->second + at;
    VEC m = rule == RMSPROP ? g : LOAD(REAL, first, n);
    if (rule == ADAM) m += (g - m) * (REAL)c[1];
    if (rule == SGD) m = m * (REAL)c[1] + g;
    if (rule != RMSPROP) STORE(REAL, first, m, n, noise);
    if (rule == SGD) return w - m * (REAL)c[0];
    size_t k = rule == ADAM ? 2 : 1;
    VEC v = LOAD(SECOND, second, n) * (REAL)c[k] + g * g * (REAL)c[k + 1];
    STORE(SECOND, second, v, n, noise & 0xffff);
    VEC root = CAT(root, REAL)(v);
    if (rule == ADAM) root /= (REAL)c[5];
    return w - m / (root + (REAL)c[k + 2]) * (REAL)c[0];
}

/* A tile: `rows` rows from r, `wide` vectors of n numbers from column f; a has their gradients, ROWS a sample. */
INLINE void NAME(tile)(const struct layer *l, int rule, const REAL *a, const uint32_t *keys, REAL *sums, size_t r,
                       size_t rows, size_t f, size_t wide, size_t n) {
    size_t at = r * l->columns + f;
    VEC w[ROWS][WIDE], g[ROWS][WIDE];
    EACH(k, rows) EACH(i, wide) {
        w[k][i] = LOAD(WEIGHT, (WEIGHT *)l->weight + at + k * l->columns + i * LANES, n);
        g[k][i] = (VEC){0};
    }
    EACH(s, l->samples) {
        const REAL *b = (const REAL *)l->features + s * l->width + f;
        REAL *sum = sums ? sums + s * l->width + f : NULL;
        VEC x[WIDE], y[WIDE];
        EACH(i, wide) x[i] = LOAD(REAL, b + i * LANES, LANES);
        if (sum) EACH(i, wide) y[i] = LOAD(REAL, sum + i * LANES, LANES);
        EACH(k, rows) EACH(i, wide) {
            g[k][i] += x[i] * a[s * ROWS + k];
            if (sum) y[i] += w[k][i] * a[s * ROWS + k];
        }
        if (sum) EACH(i, wide) STORE(REAL, sum + i * LANES, y[i], LANES, (BITS){0});
    }
    EACH(k, rows) EACH(i, wide) {
        size_t place = at + k * l->columns + i * LANES;
        size_t ahead = (r + ROWS) * l->columns + f * rows + (k * wide + i) * LANES;
        __builtin_prefetch((WEIGHT *)l->weight + ahead, 0, 2);
        if (rule == READ) continue;
        if (rule != RMSPROP) __builtin_prefetch((REAL *)l->first + ahead, 0, 2);
        if (rule != SGD) __builtin_prefetch((SECOND *)l->second + ahead, 0, 2);
        BITS noise = sizeof(WEIGHT) == 2 || sizeof(SECOND) == 2 ? CAT(hash, REAL)(keys[k], f + i * LANES) : (BITS){0};
        VEC y = NAME(step)(l, rule, place, n, w[k][i], g[k][i], noise);
        STORE(WEIGHT, (WEIGHT *)l->weight + place, y, n, noise >> 16);
    }
}

INLINE void NAME(block)(const struct layer *l, int rule, REAL *sums, size_t r, size_t rows) {
    REAL a[l->samples * ROWS + 1];
    uint32_t keys[ROWS];
    EACH(k, rows) {
        const REAL *p = (const REAL *)l->sides + (ptrdiff_t)(r + k) * l->row_stride;
        EACH(s, l->samples) a[s * ROWS + k] = p[(ptrdiff_t)s * l->sample_stride];
        keys[k] = (uint32_t)(r + k) + l->first_row + l->seed;
        MIX(keys[k]);
    }
    size_t f = 0, F = l->columns;
    if (rows == ROWS)
        for (; f + WIDE * LANES <= F; f += WIDE * LANES) NAME(tile)(l, rule, a, keys, sums, r, rows, f, WIDE, LANES);
    for (; f < F; f += LANES) NAME(tile)(l, rule, a, keys, sums, r, rows, f, 1, F - f < LANES ? F - f : LANES);
}

/* A copy of the layer, as stores by memcpy might change the original: its fields would be read for each tile. */
#define SWEEP(name, rule)                                                                                  \
    void NAME(name)(const struct layer *given, REAL *sums, size_t begin, size_t end) {                     \
        const struct layer copy = *given, *l = &copy;                                                      \
        size_t r = begin;                                                                                  \
        if (sums) for (; r + ROWS <= end; r += ROWS) NAME(block)(l, rule, sums, r, ROWS);                  \
        else for (; r + ROWS <= end; r += ROWS) NAME(block)(l, rule, NULL, r, ROWS);                       \
        for (; r < end; r++) NAME(block)(l, rule, sums, r, 1);                                             \
    }
SWEEP(rmsprop, RMSPROP)
SWEEP(adam, ADAM)
#ifndef AGAIN
SWEEP(sgd, SGD)
SWEEP(read, READ) /* the gradient for the features alone */

/* Outputs of `rows` rows from r for `samples` samples from s. */
INLINE void NAME(dots)(const struct layer *l, size_t r, size_t rows, size_t s, size_t samples) {
    VEC sums[ROWS][SAMPLES];
    const size_t F = l->columns, width = l->width;
    const WEIGHT *w = (const WEIGHT *)l->weight + r * F;
    const REAL *b = (const REAL *)l->features + s * width;
    EACH(k, rows) EACH(i, samples) sums[k][i] = (VEC){0};
    size_t f = 0;
    for (; f + LANES <= F; f += LANES) /* with the last columns in this loop GCC keeps sums in memory */
        EACH(k, rows) {
            VEC x = LOAD(WEIGHT, w + k * F + f, LANES);
            __builtin_prefetch(w + ROWS * F + f * rows + k * LANES, 0, 2);
            EACH(i, samples) sums[k][i] += x * LOAD(REAL, b + i * width + f, LANES);
        }
    if (f < F)
        EACH(k, rows) EACH(i, samples)
            sums[k][i] += LOAD(WEIGHT, w + k * F + f, F - f) * LOAD(REAL, b + i * width + f, LANES);
    EACH(k, rows) EACH(i, samples) {
        ptrdiff_t place = (ptrdiff_t)(s + i) * l->sample_stride + (ptrdiff_t)(r + k) * l->row_stride;
        ((REAL *)l->sides)[place] = CAT(sum, REAL)(sums[k][i]) + ((const REAL *)l->bias)[r + k];
    }
}

INLINE void NAME(outputs)(const struct layer *l, size_t r, size_t rows) {
    size_t s = 0, S = l->samples;
    for (; s + SAMPLES <= S; s += SAMPLES) NAME(dots)(l, r, rows, s, SAMPLES);
    for (; s + 2 <= S; s += 2) NAME(dots)(l, r, rows, s, 2);
    if (s < S) NAME(dots)(l, r, rows, s, 1);
}

void NAME(forward)(const struct layer *l, REAL *unused, size_t begin, size_t end) {
    size_t r = ((void)unused, begin);
    for (; r + ROWS <= end; r += ROWS) NAME(outputs)(l, r, ROWS);
    for (; r < end; r++) NAME(outputs)(l, r, 1);
}

#endif
#undef WEIGHT
#undef SECOND
#undef AGAIN
#endif
