/* One token a row: each row's own B A x, added to what the base gave it.
 *
 * A step is bound by reading its adapters once. Torch's batched products read them at half of that
 * speed and less: they rearrange 16-bit matrices at every call, and gather and scatter rows.
 *
 * Sums are fp32, rounded where PEFT rounds: after each product, the scale
 * and the sum. Ranks are multiples of 8.
 */
#include "adapt.h"

/* Outputs that are summed up at once. */
#define BLOCK 256

/* Processors fetch ahead within 4 KB; the pieces here are shorter. A fifth of a bf16 step. */
static inline void fetch(const stored *from, int64_t count)
{
    for (int64_t i = 0; i < count; i += 64 / (int64_t)sizeof *from)
        __builtin_prefetch(from + i);
}

static void shrink(const struct batch *batch, const struct input *input, int64_t ranks,
                   scalar *products)
{
    const scalar *x = input->x;
    int64_t width = input->width;
#pragma omp for collapse(2) schedule(static)
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t j = 0; j < ranks; j += 2) {
            const stored *first = input->a + batch->slots[s] * input->stride + j * width;
            const stored *second = first + width;
            int64_t k = batch->starts[s], end = batch->starts[s + 1];
            fetch(second + width, 2 * width);
            for (; k + 1 < end; k += 2) {
                const scalar *here = x + batch->rows[k] * input->x_stride;
                const scalar *next = x + batch->rows[k + 1] * input->x_stride;
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
                const scalar *here = x + batch->rows[k] * input->x_stride;
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

static void expand(const struct batch *batch, const struct part *part, int64_t ranks, int64_t rank)
{
    int64_t width = part->width;
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t o = 0; o < width; o += BLOCK)
            for (int64_t k = batch->starts[s]; k < batch->starts[s + 1]; k++) {
                const stored *from = part->b + batch->slots[s] * part->stride + o;
                scalar *to = part->out + batch->rows[k] * part->out_stride + o;
                int64_t wanted = width - o < BLOCK ? width - o : BLOCK;
                float sums[BLOCK] = {0};
                for (int64_t j = 0; j < rank; j += 4, from += 4 * width) {
                    const scalar *own = part->products + k * ranks + j;
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
                    if (part->scales)
                        delta = wide(narrow(delta * part->scales[k]));
                    to[i] = narrow(wide(to[i]) + delta);
                }
            }
}
