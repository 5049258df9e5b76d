/* softmax(q k' scale) v for one query a row: each key and value is read once for all the heads that
 * share it. Torch's products for it were made for many queries; they take twice to three times as
 * long.
 *
 * Columns come in pieces, and what was summed up is scaled down where a piece has a higher score
 * (Milakov and Gimelshein, 2018). Sums and weights are fp32, and rounded once.
 */
#include "scalar.h"
#if defined(BF16) && defined(__AVX512BF16__)
#include "dots.h"
#endif

/* Columns of a piece, and the largest head. */
#define PIECE 64
#define MOST 256
/* Numbers of bf16 in a line of a cache. Keys and values of a step lie in memory: waiting for them took
 * half of its time. */
#define LINE 32
/* Queries that meet a key at once. */
#define TOGETHER 4

/* scores [heads, PIECE] = scale q k' for `count` keys. As many values at `soon` are fetched. */
static inline __attribute__((always_inline)) void score(const scalar *q, const scalar *k,
                                                        int64_t count, int64_t size, float scale,
                                                        float (*scores)[PIECE], const int heads,
                                                        const scalar *soon)
{
#ifdef DOTS_H
    const scalar *rows[TOGETHER];
    for (int h = 0; h < heads; h++)
        rows[h] = q + h * size;
    for (int64_t c = 0; c < count; c += 4) {
        const scalar *keys = k + c * size;
        for (int64_t i = 0; i < 4 * size; i += LINE)
            __builtin_prefetch(soon + c * size + i);
        scalar last[4 * MOST];
        if (count - c < 4) {
            memcpy(last, keys, (count - c) * size * sizeof *last);
            memset(last + (count - c) * size, 0, (4 - count + c) * size * sizeof *last);
            keys = last;
        }
        float found[LANES];
        __m512 sums = dots(rows, heads, keys, size, 0, 0, 0);
        _mm512_storeu_ps(found, _mm512_mul_ps(sums, _mm512_set1_ps(scale)));
        for (int h = 0; h < heads; h++)
            memcpy(scores[h] + c, found + 4 * h, 4 * sizeof *found);
    }
#else
    float own[TOGETHER][MOST];
    for (int h = 0; h < heads; h++)
        for (int64_t i = 0; i < size; i++)
            own[h][i] = wide(q[h * size + i]) * scale;
    for (int64_t c = 0; c < count; c++) {
        const scalar *key = k + c * size;
        float found[TOGETHER] = {0};
        for (int64_t i = 0; i < size; i++) {
            float x = wide(key[i]);
            for (int h = 0; h < heads; h++)
                found[h] += own[h][i] * x;
        }
        for (int h = 0; h < heads; h++)
            scores[h][c] = found[h];
    }
#endif
}

/* sums [heads, MOST] += weights v for `count` values. As many keys at `soon` are fetched. */
static inline __attribute__((always_inline)) void add(float (*sums)[MOST],
                                                      float (*weights)[PIECE], const scalar *v,
                                                      int64_t count, int64_t size,
                                                      const int heads, const scalar *soon)
{
    int64_t done = 0;
#ifdef DOTS_H
    /* In registers while all values go by. */
    for (; done + 4 * LANES <= size; done += 4 * LANES) {
        __m512 own[TOGETHER][4];
        for (int h = 0; h < heads; h++)
            for (int j = 0; j < 4; j++)
                own[h][j] = _mm512_loadu_ps(sums[h] + done + j * LANES);
        for (int64_t c = 0; c < count; c++) {
            for (int64_t i = 0; i < 4 * LANES; i += LINE)
                __builtin_prefetch(soon + c * size + done + i);
            for (int j = 0; j < 4; j++) {
                const scalar *value = v + c * size + done + j * LANES;
                __m256i narrow = _mm256_loadu_si256((const __m256i *)value);
                __m512i bits = _mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16);
                for (int h = 0; h < heads; h++)
                    own[h][j] = _mm512_fmadd_ps((__m512)bits, _mm512_set1_ps(weights[h][c]),
                                                own[h][j]);
            }
        }
        for (int h = 0; h < heads; h++)
            for (int j = 0; j < 4; j++)
                _mm512_storeu_ps(sums[h] + done + j * LANES, own[h][j]);
    }
