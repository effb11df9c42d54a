/* Products with weights of 8 or 16 bits on a CPU that multiplies them: AVX512-VNNI, AVX512-BF16.
 *
 * A word is 32 bits: four numbers of 8 bits or two of 16, along the inputs. Weights lie in panels of
 * COLUMNS outputs, word by word, so that a register holds one word of each of 16 outputs, and a word
 * of a row is broadcast to meet them. A panel stays in the first cache while rows go by in blocks
 * whose sums are held in registers.
 *
 * The instruction for 8 bits takes one side unsigned: weights are stored 128 larger than they are,
 * and 128 times the sum of the row's numbers is taken off again. Sums of a group are exact.
 *
 * Compiled by narrow_product.py for the machine at hand.
 */
#include <math.h>
#include <stdint.h>
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#include <immintrin.h>
#endif

enum {
    INT8 = 0,
    BF16 = 1,
    LANES = 16,
    WIDE = 2,               /* registers of outputs */
    COLUMNS = WIDE * LANES, /* outputs of a panel */
    MOST = 6,               /* rows whose sums are held at a time, a group's and those before */
    ENOUGH = 5,             /* rows that take longer to multiply than weights to come */
    LINE = 64,              /* bytes that come at once */
    MANY = 1 << 14,         /* outputs */
    BAND = 32 * MOST,       /* rows that a panel is read for: theirs stay in the second cache */
    GROUP = 128,            /* numbers of a row that have a scale of their own, in 8 bits */
    GROUP_WORDS = GROUP / 4,
    OFFSET = 128
};

typedef struct {
    const float *x;
    const int32_t *panels; /* [panels, words, COLUMNS] */
    const float *scale;    /* [panels * COLUMNS]; of 8 bits only */
    const float *bias;     /* [outputs], or NULL */
    float *out;
    int32_t *narrow; /* [rows, words]: for the rows as they are multiplied */
    float *row_scale;   /* [rows, groups]; of 8 bits only, */
    int32_t *row_extra; /* likewise: where sums begin */
    int64_t rows, inputs, words, groups, outputs, kind, threads;
} Product;

int columns(void) { return COLUMNS; }

int group(void) { return GROUP; }

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)
int multiplies_int8(void) { return 1; }
#define DOT_INT8(sum, weight, word) _mm512_dpbusd_epi32(sum, weight, word)
#else
int multiplies_int8(void) { return 0; }
#define DOT_INT8(sum, weight, word) (sum)
#endif
#if defined(__AVX512BF16__) && defined(__AVX512BW__) && defined(__AVX512VL__)
int multiplies_bf16(void) { return 1; }
#define DOT_BF16(sum, weight, word)                                                       \
    _mm512_castps_si512(                                                                  \
        _mm512_dpbf16_ps(_mm512_castsi512_ps(sum), (__m512bh)(weight), (__m512bh)(word)))
#define TO_BF16(x) ((__m256i)_mm512_cvtneps_pbh(x))
#else
int multiplies_bf16(void) { return 0; }
#define DOT_BF16(sum, weight, word) (sum)
#define TO_BF16(x) _mm256_setzero_si256()
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512VL__)
#define INLINE static inline __attribute__((always_inline))

/* In a register: as an operand in memory a word would be read for every product, and sums whose type
 * is only seen as another one would be kept in memory. */
#define HELD(x) __asm__("" : "+v"(x))
#define UNROLLED _Pragma("GCC unroll 16") /* else GCC keeps the sums in memory */

INLINE __mmask16 first_lanes(int64_t n) { return n >= LANES ? 0xffff : (1u << n) - 1; }

