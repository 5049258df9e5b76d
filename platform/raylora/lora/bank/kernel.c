/* One token a row: each row's own B A x, added to what the base gave it.
 *
 * A step is bound by reading its adapters once. Torch's batched products read them at half of that
 * speed and less: they rearrange 16-bit matrices at every call, and gather and scatter rows.
 *
 * Sums are fp32, rounded where PEFT rounds: after each product, the scale
 * and the sum. Ranks are multiples of 8.
 */
#include "batch.h"
#include "scalar.h"

/* Outputs that are summed up at once. */
#define BLOCK 256

/* Processors fetch ahead within 4 KB; the pieces here are shorter. A fifth of a bf16 step. */
static inline void fetch(const stored *from, int64_t count)
{
    for (int64_t i = 0; i < count; i += 64 / (int64_t)sizeof *from)
        __builtin_prefetch(from + i);
}

/* products [rows, ranks] = A x, for x [batch, width], A [slots, ranks, width]. */
void shrink(const struct batch *batch, const scalar *x, int64_t x_stride, const stored *a,
            int64_t stride, int64_t width, int64_t ranks, scalar *products, int threads)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t j = 0; j < ranks; j += 2) {
            const stored *first = a + batch->slots[s] * stride + j * width;
            const stored *second = first + width;
            int64_t k = batch->starts[s], end = batch->starts[s + 1];
            fetch(second + width, 2 * width);
            for (; k + 1 < end; k += 2) {
                const scalar *here = x + batch->rows[k] * x_stride;
                const scalar *next = x + batch->rows[k + 1] * x_stride;
                float h1 = 0, h2 = 0, n1 = 0, n2 = 0;
                for (int64_t i = 0; i < width; i++) {
                    float u = wide_stored(first[i]), v = wide_stored(second[i]);
                    h1 += u * wide(here[i]);
                    h2 += v * wide(here[i]);
                    n1 += u * wide(next[i]);
                    n2 += v * wide(next[i]);
                }
                products[k * ranks + j] = narrow(h1);
                products[k * ranks + j + 1] = narrow(h2);
                products[(k + 1) * ranks + j] = narrow(n1);
                products[(k + 1) * ranks + j + 1] = narrow(n2);
            }
            if (k < end) {
                const scalar *here = x + batch->rows[k] * x_stride;
                float h1 = 0, h2 = 0;
                for (int64_t i = 0; i < width; i++) {
                    h1 += wide_stored(first[i]) * wide(here[i]);
                    h2 += wide_stored(second[i]) * wide(here[i]);
                }
                products[k * ranks + j] = narrow(h1);
                products[k * ranks + j + 1] = narrow(h2);
            }
        }
}

/* out [batch, width] += scale (products B), for B [slots, rank, width] and those `rank` columns of
 * products [rows, ranks] that `products` points to; scales [rows] is NULL where all are 1. */
void expand(const struct batch *batch, const scalar *products, int64_t ranks, const stored *b,
            int64_t stride, int64_t width, int64_t rank, const float *scales, scalar *out,
            int64_t out_stride, int threads)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t o = 0; o < width; o += BLOCK)
            for (int64_t k = batch->starts[s]; k < batch->starts[s + 1]; k++) {
                const stored *from = b + batch->slots[s] * stride + o;
                scalar *to = out + batch->rows[k] * out_stride + o;
                int64_t wanted = width - o < BLOCK ? width - o : BLOCK;
                float sums[BLOCK] = {0};
                for (int64_t j = 0; j < rank; j += 4, from += 4 * width) {
                    const scalar *own = products + k * ranks + j;
                    float p0 = wide(own[0]), p1 = wide(own[1]);
                    float p2 = wide(own[2]), p3 = wide(own[3]);
                    if (k == batch->starts[s])
                        for (int64_t ahead = 4; ahead < 8; ahead++)
                            fetch(from + ahead * width, wanted);
                    const stored *second = from + width, *third = second + width;
                    const stored *fourth = third + width;
                    for (int64_t i = 0; i < wanted; i++)
                        sums[i] += p0 * wide_stored(from[i]) + p1 * wide_stored(second[i])
                                 + p2 * wide_stored(third[i]) + p3 * wide_stored(fourth[i]);
                }
                for (int64_t i = 0; i < wanted; i++) {
                    float delta = wide(narrow(sums[i]));
                    if (scales)
                        delta = wide(narrow(delta * scales[k]));
                    to[i] = narrow(wide(to[i]) + delta);
                }
            }
}
