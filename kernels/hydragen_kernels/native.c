/* Tree attention of a decode step on a CPU: every row over its path's segments and its own tail.
 *
 * Queries that share a kv head lie side by side in the lanes of a vector, up to TILE of them, so
 * that a key that is read serves all of them and softmax needs no sums across lanes. A score is
 * scaled when it is whole, and only its distance to the maximum is put into units of log2: large
 * scores lose no digits that a dense product keeps. Every query has a running partial (out, max,
 * sum), which all that it meets continues; it is rescaled when its maximum grows. A sum of thousands
 * of numbers one after the other loses digits, so sums begin at zero three times: for a block of
 * keys, for a run of blocks, and for all runs.
 *
 * Compiled by native.py for the machine at hand; the vector types are those of GCC and Clang.
 * It defines the columns of the item table, ITEM_QUERY_START and so on, from items.py.
 */
#include "native.h"

/* One step's arrays; strides in floats. */
typedef struct {
    const float *queries, *keys, *values;
    float *out, *lse;
    const int32_t *items, *pages, *lengths;
    const int32_t *positions, *first, *skipped; /* of a window, or NULL: every key is seen */
    int64_t query_row, query_head, key_head, value_head; /* strides */
    int64_t rows, q_heads, kv_heads, head_dim, n_items, width, page_tokens, threads;
    float scale;
} Step;

/* scores[key][lane] = scale * query . key, for `step` keys; raises the maxima. Sums begin anew every
 * PART numbers, as those that a vector's lanes hold do in `meet`. */
INLINE void score(int nv, int step, const vec *query, const float *keys, int64_t dim, float scale,
                  vec *scores, vec *max) {
    for (int64_t part = 0; part < dim; part += PART) {
        vec sums[STEP][VECTORS] = {0};
        int64_t end = part + PART < dim ? part + PART : dim;
        for (int64_t d = part; d < end; d++) {
            vec held[VECTORS];
            for (int i = 0; i < nv; i++) {
                held[i] = query[d * nv + i];
                HELD(held[i]);
            }
            for (int k = 0; k < step; k++)
                for (int i = 0; i < nv; i++) sums[k][i] += held[i] * keys[k * dim + d];
        }
        for (int k = 0; k < step; k++)
            for (int i = 0; i < nv; i++)
                scores[k * nv + i] = part ? scores[k * nv + i] + sums[k][i] : sums[k][i];
    }
    for (int k = 0; k < step * nv; k++) {
        scores[k] *= scale;
        max[k % nv] = larger(max[k % nv], scores[k]);
    }
}

/* A run of keys for nv vectors of queries, whose partials continue. */
INLINE void run(int nv, const vec *query, const float *keys, const float *values, int64_t n,
                int64_t dim, float scale, vec *out, vec *max, vec *sum) {
    vec weights[KEYS * VECTORS];
    for (int64_t first = 0; first < n; first += KEYS) {
        int64_t count = n - first < KEYS ? n - first : KEYS, k = 0;
        const float *key = keys + first * dim, *value = values + first * dim;
        vec top[VECTORS];
        for (int i = 0; i < nv; i++) top[i] = max[i];
        for (; k + STEP <= count; k += STEP)
            score(nv, STEP, query, key + k * dim, dim, scale, weights + k * nv, top);
        for (; k < count; k++) score(nv, 1, query, key + k * dim, dim, scale, weights + k * nv, top);
        vec shrink[VECTORS], block[VECTORS] = {0};
        for (int i = 0; i < nv; i++) {
            shrink[i] = expv(max[i] - top[i]);
            max[i] = top[i];
        }
        for (k = 0; k < count; k++)
            for (int i = 0; i < nv; i++) {
                vec weight = expv(weights[k * nv + i] - top[i]);
                weights[k * nv + i] = weight;
                block[i] += weight;
            }
        for (int i = 0; i < nv; i++) sum[i] = sum[i] * shrink[i] + block[i];
        for (int64_t d = 0; d < dim; d += STEP) {
            vec sums[STEP][VECTORS] = {0};
            for (k = 0; k < count; k++) {
                vec held[VECTORS];
                for (int i = 0; i < nv; i++) {
                    held[i] = weights[k * nv + i];
                    HELD(held[i]);
                }
                for (int s = 0; s < STEP; s++)
                    for (int i = 0; i < nv; i++) sums[s][i] += held[i] * value[k * dim + d + s];
            }
            for (int s = 0; s < STEP; s++)
                for (int i = 0; i < nv; i++) {
                    vec *sum_of = out + (d + s) * nv + i;
                    *sum_of = *sum_of * shrink[i] + sums[s][i];
                }
        }
    }
}

