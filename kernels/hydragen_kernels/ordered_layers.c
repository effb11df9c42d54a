/* Products, norms, activations and distributions on a CPU, each row in an order of its own.
 *
 * Compiled by ordered_layers.py; see ordered.h for what that promises.
 */
#include "ordered.h"

enum {
    COLUMNS = 32,               /* outputs whose weights lie side by side, a panel */
    WIDE = COLUMNS / LANES,
    DEPTH = 256,                /* inputs before sums begin anew: a panel's part stays in a cache */
    BLOCK = 96,                 /* rows that a panel's part is read for */
    MOST = LANES == 16 ? 12 : 3, /* rows whose sums are held at a time */
    FEW = 1 << 15               /* numbers that one thread is done with soon */
};

typedef struct {
    const float *x;
    const void *panels;
    const float *bias; /* or NULL */
    float *out;
    int64_t rows, inputs, outputs, kind, threads;
} Product;

/* sums[row][column] += x[row] . weights[column], over `depth` inputs, one after the other. */
INLINE void multiply(int rows, const float *x, int64_t inputs, const float *weights, int64_t depth,
                     float (*sums)[COLUMNS]) {
    vec held[MOST][WIDE];
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < WIDE; i++) held[row][i] = splat(0.0f);
    for (int64_t k = 0; k < depth; k++) {
        vec weight[WIDE];
        for (int i = 0; i < WIDE; i++) weight[i] = ((const loose *)(weights + k * COLUMNS))[i];
        for (int row = 0; row < rows; row++) {
            vec number = splat(x[row * inputs + k]);
            for (int i = 0; i < WIDE; i++) held[row][i] = fma_of(number, weight[i], held[row][i]);
        }
    }
    for (int row = 0; row < rows; row++)
        for (int i = 0; i < WIDE; i++) ((loose *)sums[row])[i] += held[row][i];
}

/* As `multiply`, for any number of rows. */
INLINE void multiply_all(int64_t rows, const float *x, int64_t inputs, const float *weights,
                         int64_t depth, float (*sums)[COLUMNS]) {
    int64_t row = 0;
    for (; row + MOST <= rows; row += MOST)
        multiply(MOST, x + row * inputs, inputs, weights, depth, sums + row);
    for (; MOST > 4 && row + 4 <= rows; row += 4)
        multiply(4, x + row * inputs, inputs, weights, depth, sums + row);
    for (; row + 2 <= rows; row += 2)
        multiply(2, x + row * inputs, inputs, weights, depth, sums + row);
    for (; row < rows; row++) multiply(1, x + row * inputs, inputs, weights, depth, sums + row);
}

/* Rows first .. first + rows - 1 of a panel's outputs. */
static void panel_of(const Product *p, int64_t panel, int64_t first, int64_t rows) {
    _Alignas(64) float sums[BLOCK][COLUMNS] = {0}, wide[DEPTH * COLUMNS];
    int64_t start = panel * COLUMNS, left = p->outputs - start;
    int64_t columns = left < COLUMNS ? left : COLUMNS;
    for (int64_t k = 0; k < p->inputs; k += DEPTH) {
        int64_t depth = p->inputs - k < DEPTH ? p->inputs - k : DEPTH;
        int64_t at = (panel * p->inputs + k) * COLUMNS;
        const float *weights = (const float *)p->panels + at;
        if (p->kind != FLOAT32) {
            widen(p->panels, at, p->kind, depth * COLUMNS, wide);
            weights = wide;
        }
        multiply_all(rows, p->x + first * p->inputs + k, p->inputs, weights, depth, sums);
    }
    for (int64_t row = 0; row < rows; row++) {
        float *out = p->out + (first + row) * p->outputs + start;
        for (int64_t c = 0; c < columns; c++)
            out[c] = p->bias ? sums[row][c] + p->bias[start + c] : sums[row][c];
    }
}

int columns(void) { return COLUMNS; }

