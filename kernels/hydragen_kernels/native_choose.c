/* Tokens drawn from rows of logits on a CPU, row by row in the second cache.
 *
 * A filter keeps what lies at or above a threshold of the logit, so that equal ones stay together.
 * It is found by bisection over the bits of a float, which ascend as floats do: in 32 passes at the
 * most over those tokens that can be kept at all.
 *
 * Compiled by native_choose.py; sums along a row have one order, see ordered.h.
 */
#include "ordered.h"

typedef struct {
    const float *logits;   /* [rows, vocabulary] */
    const int64_t *firsts; /* [rows + 1]: the first sample of each row, and one past the last */
    const double *shares;  /* [samples] of a row's weight, below 1 */
    int64_t *tokens;
    double *logprobs, *sampled;
    char *room; /* [threads, room_for(vocabulary)] */
    int64_t rows, vocabulary, top_k, threads;
    double temperature, top_p, min_p;
} Choice;

/* What a thread needs for a row; of all tokens in `weights`, else of those that are kept. */
typedef struct {
    double *upto;   /* cumulative weights */
    float *weights; /* e ** ((logit - greatest) / temperature) */
    float *parts;   /* what a token counts for in `cut`, */
    int32_t *keys;  /* and its logit there, see `key_of` */
    int32_t *tokens;
} Room;

enum { NUMBER_BYTES = 8 + 4 * 4 };

int64_t room_for(int64_t vocabulary) { return NUMBER_BYTES * (vocabulary + SUMS); }

static Room room_of(char *bytes, int64_t vocabulary) {
    int64_t size = vocabulary + SUMS;
    Room room = {.upto = (double *)bytes};
    room.weights = (float *)(room.upto + size), room.parts = room.weights + size;
    room.keys = (int32_t *)(room.parts + size), room.tokens = room.keys + size;
    return room;
}

/* A whole number that ascends with x; that of either zero is the same. */
INLINE int32_t key_of(float x) {
    int32_t bits;
    x += 0.0f;
    memcpy(&bits, &x, sizeof bits);
    return bits ^ ((bits >> 31) & INT32_MAX);
}

/* What tokens count for whose keys are greater; behind the n there are some that count for 0. */
static double above(const int32_t *keys, const float *parts, int64_t n, int32_t key) {
    double sum = 0.0;
    for (int64_t run = 0; run < n; run += ROW_RUN) {
        int64_t end = run + ROW_RUN < n ? run + ROW_RUN : n;
        vec sums[PARTS];
        for (int i = 0; i < PARTS; i++) sums[i] = splat(0.0f);
        for (int64_t at = run; at < end; at += SUMS)
            for (int i = 0; i < PARTS; i++) {
                ivec some;
                vec part;
                memcpy(&some, keys + at + i * LANES, sizeof some);
                memcpy(&part, parts + at + i * LANES, sizeof part);
                sums[i] += choose(some > key, part, splat(0.0f));
            }
        sum += total(sums);
    }
    return sum;
}

/* Keeps of n tokens those above which others count for less than `most`: by their weight, or 1 each.
 */
static int64_t cut(const Room *room, const float *x, int by_weight, int64_t n, double most) {
    int64_t low = INT32_MAX, high = INT32_MIN, kept = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t token = room->tokens[i], key = key_of(x[token]);
        room->keys[i] = key, room->parts[i] = by_weight ? room->weights[token] : 1.0f;
        low = key < low ? key : low, high = key > high ? key : high;
    }
    for (int64_t i = n; i < n + SUMS; i++) room->keys[i] = INT32_MIN, room->parts[i] = 0.0f;
    for (low--; high - low > 1;) { /* those of key `high` are kept; of `low` they are not, or none */
        int64_t middle = low + (high - low) / 2;
        if (above(room->keys, room->parts, n, middle) < most) high = middle; else low = middle;
    }
    for (int64_t i = 0; i < n; i++) {
        room->tokens[kept] = room->tokens[i];
        kept += room->keys[i] >= high;
    }
    return kept;
}

/* Keeps of n tokens those that weigh at least so much. */
static int64_t at_least(const Room *room, int64_t n, float weight) {
    int64_t kept = 0;
    for (int64_t i = 0; i < n; i++) {
        int32_t token = room->tokens[i];
        room->tokens[kept] = token;
        kept += room->weights[token] >= weight;
    }
    return kept;
}

/* The tokens of a row that are kept, in their order, with cumulative weights; how many there are. */
static int64_t filter(const Choice *c, const Room *room, const float *x, float peak) {
    float rate = fmax(LOG2_E / c->temperature, 1e-37); /* -inf times 0 would be NaN */
    double whole = weigh_row(x, c->vocabulary, peak, rate, room->weights);
    /* lighter ones weigh less, all together, than what top-p leaves out; half is for rounding */
    double least = c->top_k ? 0.0 : 0.5 * (1.0 - c->top_p) * whole / c->vocabulary;
    float lightest = fmax(least, 1e-37);
    int64_t n = 0;
    for (int64_t token = 0; token < c->vocabulary; token++) {
        room->tokens[n] = token;
        n += room->weights[token] >= lightest;
    }
    if (c->top_k) {
        n = cut(room, x, 0, n, c->top_k);
        whole = 0.0;
        for (int64_t i = 0; i < n; i++) whole += room->weights[room->tokens[i]];
    }
    if (c->top_p < 1.0) n = cut(room, x, 1, n, c->top_p * whole);
    if (c->min_p > 0.0) n = at_least(room, n, c->min_p);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) room->upto[i] = sum += room->weights[room->tokens[i]];
    return n;
}

/* The first of n cumulative weights that is greater than `share` of the last; below 1 there is one. */
static int64_t find(const double *upto, int64_t n, double share) {
    int64_t low = 0, high = n - 1;
    double target = share * upto[n - 1];
    while (low < high) {
        int64_t middle = (low + high) / 2;
        if (upto[middle] > target) high = middle; else low = middle + 1;
    }
    return low;
}

static void choose_row(const Choice *c, const Room *room, int64_t row) {
    const float *x = c->logits + row * c->vocabulary;
    float peak = greatest_of(x, c->vocabulary);
    double log_sum = peak + log(weigh_row(x, c->vocabulary, peak, LOG2_E, NULL));
    int64_t n = 0, token = 0;
    if (!isfinite(log_sum)) log_sum = NAN;
    else if (c->temperature > 0.0) n = filter(c, room, x, peak);
    else while (x[token] != peak) token++;
    for (int64_t sample = c->firsts[row]; sample < c->firsts[row + 1]; sample++) {
        c->sampled[sample] = 0.0;
        if (n) {
            int64_t at = find(room->upto, n, c->shares[sample]);
            token = room->tokens[at];
            c->sampled[sample] = log(room->weights[token] / room->upto[n - 1]);
        }
        c->tokens[sample] = token;
        c->logprobs[sample] = x[token] - log_sum;
    }
}

void choose_tokens(const Choice *c) {
#pragma omp parallel for schedule(static) num_threads(c->threads)
    for (int64_t thread = 0; thread < c->threads; thread++) {
        Room room = room_of(c->room + thread * room_for(c->vocabulary), c->vocabulary);
        for (int64_t row = thread; row < c->rows; row += c->threads)
            if (c->firsts[row] < c->firsts[row + 1]) choose_row(c, &room, row);
    }
}
