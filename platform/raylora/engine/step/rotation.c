/* Rotary positions (Su et al., 2021) of a step's queries and keys, and the cache's new column.
 * Roundings are where torch makes them: after each of its operations.
 */
#include "scalar.h"

/* The largest half of a head. */
#define MOST 128

/* cos and sin [size] of the row's position. out may be x. */
static inline void rotate(const scalar *x, const scalar *cos, const scalar *sin, int64_t size,
                          scalar *out)
{
    int64_t half = size / 2;
    scalar low[MOST], high[MOST];
    memcpy(low, x, half * sizeof *x);
    memcpy(high, x + half, half * sizeof *x);
    for (int64_t i = 0; i < half; i++) {
        float turned = wide(narrow(-wide(high[i]) * wide(sin[i])));
        out[i] = narrow(wide(narrow(wide(low[i]) * wide(cos[i]))) + turned);
    }
    for (int64_t i = 0; i < half; i++) {
        float turned = wide(narrow(wide(low[i]) * wide(sin[half + i])));
        out[half + i] = narrow(wide(narrow(wide(high[i]) * wide(cos[half + i]))) + turned);
    }
}

/* Rotates q [rows, heads, size] in place, and k [rows, kv_heads, size] into a column of keys; v
 * goes into that of values. Keys and values are [rows, kv_heads, columns, size], whose rows and
 * heads are row_stride and head_stride elements apart; cos and sin [rows, size]. */
void rotate_and_keep(scalar *q, const scalar *k, const scalar *v, const scalar *cos,
                     const scalar *sin, scalar *keys, scalar *values, int64_t row_stride,
                     int64_t head_stride, int64_t column, int64_t rows, int64_t heads,
                     int64_t kv_heads, int64_t size)
{
    for (int64_t row = 0; row < rows; row++, cos += size, sin += size) {
        for (int64_t head = 0; head < heads; head++, q += size)
            rotate(q, cos, sin, size, q);
        for (int64_t head = 0; head < kv_heads; head++, k += size, v += size) {
            int64_t place = row * row_stride + head * head_stride + column * size;
            rotate(k, cos, sin, size, keys + place);
            memcpy(values + place, v, size * sizeof *v);
        }
    }
}

/* The same for the tokens of prompts: token t's key and value go to row rows[t], column
 * columns[t]. */
void rotate_and_place(scalar *q, const scalar *k, const scalar *v, const scalar *cos,
                      const scalar *sin, scalar *keys, scalar *values, int64_t row_stride,
                      int64_t head_stride, const int64_t *rows, const int64_t *columns,
                      int64_t tokens, int64_t heads, int64_t kv_heads, int64_t size, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t t = 0; t < tokens; t++) {
        int64_t place = rows[t] * row_stride;
        rotate_and_keep(q + t * heads * size, k + t * kv_heads * size, v + t * kv_heads * size,
                        cos + t * size, sin + t * size, keys + place, values + place, 0,
                        head_stride, columns[t], 1, heads, kv_heads, size);
    }
}
