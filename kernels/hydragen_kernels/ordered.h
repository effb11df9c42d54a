/* What the ordered forms share: vectors, fused multiply-adds, exponentials, numbers of 16 bits.
 *
 * In these forms a number is the result of one sequence of operations on its own inputs, whatever
 * is computed beside it. So every operation is written out: -ffp-contract=off, and a fused
 * multiply-add where there is to be one. A sum of many numbers is always that of SUMS numbers, each
 * of every SUMS-th one, whatever the width of the machine's vectors.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
#include <immintrin.h>
enum { LANES = 16, HELD = 16 }; /* HELD: sums that stay in registers beside what is read */
#elif defined(__FMA__)
#include <immintrin.h>
enum { LANES = 8, HELD = 8 };
#elif defined(__aarch64__)
#include <arm_neon.h>
enum { LANES = 4, HELD = 16 };
#else
#error this processor has no fused multiply-add
#endif
enum {
    SUMS = 16,
    PARTS = SUMS / LANES,
    ROW_RUN = 1024 /* numbers of a row before a sum begins anew */
};
enum { FLOAT32, BFLOAT16, FLOAT16 }; /* kinds of numbers in memory */

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef vec loose __attribute__((aligned(4))); /* as it comes in memory */
#define INLINE static inline __attribute__((always_inline))
#define LOG2_E 1.44269504f

/* a * b + c, rounded once. */
INLINE vec fma_of(vec a, vec b, vec c) {
#if defined(__AVX512F__)
    return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__FMA__)
    return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
    return (vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#endif
}

/* One number in every lane. */
INLINE vec splat(float x) {
#if defined(__AVX512F__)
    return (vec)_mm512_set1_ps(x);
#elif defined(__FMA__)
    return (vec)_mm256_set1_ps(x);
#else
    return (vec)vdupq_n_f32(x);
#endif
}

/* a where the mask is set, else b. */
INLINE vec choose(ivec mask, vec a, vec b) { return (vec)(((ivec)a & mask) | ((ivec)b & ~mask)); }

/* 2 ** x to 1e-7, for x at most 127; 0 below -126. NaN stays NaN. */
INLINE vec exp2_of(vec x) {
    ivec is_least = x < splat(-126.0f);
    x = choose(is_least, splat(-126.0f), x);
    vec shifted = x + 12582912.0f; /* 1.5 * 2 ** 23: the low bits are x to the nearest integer */
    vec f = x - (shifted - 12582912.0f);
    vec p = fma_of(f, splat(1.54035304e-4f), splat(1.33335581e-3f));
    p = fma_of(p, f, splat(9.61812911e-3f));
    p = fma_of(p, f, splat(5.55041087e-2f));
    p = fma_of(p, f, splat(2.40226507e-1f));
    p = fma_of(p, f, splat(6.93147181e-1f));
    p = fma_of(p, f, splat(1.0f));
    return choose(is_least, splat(0.0f), (vec)((ivec)p + ((ivec)shifted << 23)));
}

/* The sum of SUMS numbers, by halves. */
INLINE float total(const vec *parts) {
    float x[SUMS];
    memcpy(x, parts, sizeof x);
    for (int half = SUMS / 2; half; half /= 2)
        for (int i = 0; i < half; i++) x[i] += x[i + half];
    return x[0];
}

/* SUMS numbers of a row from `at` on; behind its end there is `rest`. */
INLINE void take(const float *x, int64_t at, int64_t n, float rest, vec *parts) {
    float some[SUMS];
    if (at + SUMS <= n) {
        memcpy(parts, x + at, sizeof some);
        return;
    }
    for (int i = 0; i < SUMS; i++) some[i] = at + i < n ? x[at + i] : rest;
    memcpy(parts, some, sizeof some);
}

/* The other way; nothing goes behind the row's end. */
INLINE void put(const vec *parts, float *x, int64_t at, int64_t n) {
    float some[SUMS];
    if (at + SUMS <= n) {
        memcpy(x + at, parts, sizeof some);
        return;
    }
    memcpy(some, parts, sizeof some);
    memcpy(x + at, some, (n - at) * sizeof *some);
}

/* The greatest of a row's numbers, NaN passed over; -inf of none. */
INLINE float greatest_of(const float *x, int64_t n) {
    vec most[PARTS], some[PARTS];
    for (int i = 0; i < PARTS; i++) most[i] = splat(-INFINITY);
    for (int64_t at = 0; at < n; at += SUMS) {
        take(x, at, n, -INFINITY, some);
        for (int i = 0; i < PARTS; i++) most[i] = choose(some[i] > most[i], some[i], most[i]);
    }
    float found[SUMS];
    memcpy(found, most, sizeof found);
    for (int i = 1; i < SUMS; i++) found[0] = found[i] > found[0] ? found[i] : found[0];
    return found[0];
}

/* The sum of 2 ** ((x - most) rate) over a row, and, where they are asked for, each of them. */
INLINE double weigh_row(const float *x, int64_t n, float most, float rate, float *weights) {
    double sum = 0.0;
    for (int64_t run = 0; run < n; run += ROW_RUN) {
        int64_t end = run + ROW_RUN < n ? run + ROW_RUN : n;
        vec sums[PARTS], some[PARTS];
        for (int i = 0; i < PARTS; i++) sums[i] = splat(0.0f);
        for (int64_t at = run; at < end; at += SUMS) {
            take(x, at, end, -INFINITY, some);
            for (int i = 0; i < PARTS; i++) {
                some[i] = exp2_of((some[i] - splat(most)) * rate);
                sums[i] += some[i];
            }
            if (weights) put(some, weights, at, end);
        }
        sum += total(sums);
    }
    return sum;
}

/* Numbers of any kind as floats. */
INLINE void widen(const void *from, int64_t at, int kind, int64_t n, float *to) {
    if (kind == FLOAT32) {
        memcpy(to, (const float *)from + at, n * sizeof *to);
    } else if (kind == BFLOAT16) {
        const uint16_t *numbers = (const uint16_t *)from + at;
        uint32_t *bits = (uint32_t *)to;
        for (int64_t i = 0; i < n; i++) bits[i] = (uint32_t)numbers[i] << 16;
    } else {
        int64_t i = 0;
#if defined(__F16C__)
        const uint16_t *numbers = (const uint16_t *)from + at;
        for (; i + 8 <= n; i += 8)
            _mm256_storeu_ps(to + i, _mm256_cvtph_ps(_mm_loadu_si128((void *)(numbers + i))));
        for (; i < n; i++) to[i] = _cvtsh_ss(numbers[i]);
#else
        const _Float16 *numbers = (const _Float16 *)from + at;
        for (; i < n; i++) to[i] = numbers[i];
#endif
    }
}
