/* What kernel.c does, by the instructions for bf16: half of its time where several rows share an
 * adapter, three quarters of it for 64 rows of 64 adapters. */
#include "by_dots.h"

static void shrink(const struct batch *batch, const struct input *input, int64_t ranks,
                   scalar *products)
{
#pragma omp for collapse(2) schedule(static)
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t j = 0; j < ranks; j += NARROW)
            shrink_by_dots(batch, input, s, j, ranks, products);
}

static void expand(const struct batch *batch, const struct part *part, int64_t ranks, int64_t rank)
{
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t o = 0; o < part->width; o += WIDE)
            expand_by_dots(batch, part, s, o, ranks, rank);
}
