/* Attention of a step on a CPU as one left fold: a query meets its keys one by one, from the first.
 *
 * A query's state is (out, sum, max). For every key in turn: where its score is above `max` by more
 * than HEADROOM, `max` becomes the score and the rest is scaled to it; then 2 ** (score - max) is
 * added to `sum`, and times the value to `out`. So the state after a key depends on the keys before
 * it alone, not on where the tree is cut, on segments or tails, nor on what other queries see.
 * Sums begin anew at every RUN-th position of the sequence, as sums of thousands of numbers lose
 * digits. A score is that of SUMS partial sums along the head.
 *
 * Compiled by ordered_attention.py; it defines the columns of the item table, from items.py.
 */
#include "ordered.h"

enum {
    TILE = 16,  /* queries that meet keys together */
    KEYS = 16,  /* keys whose scores are computed together */
    RUN = 1024, /* positions; a multiple of nothing else */
    MAX_HEAD_DIM = 512
};
#define HEADROOM 8.0f /* in units of log2 */

/* One step's arrays; strides in numbers. */
typedef struct {
    const float *queries;
    const void *keys, *values;
    const float *sinks; /* or NULL */
    float *out;
    const int32_t *items, *positions, *pages, *lengths;
    const int32_t *first, *skipped; /* of a window, or NULL: every key is seen */
    int64_t query_row, query_head, key_head, value_head; /* strides */
    int64_t rows, q_heads, kv_heads, head_dim, n_items, width, page_tokens, kind, threads;
    float scale, softcap; /* 0: scores are not capped */
} Step;

/* The states of a tile's queries: of the run of positions that they are in, and of all before. */
typedef struct {
    _Alignas(64) float query[TILE * MAX_HEAD_DIM], out[TILE * MAX_HEAD_DIM];
    _Alignas(64) float all_out[TILE * MAX_HEAD_DIM];
    float sum[TILE], all_sum[TILE], max[TILE], scale, softcap;
    int64_t next[TILE]; /* position of the key that comes next */
    int dim;            /* numbers of a head with zeros behind, to a multiple of SUMS */
    _Alignas(64) float keys[KEYS * MAX_HEAD_DIM], values[KEYS * MAX_HEAD_DIM];
} Tile;

#if defined(__AVX512F__)
/* Both vectors' groups of 2 * half lanes become groups of `half`, halves added. */
INLINE vec fold(vec a, vec b, int half) {
    ivec low, high;
    for (int i = 0; i < LANES; i++) {
        int from = i / half, lane = from * 2 * half + i % half;
        low[i] = lane, high[i] = lane + half;
    }
    return __builtin_shuffle(a, b, low) + __builtin_shuffle(a, b, high);
}

/* The `total` of each of KEYS vectors, in the lanes of one. */
INLINE vec totals(const vec *sums) {
    vec a[8], b[4], c[2];
    for (int i = 0; i < 8; i++) a[i] = fold(sums[2 * i], sums[2 * i + 1], 8);
    for (int i = 0; i < 4; i++) b[i] = fold(a[2 * i], a[2 * i + 1], 4);
    for (int i = 0; i < 2; i++) c[i] = fold(b[2 * i], b[2 * i + 1], 2);
    return fold(c[0], c[1], 1);
}
#endif

/* query . key for `count` keys. */
INLINE void dot(int nd, const vec *query, const float *keys, int64_t stride, int count,
                float *scores) {
    vec sums[KEYS][PARTS];
    for (int k = 0; k < count; k++) {
        const loose *key = (const loose *)(keys + k * stride);
        for (int i = 0; i < PARTS; i++) sums[k][i] = query[i] * key[i];
        for (int i = PARTS; i < nd; i++)
            sums[k][i % PARTS] = fma_of(query[i], key[i], sums[k][i % PARTS]);
    }
#if defined(__AVX512F__)
    for (int k = count; k < KEYS; k++) sums[k][0] = splat(0.0f);
    *(vec *)scores = totals(sums[0]);
#else
    for (int k = 0; k < count; k++) scores[k] = total(sums[k]);
#endif
}

/* What keys weigh for a query, in the order in which they come, and what the rest is scaled by
 * before each of them. Returns whether anything is. */