#endif
    for (int64_t c = 0; c < count; c++)
        for (int64_t i = done; i < size; i++) {
            float x = wide(v[c * size + i]);
            for (int h = 0; h < heads; h++)
                sums[h][i] += weights[h][c] * x;
        }
}

/* `heads` queries, at most TOGETHER, over the same keys and values; `next` are the next ones' keys. */
static inline __attribute__((always_inline)) void attend(const scalar *q, const scalar *k,
                                                         const scalar *v, const uint8_t *seen,
                                                         int64_t columns, int64_t size,
                                                         float scale, scalar *out,
                                                         const int heads, const scalar *next)
{
    float sums[TOGETHER][MOST], scores[TOGETHER][PIECE];
    float highest[TOGETHER], total[TOGETHER];
    for (int h = 0; h < heads; h++) {
        highest[h] = -INFINITY;
        total[h] = 0;
        for (int64_t i = 0; i < size; i++)
            sums[h][i] = 0;
    }
    for (int64_t first = 0; first < columns; first += PIECE) {
        int64_t wanted = columns - first < PIECE ? columns - first : PIECE;
        /* What is left over of a multiple of 16 would be computed one by one. */
        int64_t whole = (wanted + 15) / 16 * 16;
        score(q, k + first * size, wanted, size, scale, scores, heads, v + first * size);
        for (int h = 0; h < heads; h++) {
            float *own = scores[h], best = highest[h], more = 0;
            for (int64_t c = wanted; c < whole; c++)
                own[c] = -INFINITY;
            if (seen)
                for (int64_t c = 0; c < wanted; c++)
                    own[c] = seen[first + c] ? own[c] : -INFINITY;
#pragma omp simd reduction(max : best)
            for (int64_t c = 0; c < whole; c++)
                best = own[c] > best ? own[c] : best;
            float less = best == highest[h] ? 1 : power(highest[h] - best);
            for (int64_t c = 0; c < whole; c++) {
                own[c] = own[c] == -INFINITY ? 0 : power(own[c] - best);
                more += own[c];
            }
            for (int64_t i = 0; i < size; i++)
                sums[h][i] *= less;
            total[h] = total[h] * less + more;
            highest[h] = best;
        }
        add(sums, scores, v + first * size, wanted, size, heads, next + first * size);
    }
    for (int h = 0; h < heads; h++)
        for (int64_t i = 0; i < size; i++)
            out[h * size + i] = narrow(sums[h][i] / total[h]);
}

/* out and q [rows, kv_heads * groups, size]; k and v [rows, kv_heads, columns, size], whose rows
 * and heads are row_stride and head_stride elements apart; seen [rows, columns], rows seen_stride
 * apart, or NULL where every column is. size is at most MOST. */
void step_attention(const scalar *q, const scalar *k, const scalar *v, int64_t row_stride,
                    int64_t head_stride, const uint8_t *seen, int64_t seen_stride, int64_t rows,
                    int64_t kv_heads, int64_t groups, int64_t columns, int64_t size, float scale,
                    scalar *out, int threads)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++)
        for (int64_t head = 0; head < kv_heads; head++) {
            const scalar *keys = k + row * row_stride + head * head_stride;
            const scalar *values = v + row * row_stride + head * head_stride;
            const scalar *next = keys + (head + 1 < kv_heads ? head_stride
                                                             : row_stride - head * head_stride);
            const uint8_t *own = seen ? seen + row * seen_stride : 0;
            int64_t start = (row * kv_heads + head) * groups * size, g = 0;
            for (; g + 4 <= groups; g += 4, start += 4 * size)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 4,
                       next);
            if (groups - g == 3)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 3,
                       next);
            else if (groups - g == 2)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 2,
                       next);
            else if (groups - g == 1)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 1,
                       next);
        }
}