void product(const Product *p) {
    int64_t panels = (p->outputs + COLUMNS - 1) / COLUMNS, blocks = (p->rows + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(dynamic) num_threads(p->threads)
    for (int64_t task = 0; task < panels * blocks; task++) {
        int64_t first = task % blocks * BLOCK, left = p->rows - first;
        panel_of(p, task / blocks, first, left < BLOCK ? left : BLOCK);
    }
}

/* For few numbers others would be woken for longer than they help. */
static int64_t threads_for(int64_t numbers, int64_t threads) { return numbers < FEW ? 1 : threads; }

/* x / sqrt(mean(x^2) + eps) of every row, times added + weight where there are weights. */
void normalise(const float *x, const float *weight, float *out, int64_t rows, int64_t width,
               float eps, float added, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * width, threads))
    for (int64_t row = 0; row < rows; row++) {
        const float *numbers = x + row * width;
        float sum = 0.0f, *found = out + row * width;
        for (int64_t run = 0; run < width; run += ROW_RUN) {
            int64_t end = run + ROW_RUN < width ? run + ROW_RUN : width;
            vec sums[PARTS], some[PARTS];
            for (int i = 0; i < PARTS; i++) sums[i] = splat(0.0f);
            for (int64_t at = run; at < end; at += SUMS) {
                take(numbers, at, end, 0.0f, some);
                for (int i = 0; i < PARTS; i++) sums[i] = fma_of(some[i], some[i], sums[i]);
            }
            sum += total(sums);
        }
        float scale = 1.0f / sqrtf(sum / (float)width + eps);
        if (weight)
            for (int64_t i = 0; i < width; i++)
                found[i] = numbers[i] * scale * (added + weight[i]);
        else
            for (int64_t i = 0; i < width; i++) found[i] = numbers[i] * scale;
    }
}

/* 1 / (1 + e ** -x); 0 where that is below 2 ** -126. */
INLINE vec sigmoid_of(vec x) {
    vec power = x * -LOG2_E;
    ivec is_least = power > splat(126.0f);
    vec found = splat(1.0f) / (splat(1.0f) + exp2_of(choose(is_least, splat(126.0f), power)));
    return choose(is_least, splat(0.0f), found);
}

/* x sigmoid(x). */
INLINE vec silu_of(vec x) { return x * sigmoid_of(x); }

/* x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2, in which (1 + tanh(y)) / 2 is sigmoid(2 y). */
INLINE vec gelu_of(vec x) {
    vec inner = fma_of(x * x, x * 0.044715f, x);
    return x * sigmoid_of(inner * 1.59576912f);
}

/* x (1 + erf(x / sqrt(2))) / 2. */
INLINE vec gelu_by_erf_of(vec x) {
    for (int i = 0; i < LANES; i++) x[i] = 0.5f * x[i] * (1.0f + erff(x[i] * 0.707106781f));
    return x;
}

/* A function of the C library, number by number. */
INLINE vec each(vec x, float (*function)(float)) {
    for (int i = 0; i < LANES; i++) x[i] = function(x[i]);
    return x;
}

INLINE vec active(vec x, int64_t form) {
    switch (form) {
    case 0: return silu_of(x);
    case 1: return gelu_of(x);
    case 2: return gelu_by_erf_of(x);
    case 3: return sigmoid_of(x);
    case 4: return each(x, tanhf);
    case 5: return each(x, expm1f);
    default: return each(x, logf);
    }
}

/* A function of n numbers: 0 is SiLU, 1 GELU by tanh, 2 GELU, 3 the sigmoid, 4 tanh, 5 e^x - 1,
 * 6 the logarithm. */
void activate(const float *x, float *out, int64_t n, int64_t form, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < n; start += ROW_RUN) {
        int64_t end = start + ROW_RUN < n ? start + ROW_RUN : n;
        for (int64_t at = start; at < end; at += LANES) {
            float some[LANES] = {0};
            int64_t count = end - at < LANES ? end - at : LANES;
            memcpy(some, x + at, count * sizeof *some);
            vec numbers, found;
            memcpy(&numbers, some, sizeof some);
            found = active(numbers, form);
            memcpy(some, &found, sizeof some);
            memcpy(out + at, some, count * sizeof *some);
        }
    }
}

