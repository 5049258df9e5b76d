/* B A x of a batch, added to the outputs of layers that have one input. */
#ifndef ADAPT_H
#define ADAPT_H

#include "batch.h"
#include "scalar.h"

/* x [batch, width], whose rows are x_stride elements apart, and A [slots, ranks, width]. */
struct input {
    const scalar *x;
    int64_t x_stride;
    const stored *a;
    int64_t stride, width;
};

/* One layer: B [slots, rank, width], those `rank` columns of [rows, ranks] that are its products
 * with A, scales [rows] or NULL where all are 1, out [batch, width]. */
struct part {
    const stored *b;
    int64_t stride, width;
    const scalar *products;
    const float *scales;
    scalar *out;
    int64_t out_stride;
};

/* products [rows, ranks] = A x. Inside of a parallel region, whose threads share the work. */
static void shrink(const struct batch *batch, const struct input *input, int64_t ranks,
                   scalar *products);

/* out += scale (products B). */
static void expand(const struct batch *batch, const struct part *part, int64_t ranks, int64_t rank);

/* input is NULL where the products are there already. */
void adapt(const struct batch *batch, const struct input *input, int64_t ranks, scalar *products,
           const struct part *parts, int64_t count, int64_t rank, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        if (input)
            shrink(batch, input, ranks, products);
        for (const struct part *part = parts; part < parts + count; part++)
            expand(batch, part, ranks, rank);
    }
}

#endif