/* A run of keys for queries first .. first + count - 1 of a tile: into lanes, and back. */
INLINE void together(int nv, Tile *tile, int first, int count, const float *keys,
                     const float *values, int64_t n, int64_t dim) {
    static const vec nothing = {0};
    vec query[MAX_HEAD_DIM * VECTORS], out[MAX_HEAD_DIM * VECTORS], max[VECTORS], sum[VECTORS];
    for (int i = 0; i < nv; i++) max[i] = nothing + LOWEST, sum[i] = nothing;
    float *q = (float *)query, *o = (float *)out, *m = (float *)max, *l = (float *)sum;
    int lanes = nv * LANES;
    for (int64_t d = 0; d < dim; d++)
        for (int lane = 0; lane < lanes; lane++) {
            int inside = lane < count;
            q[d * lanes + lane] = inside ? tile->query[first + lane][d] : 0.0f;
            o[d * lanes + lane] = inside ? tile->out[first + lane][d] : 0.0f;
        }
    memcpy(m, tile->max + first, count * sizeof *m);
    memcpy(l, tile->sum + first, count * sizeof *l);
    run(nv, query, keys, values, n, dim, tile->scale, out, max, sum);
    for (int lane = 0; lane < count; lane++)
        for (int64_t d = 0; d < dim; d++) tile->out[first + lane][d] = o[d * lanes + lane];
    memcpy(tile->max + first, m, count * sizeof *m);
    memcpy(tile->sum + first, l, count * sizeof *l);
}

/* The sum of a vector's lanes, by halves. */
INLINE float total(vec x) {
#if defined(__AVX512F__)
    typedef float half __attribute__((vector_size(32)));
    half low, high;
    memcpy(&low, &x, sizeof low), memcpy(&high, (char *)&x + sizeof low, sizeof high);
    low += high;
#else
    vec low = x;
#endif
#if defined(__AVX__)
    typedef float quarter __attribute__((vector_size(16)));
    quarter a, b;
    memcpy(&a, &low, sizeof a), memcpy(&b, (char *)&low + sizeof a, sizeof b);
    a += b;
#else
    vec a = low;
#endif
    return (a[0] + a[2]) + (a[1] + a[3]);
}

/* Lane k is the sum of the lanes of x[k], by halves as in `total`; x is used up. Of two vectors that
 * are folded into one, lanes without the bit `half` hold the first, the others the second. */
INLINE vec totals(vec *x) {
#if defined(__clang__)
    vec found;
    for (int lane = 0; lane < LANES; lane++) found[lane] = total(x[lane]);
    return found;
#else
#define PLACE(half, lane) ((lane) & (half) ? LANES + (lane) - (half) : (lane))
#define FOUR(half, lane)                                                                       \
    PLACE(half, lane), PLACE(half, lane + 1), PLACE(half, lane + 2), PLACE(half, lane + 3)
#if defined(__AVX512F__)
#define PLACES(half) {FOUR(half, 0), FOUR(half, 4), FOUR(half, 8), FOUR(half, 12)}
#elif defined(__AVX__)
#define PLACES(half) {FOUR(half, 0), FOUR(half, 4)}
#else
#define PLACES(half) {FOUR(half, 0)}
#endif
    static const ivec places[] = {[1] = PLACES(1), [2] = PLACES(2), [4] = PLACES(4), [8] = PLACES(8)};
    UNROLLED for (int half = LANES / 2; half; half /= 2)
        UNROLLED for (int i = 0; i < half; i++)
            x[i] = __builtin_shuffle(x[i], x[i + half], places[half]) +
                   __builtin_shuffle(x[i], x[i + half], places[half] + half);
    return x[0];
#endif
}

/* nq queries and up to KEYS keys anywhere; here a head's numbers lie in the lanes of nd vectors. */
INLINE void meet(int nd, int nq, Tile *tile, int at, const float *keys, const float *values,
                 const int64_t *places, int count) {
    vec blocks[MOST][KEYS / LANES], shrink[MOST];
    for (int k = 0; k < count; k += LANES) {
        vec products[MOST][LANES];
        for (int lane = 0; lane < LANES; lane++) {
            const loose *key = (const loose *)(keys + places[k + lane < count ? k + lane : k]);
            for (int q = 0; q < nq; q++) {
                const vec *query = (const vec *)tile->query[at + q];
                vec sum = query[0] * key[0];
                for (int i = 1; i < nd; i++) sum += query[i] * key[i];
                products[q][lane] = sum;
            }
        }
        for (int q = 0; q < nq; q++) blocks[q][k / LANES] = totals(products[q]) * tile->scale;
    }
    for (int q = 0; q < nq; q++) {
        float *weights = (float *)blocks[q], top = tile->max[at + q];
        vec sums = {0}, tops = (vec){} + top;
        for (int k = count; k % LANES; k++) weights[k] = -INFINITY; /* weighs nothing */
        for (int k = 0; k < count; k += LANES) tops = larger(blocks[q][k / LANES], tops);
        for (int lane = 0; lane < LANES; lane++) top = tops[lane] > top ? tops[lane] : top;
        for (int k = 0; k < count; k += LANES) {
            blocks[q][k / LANES] = expv(blocks[q][k / LANES] - top);
            sums += blocks[q][k / LANES];
        }
        shrink[q] = expv((vec){} + (tile->max[at + q] - top));
        tile->sum[at + q] = tile->sum[at + q] * shrink[q][0] + total(sums);
        tile->max[at + q] = top;
    }
    vec held[MOST][MAX_HEAD_DIM / LANES] = {0};
    for (int k = 0; k < count; k++) {
        const loose *value = (const loose *)(values + places[k]);
        for (int q = 0; q < nq; q++)
            for (int i = 0; i < nd; i++) held[q][i] += ((const float *)blocks[q])[k] * value[i];
    }
    for (int q = 0; q < nq; q++) {
        vec *out = (vec *)tile->out[at + q];
        for (int i = 0; i < nd; i++) out[i] = out[i] * shrink[q] + held[q][i];
    }
}