/* A function, as of `activate`, of the first half of every row, times the second. */
void gate(const float *x, float *out, int64_t rows, int64_t width, int64_t form, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads_for(rows * width, threads))
    for (int64_t row = 0; row < rows; row++) {
        const float *gates = x + row * 2 * width, *others = gates + width;
        for (int64_t at = 0; at < width; at += SUMS) {
            vec some[PARTS], other[PARTS];
            take(gates, at, width, 0.0f, some), take(others, at, width, 0.0f, other);
            for (int i = 0; i < PARTS; i++) some[i] = active(some[i], form) * other[i];
            put(some, out + row * width, at, width);
        }
    }
}

/* A head turned by angles: x cos + (-second half of x, first half) sin; angles of the second half
 * are `second` behind those of the first. */
INLINE void turn(const float *restrict x, const float *restrict cosines,
                 const float *restrict sines, float *restrict out, int64_t half, int64_t second) {
    for (int64_t i = 0; i < half; i++) {
        float low = x[i], high = x[i + half];
        out[i] = low * cosines[i] + -high * sines[i];
        out[i + half] = high * cosines[i + second] + low * sines[i + second];
    }
}

/* Heads of tokens turned by angles: x cos + (-second half of x, first half) sin. Strides of x are in
 * floats; out is [tokens, heads, dim], angles are [tokens, angles]. */
void rotate(const float *x, const float *cosines, const float *sines, float *out, int64_t tokens,
            int64_t heads, int64_t dim, int64_t half, int64_t angles, int64_t second,
            int64_t token_stride, int64_t head_stride, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads_for(tokens * heads * dim, threads))
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = 0; head < heads; head++) {
            const float *from = x + token * token_stride + head * head_stride;
            float *to = out + (token * heads + head) * dim;
            turn(from, cosines + token * angles, sines + token * angles, to, half, second);
            for (int64_t i = 2 * half; i < dim; i++) to[i] = from[i];
        }
}

/* Pairs of numbers of every head as complex ones, times the token's. */
void rotate_pairs(const float *x, const float *angles, float *out, int64_t tokens, int64_t heads,
                  int64_t pairs, int64_t token_stride, int64_t head_stride, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads_for(tokens * heads * pairs, threads))
    for (int64_t token = 0; token < tokens; token++)
        for (int64_t head = 0; head < heads; head++) {
            const float *from = x + token * token_stride + head * head_stride;
            const float *by = angles + 2 * token * pairs;
            float *to = out + 2 * (token * heads + head) * pairs;
            for (int64_t i = 0; i < 2 * pairs; i += 2) {
                to[i] = from[i] * by[i] - from[i + 1] * by[i + 1];
                to[i + 1] = from[i] * by[i + 1] + from[i + 1] * by[i];
            }
        }
}

/* Heads of tokens to their slots in an arena, whose heads lie `arena_stride` floats apart. */
void store(const float *x, float *arena, const int64_t *slots, int64_t tokens, int64_t heads,
           int64_t dim, int64_t token_stride, int64_t head_stride, int64_t arena_stride) {
    for (int64_t head = 0; head < heads; head++)
        for (int64_t token = 0; token < tokens; token++)
            memcpy(arena + head * arena_stride + slots[token] * dim,
                   x + token * token_stride + head * head_stride, dim * sizeof *x);
}

/* The softmax of every row. */
void distribute(const float *x, float *out, int64_t rows, int64_t width, int64_t threads) {
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const float *numbers = x + row * width;
        float *found = out + row * width;
        float most = greatest_of(numbers, width);
        float factor = 1.0 / weigh_row(numbers, width, most, LOG2_E, found);
        for (int64_t i = 0; i < width; i++) found[i] *= factor;
    }
}