/* A group of a row's numbers, as it is multiplied, with zeros up to a whole word. */
static void narrow_group(const Product *p, int64_t row, int64_t group) {
    int64_t start = group * GROUP, inputs = p->inputs - start, bytes = 4 * p->words - start;
    inputs = inputs < GROUP ? inputs : GROUP, bytes = bytes < GROUP ? bytes : GROUP;
    const float *x = p->x + row * p->inputs + start;
    int8_t *out = (int8_t *)(p->narrow + row * p->words) + start;
    __m512 most = _mm512_setzero_ps();
    int is_nan = 0; /* which a maximum may lose */
    for (int64_t k = 0; k < inputs; k += LANES) {
        __m512 some = _mm512_maskz_loadu_ps(first_lanes(inputs - k), x + k);
        is_nan |= _mm512_cmp_ps_mask(some, some, _CMP_UNORD_Q);
        most = _mm512_max_ps(most, _mm512_abs_ps(some));
    }
    float largest = is_nan ? NAN : _mm512_reduce_max_ps(most);
    __m512 factor = _mm512_set1_ps(largest > 0.0f ? 127.0f / largest : 0.0f);
    __m512i sum = _mm512_setzero_si512();
    for (int64_t k = 0; k < bytes; k += LANES) {
        __m512 some = _mm512_maskz_loadu_ps(first_lanes(inputs - k), x + k);
        __m512i whole = _mm512_cvtps_epi32(_mm512_mul_ps(some, factor));
        sum = _mm512_add_epi32(sum, whole);
        _mm_mask_storeu_epi8(out + k, first_lanes(bytes - k), _mm512_cvtsepi32_epi8(whole));
    }
    p->row_scale[row * p->groups + group] = largest / 127.0f;
    p->row_extra[row * p->groups + group] = -OFFSET * _mm512_reduce_add_epi32(sum);
}

static void narrow_int8(const Product *p, int64_t row) {
    for (int64_t group = 0; group < p->groups; group++) narrow_group(p, row, group);
}

static void narrow_bf16(const Product *p, int64_t row) {
    const float *x = p->x + row * p->inputs;
    int16_t *out = (int16_t *)(p->narrow + row * p->words);
    for (int64_t k = 0; k < 2 * p->words; k += LANES) {
        __m512 some = _mm512_maskz_loadu_ps(first_lanes(p->inputs - k), x + k);
        _mm256_mask_storeu_epi16(out + k, first_lanes(2 * p->words - k), TO_BF16(some));
    }
}

/* sums[row] += x[row] . weights over some words. Meanwhile `pace` bytes a word from `ahead` on come
 * into a cache, for enough rows: for few ones the processor keeps up by itself. */
INLINE void words_of(const Product *p, int kind, const int32_t *x, const int32_t *weights,
                     const char *ahead, int64_t pace, int64_t words, int count,
                     __m512i (*sums)[WIDE]) {
    for (int64_t k = 0; k < words; k++) {
        __m512i weight[WIDE];
        UNROLLED for (int i = 0; i < WIDE; i++) {
            weight[i] = _mm512_loadu_si512(weights + k * COLUMNS + i * LANES);
            if (count >= ENOUGH) _mm_prefetch(ahead + k * pace + i * LINE, _MM_HINT_T0);
        }
        UNROLLED for (int row = 0; row < count; row++) {
            __m512i word = _mm512_set1_epi32(x[row * p->words + k]);
            HELD(word);
            UNROLLED for (int i = 0; i < WIDE; i++) {
                __m512i sum = sums[row][i];
                HELD(sum);
                sum = kind == INT8 ? DOT_INT8(sum, weight[i], word)
                                   : DOT_BF16(sum, weight[i], word);
                HELD(sum);
                sums[row][i] = sum;
            }
        }
    }
}

/* Some rows with one panel, one of some blocks, each of which asks for a part of the next panel;
 * `count` is constant where this is put in. */