/* As `meet`, for any number of queries. */
INLINE void meet_all(int nd, Tile *tile, int first, int n, const float *keys, const float *values,
                     const int64_t *places, int count) {
    int most = SUMS / nd < MOST ? SUMS / nd : MOST, left;
    for (int at = first; (left = first + n - at) > 0; at += most)
        switch (left < most ? left : most) { /* as constants, so that sums stay in registers */
        case 4: meet(nd, 4, tile, at, keys, values, places, count); break;
        case 3: meet(nd, 3, tile, at, keys, values, places, count); break;
        case 2: meet(nd, 2, tile, at, keys, values, places, count); break;
        default: meet(nd, 1, tile, at, keys, values, places, count);
        }
}

/* As `meet`, for queries first .. first + n - 1 of a tile. */
static void alone(Tile *tile, int first, int n, const float *keys, const float *values,
                  const int64_t *places, int count, int64_t dim) {
    switch (dim / LANES) {
    case 1: meet_all(1, tile, first, n, keys, values, places, count); break;
    case 2: meet_all(2, tile, first, n, keys, values, places, count); break;
    case 4: meet_all(4, tile, first, n, keys, values, places, count); break;
    case 8: meet_all(8, tile, first, n, keys, values, places, count); break;
    default:
        for (int at = first; at < first + n; at++)
            meet(dim / LANES, 1, tile, at, keys, values, places, count);
    }
}

/* A run of keys for queries of a tile; a quarter of a vector of them fares better one by one. */
INLINE void run_of(Tile *tile, int first, int count, const float *keys, const float *values,
                   int64_t n, int64_t dim) {
    if (count <= LANES / 4)
        for (int64_t start = 0; start < n; start += KEYS) {
            int64_t places[KEYS], some = n - start < KEYS ? n - start : KEYS;
            for (int64_t k = 0; k < some; k++) places[k] = (start + k) * dim;
            alone(tile, first, count, keys, values, places, some, dim);
        }
    else if (count <= LANES)
        together(1, tile, first, count, keys, values, n, dim);
    else if (count <= 2 * LANES)
        together(2, tile, first, count, keys, values, n, dim);
    else
        together(VECTORS, tile, first, count, keys, values, n, dim);
}

/* A segment for queries first .. first + count - 1 of a tile. */
static void segment(Tile *tile, int first, int count, const float *keys, const float *values,
                    int64_t n, int64_t dim) {
    for (int64_t start = 0; start < n; start += RUN) {
        int64_t some = n - start < RUN ? n - start : RUN;
        run_of(tile, first, count, keys + start * dim, values + start * dim, some, dim);
        for (int at = first; at < first + count; at++) count_keys(tile, at, some, dim);
    }
}

/* A segment that queries first .. first + count - 1 see from a key of their own on: from[at], 0 to
 * n. What all of them see they meet together, what comes before that each for itself. */
static void segment_from(Tile *tile, int first, int count, const int64_t *from, const float *keys,
                         const float *values, int64_t n, int64_t dim) {
    int64_t common = 0;
    for (int at = first; at < first + count; at++) common = from[at] > common ? from[at] : common;
    for (int at = first; at < first + count; at++)
        if (from[at] < common)
            segment(tile, at, 1, keys + from[at] * dim, values + from[at] * dim, common - from[at],
                    dim);
    if (common < n)
        segment(tile, first, count, keys + common * dim, values + common * dim, n - common, dim);
}

/* Where a row's tail has up to KEYS tokens from `start` on; how many they are. What is there comes
 * into a cache meanwhile: tails are anywhere in memory. */