INLINE int weigh(int nd, Tile *tile, int at, const float *keys, int64_t stride, int count,
                 float *weights, float *factors) {
    _Alignas(64) float scores[KEYS], most[KEYS];
    const vec *query = (const vec *)(tile->query + (int64_t)at * tile->dim);
    dot(nd, query, keys, stride, count, scores);
    if (tile->softcap == 0.0f)
        for (int k = 0; k < KEYS; k++) scores[k] *= tile->scale * LOG2_E;
    else
        for (int k = 0; k < count; k++)
            scores[k] = tile->softcap * tanhf(scores[k] * tile->scale / tile->softcap) * LOG2_E;
    float max = tile->max[at];
    int grows = 0;
    for (int k = 0; k < count; k++) grows |= scores[k] > max + HEADROOM;
    for (int k = 0; k < KEYS; k++) most[k] = max;
    if (grows) {
        for (int k = 0; k < KEYS; k++) {
            factors[k] = 1.0f;
            if (k < count && scores[k] > max + HEADROOM) {
                factors[k] = exp2_of(splat(max - scores[k]))[0];
                max = scores[k];
            }
            most[k] = max;
        }
        tile->max[at] = max;
    }
    for (int i = 0; i < KEYS / LANES; i++)
        ((vec *)weights)[i] = exp2_of(((vec *)scores)[i] - ((vec *)most)[i]);
    return grows;
}

/* Adds `count` values to nq queries. */
INLINE void add(int nd, int nq, Tile *tile, int at, const float *values, int64_t stride, int count,
                const float (*weights)[KEYS]) {
    enum { MOST = HELD };
    vec *out = (vec *)(tile->out + (int64_t)at * tile->dim), held[MOST > 1 ? MOST : 1];
    float sum[TILE];
    for (int q = 0; q < nq; q++) sum[q] = tile->sum[at + q];
    for (int i = 0; i < nq * nd; i++) held[i] = out[i];
    for (int k = 0; k < count; k++) {
        const loose *value = (const loose *)(values + k * stride);
        for (int q = 0; q < nq; q++) {
            vec weight = splat(weights[q][k]);
            sum[q] += weights[q][k];
            for (int i = 0; i < nd; i++)
                held[q * nd + i] = fma_of(weight, value[i], held[q * nd + i]);
        }
    }
    for (int i = 0; i < nq * nd; i++) out[i] = held[i];
    for (int q = 0; q < nq; q++) tile->sum[at + q] = sum[q];
}

/* Adds `count` values to one query, scaled before those where its maximum grows; NULL: at none. */
static void add_one(Tile *tile, int at, const float *values, int64_t stride, int count,
                    const float *weights, const float *factors) {
    int nd = tile->dim / LANES;
    vec *out = (vec *)(tile->out + (int64_t)at * tile->dim);
    vec *all = (vec *)(tile->all_out + (int64_t)at * tile->dim);
    for (int k = 0; k < count; k++) {
        const loose *value = (const loose *)(values + k * stride);
        if (factors && factors[k] != 1.0f) {
            tile->sum[at] *= factors[k], tile->all_sum[at] *= factors[k];
            for (int i = 0; i < nd; i++) out[i] *= factors[k], all[i] *= factors[k];
        }
        tile->sum[at] += weights[k];
        for (int i = 0; i < nd; i++) out[i] = fma_of(splat(weights[k]), value[i], out[i]);
    }
}

/* Up to KEYS keys for nq queries, whose states stay in registers if nq * nd is at most HELD. */
INLINE void meet(int nd, int nq, Tile *tile, int at, const float *keys, const float *values,
                 int64_t stride, int count) {
    _Alignas(64) float weights[TILE][KEYS], factors[TILE][KEYS];
    int grew[TILE], any = nq * nd > HELD;
    for (int q = 0; q < nq; q++) {
        grew[q] = weigh(nd, tile, at + q, keys, stride, count, weights[q], factors[q]);
        any |= grew[q];
    }
    if (!any) {
        add(nd, nq, tile, at, values, stride, count, weights);
        return;
    }
    for (int q = 0; q < nq; q++)
        add_one(tile, at + q, values, stride, count, weights[q], grew[q] ? factors[q] : NULL);
}

