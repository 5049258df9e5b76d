/* softmax(q k' scale) v for the tokens of prompts, by the instructions for bf16: each token sees its
 * row's columns up to its own, and nothing is computed for what pads the others.
 *
 * Scores and their sums are fp32; weights are rounded to bf16 before they meet v, as torch does it.
 */
#include "chains.h"

#include <stdlib.h>

/* Scores at once. */
#define SCORES CHAIN_SUMS

/* Queries at once: all heads of the tokens one after another that share keys and values. */
#define QUERIES CHAIN_ROWS

/* Up to 8 queries of one row. Query i sees the first sees[i] columns, the last one most. */
struct queries {
    const scalar *q[QUERIES];
    scalar *out[QUERIES];
    int64_t sees[QUERIES];
};

static int64_t up_to(int64_t count, int64_t multiple)
{
    return (count + multiple - 1) / multiple * multiple;
}

/* scores [queries, 16] of 16 columns. */
static inline __attribute__((always_inline)) void
score(const scalar *const *q, int count, const int32_t *keys, int64_t size, float *scores)
{
    for (int i = 0; i < count; i++)
        _mm512_store_ps(scores + SCORES * i, _mm512_setzero_ps());
    add_chains(q, count, keys, size, scores);
}

/* To weights in bf16, not normalised, and zeros up to `room`; their sum. */
static inline float weigh(const float *scores, int64_t sees, int64_t room, float scale,
                          scalar *weights)
{
    float highest = -INFINITY, total = 0;
    for (int64_t c = 0; c < sees; c++)
        highest = scores[c] > highest ? scores[c] : highest;
    for (int64_t c = 0; c < sees; c++) {
        float weight = power((scores[c] - highest) * scale);
        weights[c] = narrow(weight);
        total += weight;
    }
    memset(weights + sees, 0, (room - sees) * sizeof *weights);
    return total;
}

/* 32 outputs of each query: weights [queries, stride] times v [most, size]. */
static inline __attribute__((always_inline)) void
mix(const scalar *weights, int count, int64_t stride, const scalar *v, int64_t size, int64_t most,
    const float *totals, scalar *const *out, int64_t o)
{
    __m512 low[QUERIES], high[QUERIES];
    for (int i = 0; i < count; i++)
        low[i] = high[i] = _mm512_setzero_ps();
    for (int64_t c = 0; c < most; c += 2) {
        __m512i first = _mm512_loadu_si512(v + c * size + o);
        __m512i second = c + 1 < most ? _mm512_loadu_si512(v + (c + 1) * size + o)
                                      : _mm512_setzero_si512();
        __m512bh those = (__m512bh)_mm512_unpacklo_epi16(first, second);
        __m512bh others = (__m512bh)_mm512_unpackhi_epi16(first, second);
        for (int i = 0; i < count; i++) {
            __m512bh own = pair(weights + i * stride + c);
            low[i] = _mm512_dpbf16_ps(low[i], those, own);
            high[i] = _mm512_dpbf16_ps(high[i], others, own);
        }
    }
    for (int i = 0; i < count; i++) {
        __m512 share = _mm512_set1_ps(1 / totals[i]);
        low[i] = _mm512_mul_ps(low[i], share);
        high[i] = _mm512_mul_ps(high[i], share);
        _mm512_storeu_si512(out[i] + o, narrowed(low[i], high[i]));
    }
}

/* keys: as `turn` leaves them, 16 columns after another; v [columns, size]. The buffers hold 8 times
 * as many scores and weights as there are columns, rounded up to 16. */
static void attend(const struct queries *queries, int count, const int32_t *keys, const scalar *v,
                   int64_t size, float scale, float *buffer, scalar *weights)
{
    int64_t most = queries->sees[count - 1], stride = up_to(most, SCORES);
    _Alignas(64) float scores[QUERIES * SCORES];
    float totals[QUERIES];
    for (int64_t c = 0; c < most; c += SCORES) {
        const int32_t *here = keys + c * size / 2;
        FOR_EACH_NUMBER(score, queries->q, count, here, size, scores)
        for (int i = 0; i < count; i++)
            memcpy(buffer + i * stride + c, scores + SCORES * i, SCORES * sizeof *scores);
    }
    for (int i = 0; i < count; i++)
        totals[i] = weigh(buffer + i * stride, queries->sees[i], stride, scale,
                          weights + i * stride);
    for (int64_t o = 0; o < size; o += OUTPUTS)
        FOR_EACH_NUMBER(mix, weights, count, stride, v, size, most, totals, queries->out, o)
}

/* out and q [tokens, kv_heads * groups, size]: row r's tokens are starts[r] up to starts[r + 1], not
 * included, and its last columns. k and v [rows, kv_heads, columns, size], whose rows and heads are
 * row_stride and head_stride elements apart; a row's first column is firsts[r]. size is a multiple
 * of 32. */
void prompt_attention(const scalar *q, const scalar *k, const scalar *v, int64_t row_stride,
                      int64_t head_stride, const int64_t *starts, const int64_t *firsts,
                      int64_t rows, int64_t kv_heads, int64_t groups, int64_t columns, int64_t size,
                      float scale, scalar *out, int threads)
{
    int64_t heads = kv_heads * groups, room = up_to(columns, SCORES);
#pragma omp parallel num_threads(threads)
    {
        int32_t *keys = aligned_alloc(64, room * size / 2 * sizeof *keys);
        float *buffer = aligned_alloc(64, QUERIES * room * sizeof *buffer);
        scalar *weights = aligned_alloc(64, QUERIES * room * sizeof *weights);
#pragma omp for collapse(2) schedule(dynamic)
        for (int64_t row = 0; row < rows; row++)
            for (int64_t head = 0; head < kv_heads; head++) {
                int64_t first = firsts[row], own = starts[row + 1] - starts[row];
                int64_t seen = columns - first, before = seen - own;
                int64_t place = row * row_stride + head * head_stride + first * size;
                for (int64_t c = 0; c < seen && own; c += SCORES)
                    for (int64_t i = 0; i < size; i += 32)
                        turn(k + place + c * size + i, seen - c < SCORES ? (int)(seen - c) : SCORES,
                             size, ~0u, keys + (c * size + i * SCORES) / 2);
                for (int64_t at = 0; at < own * groups; at += QUERIES) {
                    struct queries queries;
                    int count = 0;
                    for (; count < QUERIES && at + count < own * groups; count++) {
                        int64_t token = (at + count) / groups, group = (at + count) % groups;
                        int64_t there = (starts[row] + token) * heads + head * groups + group;
                        queries.q[count] = q + there * size;
                        queries.out[count] = out + there * size;
                        queries.sees[count] = before + token + 1;
                    }
                    attend(&queries, count, keys, v + place, size, scale, buffer, weights);
                }
            }
        free(keys);
        free(buffer);
        free(weights);
    }
}
