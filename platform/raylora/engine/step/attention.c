/* softmax(q k' scale) v for one query a row: each key and value is read once for all the heads that
 * share it. Torch's products for it were made for many queries; they take twice to three times as
 * long.
 *
 * Columns come in pieces, and what was summed up is scaled down where a piece has a higher score
 * (Milakov and Gimelshein, 2018). Sums and weights are fp32, and rounded once.
 */
#include "scalar.h"

/* Columns of a piece, and the largest head. */
#define PIECE 64
#define MOST 256

/* `heads` queries over the same keys and values. */
static inline __attribute__((always_inline)) void attend(const scalar *q, const scalar *k,
                                                         const scalar *v, const uint8_t *seen,
                                                         int64_t columns, int64_t size,
                                                         float scale, scalar *out,
                                                         const int heads)
{
    float own[heads][MOST], sums[heads][MOST], scores[heads][PIECE];
    float highest[heads], total[heads];
    for (int h = 0; h < heads; h++) {
        highest[h] = -INFINITY;
        total[h] = 0;
        for (int64_t i = 0; i < size; i++) {
            own[h][i] = wide(q[h * size + i]) * scale;
            sums[h][i] = 0;
        }
    }
    for (int64_t first = 0; first < columns; first += PIECE) {
        int64_t wanted = columns - first < PIECE ? columns - first : PIECE;
        for (int64_t c = 0; c < wanted; c++) {
            const scalar *key = k + (first + c) * size;
            float found[heads];
            for (int h = 0; h < heads; h++)
                found[h] = 0;
            for (int64_t i = 0; i < size; i++) {
                float x = wide(key[i]);
                for (int h = 0; h < heads; h++)
                    found[h] += own[h][i] * x;
            }
            for (int h = 0; h < heads; h++)
                scores[h][c] = found[h];
        }
        for (int h = 0; h < heads; h++) {
            float best = highest[h], more = 0;
            if (seen)
                for (int64_t c = 0; c < wanted; c++)
                    scores[h][c] = seen[first + c] ? scores[h][c] : -INFINITY;
            for (int64_t c = 0; c < wanted; c++)
                best = scores[h][c] > best ? scores[h][c] : best;
            float less = best == highest[h] ? 1 : power(highest[h] - best);
            for (int64_t c = 0; c < wanted; c++) {
                scores[h][c] = scores[h][c] == -INFINITY ? 0 : power(scores[h][c] - best);
                more += scores[h][c];
            }
            for (int64_t i = 0; i < size; i++)
                sums[h][i] *= less;
            total[h] = total[h] * less + more;
            highest[h] = best;
        }
        for (int64_t c = 0; c < wanted; c++) {
            const scalar *value = v + (first + c) * size;
            for (int64_t i = 0; i < size; i++) {
                float x = wide(value[i]);
                for (int h = 0; h < heads; h++)
                    sums[h][i] += scores[h][c] * x;
            }
        }
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
            const uint8_t *own = seen ? seen + row * seen_stride : 0;
            int64_t start = (row * kv_heads + head) * groups * size, g = 0;
            for (; g + 4 <= groups; g += 4, start += 4 * size)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 4);
            if (groups - g == 3)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 3);
            else if (groups - g == 2)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 2);
            else if (groups - g == 1)
                attend(q + start, keys, values, own, columns, size, scale, out + start, 1);
        }
}