/* As `meet`, for any number of queries. */
#define MEET(nd)                                                                       \
    do {                                                                               \
        enum { NQ = (nd) < HELD ? HELD / (nd) < 4 ? HELD / (nd) : 4 : 1 };             \
        for (; at + NQ <= end; at += NQ) meet(nd, NQ, tile, at, keys, values, stride, count); \
        for (; at < end; at++) meet(nd, 1, tile, at, keys, values, stride, count);     \
    } while (0)

static void meet_all(Tile *tile, int at, int end, const float *keys, const float *values,
                     int64_t stride, int count) {
    switch (tile->dim / LANES) { /* as constants, so that sums stay in registers */
    case 1: MEET(1); break;
    case 2: MEET(2); break;
    case 4: MEET(4); break;
    case 8: MEET(8); break;
    case 16: MEET(16); break;
    default:
        for (; at < end; at++)
            meet(tile->dim / LANES, 1, tile, at, keys, values, stride, count);
    }
}

/* Adds a query's run to those before, and begins another. */
INLINE void end_run(Tile *tile, int at) {
    vec *out = (vec *)(tile->out + (int64_t)at * tile->dim);
    vec *all = (vec *)(tile->all_out + (int64_t)at * tile->dim);
    for (int i = 0; i < tile->dim / LANES; i++) all[i] += out[i], out[i] = splat(0.0f);
    tile->all_sum[at] += tile->sum[at], tile->sum[at] = 0.0f;
}

/* The slots from `slot` on, which hold positions `position` .. of queries first .. end - 1. */
static void span(Tile *tile, const Step *s, int64_t head, int first, int end, int64_t slot,
                 int64_t position, int64_t n) {
    int64_t dim = s->head_dim;
    for (int64_t start = 0, count; start < n; start += count) {
        int64_t inside = (position + start) % RUN, left = RUN - inside;
        count = n - start < KEYS ? n - start : KEYS;
        count = count < left ? count : left;
        if (inside == 0)
            for (int at = first; at < end; at++) end_run(tile, at);
        int64_t key = head * s->key_head + (slot + start) * dim;
        int64_t value = head * s->value_head + (slot + start) * dim;
        if (s->kind == FLOAT32 && tile->dim == dim) {
            meet_all(tile, first, end, (const float *)s->keys + key,
                     (const float *)s->values + value, dim, count);
            continue;
        }
        for (int64_t k = 0; k < count; k++) { /* what lies behind a head stays 0 */
            widen(s->keys, key + k * dim, s->kind, dim, tile->keys + k * tile->dim);
            widen(s->values, value + k * dim, s->kind, dim, tile->values + k * tile->dim);
        }
        meet_all(tile, first, end, tile->keys, tile->values, tile->dim, count);
    }
}

/* An item for queries from .. to - 1 of a tile, of which each sees the slots low[at] .. high[at] - 1.
 * What all of them see they meet together, what comes before and after that each for itself. */
static void item_of(Tile *tile, const Step *s, int64_t head, int from, int to, int64_t slot,
                    int64_t position, const int64_t *low, const int64_t *high) {
    int64_t begin = 0, end = INT64_MAX;
    for (int at = from; at < to; at++) {
        begin = low[at] > begin ? low[at] : begin;
        end = high[at] < end ? high[at] : end;
    }
    if (begin > end) begin = end = INT64_MAX; /* each for itself */
    for (int at = from; at < to; at++) {
        int64_t stop = high[at] < begin ? high[at] : begin;
        span(tile, s, head, at, at + 1, slot + low[at], position + low[at], stop - low[at]);
    }
    if (begin == INT64_MAX) return;
    span(tile, s, head, from, to, slot + begin, position + begin, end - begin);
    for (int at = from; at < to; at++)
        span(tile, s, head, at, at + 1, slot + end, position + end, high[at] - end);
}

/* The tail of a row, which lies in pages, for its queries from .. to - 1 of a tile. */
static void tail(Tile *tile, const Step *s, int64_t head, int from, int to, int64_t row) {
    int64_t length = s->lengths ? s->lengths[row] : 0, size = s->page_tokens;
    int64_t position = tile->next[from];
    for (int64_t at = s->skipped ? s->skipped[row] : 0, some; at < length; at += some) {
        int64_t slot = (int64_t)s->pages[row * s->width + at / size] * size + at % size;
        some = size - at % size < length - at ? size - at % size : length - at;
        span(tile, s, head, from, to, slot, position + at, some);
    }
}