static int places_of(const Step *s, int64_t row, int64_t start, const float *keys,
                     const float *values, int64_t *places) {
    int64_t left = s->lengths && row < s->rows ? s->lengths[row] - start : 0;
    int64_t size = s->page_tokens, dim = s->head_dim;
    int count = left < 0 ? 0 : left < KEYS ? left : KEYS;
    for (int k = 0; k < count; k++) {
        int64_t token = start + k, page = s->pages[row * s->width + token / size];
        places[k] = (page * size + token % size) * dim;
        for (int64_t d = 0; d < dim; d += LINE) {
            __builtin_prefetch(keys + places[k] + d, 0, 2); /* the second: the first is too small */
            __builtin_prefetch(values + places[k] + d, 0, 2);
        }
    }
    return count;
}

/* The tails of the rows of queries 0 .. count - 1 of a tile, which begin with query `first` of a kv
 * head. */
static void tails(Tile *tile, int first, int count, const Step *s, const float *keys,
                  const float *values) {
    int group = s->q_heads / s->kv_heads, at = 0;
    int64_t row = first / group, start = s->skipped ? s->skipped[row] : 0, places[2][KEYS];
    int some = places_of(s, row, start, keys, values, places[0]);
    for (int turn = 0; at < count; turn ^= 1) {
        int end = (row + 1) * group - first, n = (end < count ? end : count) - at; /* of this row */
        int is_last = !s->lengths || start + some >= s->lengths[row];
        int64_t next = is_last ? row + 1 : row;
        int64_t from = !is_last ? start + some : s->skipped && next < s->rows ? s->skipped[next] : 0;
        int more = places_of(s, next, from, keys, values, places[!turn]);
        if (some) alone(tile, at, n, keys, values, places[turn], some, s->head_dim);
        for (int query = at; query < at + n; query++) count_keys(tile, query, some, s->head_dim);
        at += is_last ? n : 0, row = next, start = from, some = more;
    }
}

/* Queries first .. first + count - 1 of a kv head, numbered row by row. */
static void attend(const Step *s, int64_t head, int64_t first, int count) {
    int64_t group = s->q_heads / s->kv_heads, dim = s->head_dim;
    const float *keys = s->keys + head * s->key_head, *values = s->values + head * s->value_head;
    Tile tile;
    tile.scale = s->scale;
    for (int at = 0; at < count; at++) {
        int64_t row = (first + at) / group, own = head * group + (first + at) % group;
        const float *query = s->queries + row * s->query_row + own * s->query_head;
        for (int64_t d = 0; d < dim; d++)
            tile.query[at][d] = query[d], tile.out[at][d] = tile.all_out[at][d] = 0.0f;
        tile.max[at] = tile.all_max[at] = LOWEST, tile.sum[at] = tile.all_sum[at] = 0.0f;
        tile.met[at] = 0;
    }
    for (int64_t i = 0; i < s->n_items; i++) {
        const int32_t *item = s->items + i * ITEM_WIDTH;
        int64_t start = item[ITEM_QUERY_START], stop = start + item[ITEM_QUERY_COUNT];
        int64_t from = start * group - first, to = stop * group - first;
        int64_t place = item[ITEM_SLOT_START] * dim;
        from = from < 0 ? 0 : from, to = to > count ? count : to;
        int64_t n = item[ITEM_SLOT_COUNT], seen[TILE];
        for (int64_t at = from; at < to; at++) {
            int64_t skip = s->first ? s->first[(first + at) / group] - s->positions[i] : 0;
            seen[at] = skip < 0 ? 0 : skip > n ? n : skip;
        }
        if (from < to)
            segment_from(&tile, from, to - from, seen, keys + place, values + place, n, dim);
    }
    tails(&tile, first, count, s, keys, values);
    for (int at = 0; at < count; at++) {
        int64_t row = (first + at) / group, own = head * group + (first + at) % group;
        end_run(&tile, at, dim);
        float sum = tile.all_sum[at], factor = sum == 0.0f ? 0.0f : 1.0f / sum; /* 0: met no key */
        float *out = s->out + (row * s->q_heads + own) * dim;
        for (int64_t d = 0; d < dim; d++) out[d] = tile.all_out[at][d] * factor;
        s->lse[row * s->q_heads + own] =
            sum == 0.0f ? -INFINITY : tile.all_max[at] + logf(sum);
    }
}

int lanes(void) { return LANES; }

int max_head_dim(void) { return MAX_HEAD_DIM; }

void decode_attention(const Step *step) {
    int64_t queries = step->rows * (step->q_heads / step->kv_heads);
    int64_t tiles = (queries + TILE - 1) / TILE, tasks = step->kv_heads * tiles;
#pragma omp parallel for schedule(dynamic) num_threads(step->threads)
    for (int64_t task = 0; task < tasks; task++) {
        int64_t first = task % tiles * TILE, left = queries - first;
        attend(step, task / tiles, first, left < TILE ? left : TILE);
    }
}