INLINE void block(const Product *p, int kind, int64_t panel, int64_t first, int64_t part,
                  int64_t parts, int count) {
    __m512i sums[MOST][WIDE];
    __m512 whole[MOST][WIDE];
    const int32_t *weights = p->panels + panel * p->words * COLUMNS;
    const int32_t *x = p->narrow + first * p->words;
    int64_t pace = COLUMNS * sizeof *weights / parts;
    const char *ahead = (const char *)(weights + p->words * COLUMNS) + part * p->words * pace;
    UNROLLED for (int row = 0; row < count; row++)
        UNROLLED for (int i = 0; i < WIDE; i++) whole[row][i] = _mm512_setzero_ps();
    if (kind == BF16) {
        UNROLLED for (int row = 0; row < count; row++)
            UNROLLED for (int i = 0; i < WIDE; i++) sums[row][i] = _mm512_setzero_si512();
        words_of(p, BF16, x, weights, ahead, pace, p->words, count, sums);
        UNROLLED for (int row = 0; row < count; row++)
            UNROLLED for (int i = 0; i < WIDE; i++)
                whole[row][i] = _mm512_castsi512_ps(sums[row][i]);
    } else {
        for (int64_t group = 0; group < p->groups; group++) {
            int64_t start = group * GROUP_WORDS, left = p->words - start;
            UNROLLED for (int row = 0; row < count; row++)
                UNROLLED for (int i = 0; i < WIDE; i++)
                    sums[row][i] =
                        _mm512_set1_epi32(p->row_extra[(first + row) * p->groups + group]);
            words_of(p, INT8, x + start, weights + start * COLUMNS, ahead + start * pace, pace,
                     left < GROUP_WORDS ? left : GROUP_WORDS, count, sums);
            UNROLLED for (int row = 0; row < count; row++) {
                __m512 scale = _mm512_set1_ps(p->row_scale[(first + row) * p->groups + group]);
                UNROLLED for (int i = 0; i < WIDE; i++)
                    whole[row][i] =
                        _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums[row][i]), scale, whole[row][i]);
            }
        }
    }
    UNROLLED for (int row = 0; row < count; row++) {
        float *out = p->out + (first + row) * p->outputs;
        for (int i = 0; i < WIDE; i++) {
            int64_t at = panel * COLUMNS + i * LANES;
            if (at >= p->outputs) continue;
            __mmask16 there = first_lanes(p->outputs - at);
            __m512 total = whole[row][i];
            if (kind == INT8) total = _mm512_mul_ps(total, _mm512_loadu_ps(p->scale + at));
            if (p->bias) total = _mm512_add_ps(total, _mm512_maskz_loadu_ps(there, p->bias + at));
            int is_line = there == 0xffff && (uintptr_t)(out + at) % LINE == 0;
            /* logits would push others out of the caches, and be read there before they are written */
            if (is_line && p->outputs >= MANY) _mm512_stream_ps(out + at, total);
            else _mm512_mask_storeu_ps(out + at, there, total);
        }
    }
}

INLINE void some_rows(const Product *p, int kind, int64_t panel, int64_t first, int64_t part,
                      int64_t parts, int count) {
#define CASE(n) \
    case n: block(p, kind, panel, first, part, parts, n); break;
    switch (count) {
        CASE(1) CASE(2) CASE(3) CASE(4) CASE(5) CASE(6)
    }
#undef CASE
}

/* A band of rows with one panel, in blocks that are as equal as can be. */
INLINE void band_of(const Product *p, int kind, int64_t panel, int64_t first, int64_t rows) {
    int64_t blocks = (rows + MOST - 1) / MOST;
    for (int64_t b = 0; b < blocks; b++) {
        int64_t from = b * rows / blocks, to = (b + 1) * rows / blocks;
        some_rows(p, kind, panel, first + from, b, blocks, to - from);
    }
}

static void band_int8(const Product *p, int64_t panel, int64_t first, int64_t rows) {
    band_of(p, INT8, panel, first, rows);
}

static void band_bf16(const Product *p, int64_t panel, int64_t first, int64_t rows) {
    band_of(p, BF16, panel, first, rows);
}

void product(const Product *p) {
    int64_t panels = (p->outputs + COLUMNS - 1) / COLUMNS, bands = (p->rows + BAND - 1) / BAND;
#pragma omp parallel num_threads(p->threads)
    {
#pragma omp for schedule(dynamic, 4)
        for (int64_t row = 0; row < p->rows; row++)
            if (p->kind == INT8) narrow_int8(p, row); else narrow_bf16(p, row);
#pragma omp for schedule(dynamic, 2) nowait
        for (int64_t task = 0; task < panels * bands; task++) {
            int64_t first = task / panels * BAND, left = p->rows - first;
            int64_t rows = left < BAND ? left : BAND;
            if (p->kind == INT8) band_int8(p, task % panels, first, rows);
            else band_bf16(p, task % panels, first, rows);
        }
        _mm_sfence(); /* lines that went past the caches are seen by all */
    }
}
#else
void product(const Product *p) { (void)p; }
#endif