/* The result of a query: a sink weighs like a last key that has no value. */
static void finish(Tile *tile, int at, const float *sink, float *out, int64_t dim) {
    end_run(tile, at);
    float *all = tile->all_out + (int64_t)at * tile->dim, sum = tile->all_sum[at], shrink = 1.0f;
    if (sink) {
        float score = *sink * LOG2_E, max = tile->max[at];
        if (score > max) shrink = exp2_of(splat(max - score))[0], max = score;
        sum = sum * shrink + exp2_of(splat(score - max))[0];
    }
    for (int64_t d = 0; d < dim; d++) out[d] = sum == 0.0f ? 0.0f : all[d] * shrink / sum;
}

/* Queries first .. first + count - 1 of a kv head, numbered row by row. */
static void attend(const Step *s, int64_t head, int64_t first, int count) {
    int64_t group = s->q_heads / s->kv_heads, dim = s->head_dim;
    Tile tile;
    tile.dim = (dim + SUMS - 1) / SUMS * SUMS;
    tile.scale = s->scale, tile.softcap = s->softcap;
    int64_t numbers = (int64_t)count * tile.dim;
    memset(tile.query, 0, numbers * sizeof *tile.query);
    memset(tile.out, 0, numbers * sizeof *tile.out);
    memset(tile.all_out, 0, numbers * sizeof *tile.all_out);
    memset(tile.keys, 0, KEYS * tile.dim * sizeof *tile.keys);
    memset(tile.values, 0, KEYS * tile.dim * sizeof *tile.values);
    for (int at = 0; at < count; at++) {
        int64_t row = (first + at) / group, own = head * group + (first + at) % group;
        const float *query = s->queries + row * s->query_row + own * s->query_head;
        memcpy(tile.query + (int64_t)at * tile.dim, query, dim * sizeof *query);
        tile.sum[at] = tile.all_sum[at] = 0.0f, tile.max[at] = -INFINITY, tile.next[at] = 0;
    }
    for (int64_t i = 0; i < s->n_items; i++) {
        const int32_t *item = s->items + i * ITEM_WIDTH;
        int64_t start = item[ITEM_QUERY_START], stop = start + item[ITEM_QUERY_COUNT];
        int64_t from = start * group - first, to = stop * group - first;
        int64_t n = item[ITEM_SLOT_COUNT], low[TILE], high[TILE];
        from = from < 0 ? 0 : from, to = to > count ? count : to;
        for (int64_t at = from; at < to; at++) {
            int64_t row = (first + at) / group;
            int64_t skip = s->first ? s->first[row] - s->positions[i] : 0;
            high[at] = item[ITEM_CAUSAL] ? row - start + 1 : n;
            low[at] = skip < 0 ? 0 : skip > high[at] ? high[at] : skip;
            tile.next[at] = s->positions[i] + n;
        }
        if (from < to && n)
            item_of(&tile, s, head, from, to, item[ITEM_SLOT_START], s->positions[i], low, high);
    }
    for (int at = 0, end; at < count; at = end) {
        int64_t row = (first + at) / group, next = (row + 1) * group - first;
        end = next < count ? next : count;
        tail(&tile, s, head, at, end, row);
    }
    for (int at = 0; at < count; at++) {
        int64_t row = (first + at) / group, own = head * group + (first + at) % group;
        float *out = s->out + (row * s->q_heads + own) * dim;
        finish(&tile, at, s->sinks ? s->sinks + own : NULL, out, dim);
    }
}

int max_head_dim(void) { return MAX_HEAD_DIM; }

void ordered_attention(const Step *step) {
    int64_t queries = step->rows * (step->q_heads / step->kv_heads);
    int64_t tiles = (queries + TILE - 1) / TILE, tasks = step->kv_heads * tiles;
#pragma omp parallel for schedule(dynamic) num_threads(step->threads)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first = task % tiles * TILE, left = queries - first;
        attend(step, task / tiles, first, left < TILE ? left : TILE);
    }
}
