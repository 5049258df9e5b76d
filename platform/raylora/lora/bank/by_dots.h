/* Pieces of what adapt.h names, for any number of rows, by the instructions for bf16. */
#ifndef BY_DOTS_H
#define BY_DOTS_H

#include "adapt.h"
#include "dots.h"
#include "expand.h"

/* Ranks, and outputs, of a piece. */
#define NARROW 4
#define WIDE (2 * OUTPUTS)

/* Products of the rows of the adapter at place s with 4 rows of its A, from j on. */
static inline void shrink_by_dots(const struct batch *batch, const struct input *input, int64_t s,
                                  int64_t j, int64_t ranks, scalar *products)
{
    int64_t width = input->width, end = batch->starts[s + 1];
    const scalar *here = input->a + batch->slots[s] * input->stride + j * width;
    const scalar *ahead = here + NARROW * width;
    int fetched = NARROW;
    for (int64_t k = batch->starts[s]; k < end; k += DOTS_ROWS, fetched = 0) {
        int64_t wanted = end - k < DOTS_ROWS ? end - k : DOTS_ROWS;
        const scalar *from[DOTS_ROWS];
        scalar *to[DOTS_ROWS];
        for (int i = 0; i < wanted; i++) {
            from[i] = input->x + batch->rows[k + i] * input->x_stride;
            to[i] = products + (k + i) * ranks + j;
        }
        __m512 sums = dots_of_some(from, wanted, here, width, ahead, fetched, 0);
        dots_store(sums, to, (int)wanted);
    }
}

/* OUTPUTS or fewer outputs of some rows, from output o on. */
static inline void expand_few(const struct batch *batch, const struct part *part, int64_t s,
                              const scalar *here, int64_t o, int64_t ranks, int64_t rank)
{
    int64_t width = part->width, end = batch->starts[s + 1];
    __mmask32 there = outputs_there(width - o);
    for (int64_t k = batch->starts[s]; k < end; k += DOTS_ROWS) {
        int64_t wanted = end - k < DOTS_ROWS ? end - k : DOTS_ROWS;
        const scalar *soon = k == batch->starts[s] ? here + OUTPUTS : 0;
        const float *own = part->scales ? part->scales + k : 0;
        const scalar *from[DOTS_ROWS];
        scalar *to[DOTS_ROWS];
        for (int i = 0; i < wanted; i++) {
            from[i] = part->products + (k + i) * ranks;
            to[i] = part->out + batch->rows[k + i] * part->out_stride + o;
        }
        if (wanted == 4)
            expand_rows(from, 4, here, width, rank, there, soon, own, to);
        else if (wanted == 3)
            expand_rows(from, 3, here, width, rank, there, soon, own, to);
        else if (wanted == 2)
            expand_rows(from, 2, here, width, rank, there, soon, own, to);
        else
            expand_rows(from, 1, here, width, rank, there, soon, own, to);
    }
}

/* WIDE or fewer outputs of the rows of the adapter at place s, from output o on. */
static inline void expand_by_dots(const struct batch *batch, const struct part *part, int64_t s,
                                  int64_t o, int64_t ranks, int64_t rank)
{
    int64_t width = part->width, k = batch->starts[s];
    const scalar *here = part->b + batch->slots[s] * part->stride + o;
    if (batch->starts[s + 1] - k == 1 && o + WIDE <= width) {
        const float *own = part->scales ? part->scales + k : 0;
        scalar *to = part->out + batch->rows[k] * part->out_stride + o;
        expand_one(part->products + k * ranks, here, width, rank, own, to);
        return;
    }
    expand_few(batch, part, s, here, o, ranks, rank);
    if (o + OUTPUTS < width)
        expand_few(batch, part, s, here + OUTPUTS, o + OUTPUTS, ranks, rank);
}

#endif
