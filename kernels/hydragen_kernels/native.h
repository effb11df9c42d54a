/* What attention of a decode step in C shares: vectors of the machine, exponentials, and the running
 * partials of queries.
 */
#include <math.h>
#include <stdint.h>
#include <string.h>

#if defined(__AVX512F__)
enum { LANES = 16, VECTORS = 4 };
#elif defined(__AVX__)
enum { LANES = 8, VECTORS = 2 }; /* 16 registers */
#else
enum { LANES = 4, VECTORS = 4 };
#endif
enum {
    TILE = LANES * VECTORS, /* queries */
    KEYS = 64,              /* keys a block: their scores stay in the first cache */
    RUN = 32 * KEYS,        /* keys before sums begin anew */
    STEP = 4,               /* keys, or numbers of a value, that a register tile holds */
    PART = 16,              /* numbers of a head before a sum begins anew */
    MAX_HEAD_DIM = 256,
    PADDED = MAX_HEAD_DIM + 16,  /* a query's place: of 1,024 bytes all begin in few sets of a cache */
    SUMS = LANES == 16 ? 16 : 8, /* that stay in registers beside what is read */
    MOST = 4,                    /* queries that meet keys together, one by one */
    LINE = 16                    /* numbers that come into a cache at once */
};
#define LOWEST -3.4028235e38f /* a maximum of nothing: finite, so that no difference is NaN */
#define LOG2_E 1.44269504f

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef vec loose __attribute__((aligned(4))); /* as it comes in memory */
#define INLINE static inline __attribute__((always_inline))
#define UNROLLED _Pragma("GCC unroll 16")

/* Keeps a vector in a register: as an operand in memory it would be loaded for every product. */
#if defined(__x86_64__)
#define HELD(x) __asm__("" : "+v"(x))
#else
#define HELD(x) __asm__("" : "+w"(x))
#endif

/* Running partials of a tile's queries: (out, max, sum) since the run began, for `met` keys, and
 * (all_out, all_max, all_sum) of the runs before. */
typedef struct {
    _Alignas(64) float out[TILE][PADDED], query[TILE][PADDED], max[TILE], sum[TILE];
    float all_out[TILE][PADDED], all_max[TILE], all_sum[TILE], scale;
    int64_t met[TILE];
} Tile;

/* The larger one; b if either is NaN. */
INLINE vec larger(vec a, vec b) {
    ivec first = a > b;
    return (vec)(((ivec)a & first) | ((ivec)b & ~first));
}

/* 2 ** x to 1e-7, for x <= 0; below -126 it is 2 ** -126. NaN stays NaN. */
INLINE vec exp2v(vec x) {
    x = larger((vec){} - 126.0f, x);
    vec shifted = x + 12582912.0f; /* 1.5 * 2 ** 23: the low bits are x to the nearest integer */
    vec f = x - (shifted - 12582912.0f);
    vec p = f * 1.54035304e-4f + 1.33335581e-3f;
    p = p * f + 9.61812911e-3f;
    p = p * f + 5.55041087e-2f;
    p = p * f + 2.40226507e-1f;
    p = p * f + 6.93147181e-1f;
    p = p * f + 1.0f;
    return (vec)((ivec)p + ((ivec)shifted << 23));
}

/* e ** x, for x <= 0; below -87 it is 2 ** -126. */
INLINE vec expv(vec x) { return exp2v(x * LOG2_E); }

/* Adds a query's run to those before, and begins another; the maximum goes on. */
INLINE void end_run(Tile *tile, int at, int64_t dim) {
    float shrink = expv((vec){} + (tile->all_max[at] - tile->max[at]))[0];
    for (int64_t d = 0; d < dim; d++) {
        tile->all_out[at][d] = tile->all_out[at][d] * shrink + tile->out[at][d];
        tile->out[at][d] = 0.0f;
    }
    tile->all_sum[at] = tile->all_sum[at] * shrink + tile->sum[at];
    tile->all_max[at] = tile->max[at], tile->sum[at] = 0.0f, tile->met[at] = 0;
}

/* Notes that a query met so many keys. */
INLINE void count_keys(Tile *tile, int at, int64_t n, int64_t dim) {
    tile->met[at] += n;
    if (tile->met[at] >= RUN) end_run(tile, at, dim);
}
