/* What kernel.c does, by the instructions for bf16: half of its time where several rows share an
 * adapter, three quarters of it for 64 rows of 64 adapters. */
#include "adapt.h"
#include "dots.h"
#include "expand.h"

/* Outputs of a row that are computed at once. */
#define WIDE (2 * OUTPUTS)

static void shrink(const struct batch *batch, const struct input *input, int64_t ranks,
                   scalar *products)
{
    int64_t width = input->width;
#pragma omp for collapse(2) schedule(static)
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t j = 0; j < ranks; j += 4) {
            const scalar *here = input->a + batch->slots[s] * input->stride + j * width;
            const scalar *ahead = here + 4 * width;
            int fetched = 4;
            int64_t end = batch->starts[s + 1];
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

static void expand(const struct batch *batch, const struct part *part, int64_t ranks, int64_t rank)
{
    int64_t width = part->width;
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t o = 0; o < width; o += WIDE) {
            const scalar *here = part->b + batch->slots[s] * part->stride + o;
            int64_t k = batch->starts[s];
            if (batch->starts[s + 1] - k == 1 && o + WIDE <= width) {
                const float *own = part->scales ? part->scales + k : 0;
                scalar *to = part->out + batch->rows[k] * part->out_stride + o;
                expand_one(part->products + k * ranks, here, width, rank, own, to);
                continue;
            }
            expand_few(batch, part, s, here, o, ranks, rank);
            if (o + OUTPUTS < width)
                expand_few(batch, part, s, here + OUTPUTS, o + OUTPUTS, ranks, rank);
        }
}
