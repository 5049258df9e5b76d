/* e^(scale (x - max x)) of a row, and their sum: what softmax is made of. */
#ifndef EXPONENTIALS_H
#define EXPONENTIALS_H

#include "scalar.h"

/* Numbers that are computed at once. A row is filled up to a multiple of it: what is left over would
 * be computed one by one, which takes most of the time of short rows. */
#define AT_ONCE 16

static inline int64_t filled_up(int64_t count) { return (count + AT_ONCE - 1) / AT_ONCE * AT_ONCE; }

static inline float most(const scalar *x, int64_t count)
{
    float found = wide(x[0]);
#pragma omp simd reduction(max : found)
    for (int64_t i = 1; i < count; i++)
        found = wide(x[i]) > found ? wide(x[i]) : found;
    return found;
}

/* Into `found`, which has room for filled_up(count). `highest` is the largest x. */
static inline float exponentials(const scalar *x, int64_t count, float scale, float highest,
                                 float *found)
{
    float total = 0;
    for (int64_t i = 0; i < count; i++)
        found[i] = scale * (wide(x[i]) - highest);
    for (int64_t i = count; i < filled_up(count); i++)
        found[i] = -INFINITY;
    for (int64_t i = 0; i < filled_up(count); i++) {
        found[i] = power(found[i]);
        total += found[i];
    }
    return total;
}

#endif
