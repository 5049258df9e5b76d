/* y = x W' + b for a few rows of x in bf16, W as it lies in the model.
 *
 * As few_rows.c, by the instructions for bf16. Sums are fp32 and rounded once, and those of a row
 * do not depend on how many rows there are.
 */
#include "dots.h"
#include "soon.h"

/* Rows of W between what is computed and what is fetched. */
#define AHEAD 16

/* out [rows, outputs] for x [rows, width], W [outputs, width] and bias [outputs] or NULL. outputs
 * is a multiple of 4. So many `kinds` of what is read soon are fetched. */
void linear(const scalar *x, const scalar *w, const float *bias, scalar *out, int64_t rows,
            int64_t outputs, int64_t width, int threads, const struct soon *soon, int64_t kinds)
{
    int64_t passes = (rows + DOTS_ROWS - 1) / DOTS_ROWS;
    /* Evenly over the products, or memory rests during the later ones. */
    int beside = rows < 2 * DOTS_ROWS ? 4 : rows < 4 * DOTS_ROWS ? 2 : 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < outputs; n += 4) {
        const scalar *here = w + n * width, *ahead = here + AHEAD * width;
        int fetched = beside;
        const char *others[SOON_PASSES];
        if (kinds)
            soon_of_block(soon, kinds, n / 4, outputs / 4, 2 * width, passes, others);
        for (int64_t row = 0; row < rows; row += DOTS_ROWS) {
            int64_t wanted = rows - row < DOTS_ROWS ? rows - row : DOTS_ROWS;
            const scalar *from[DOTS_ROWS];
            scalar *to[DOTS_ROWS];
            for (int i = 0; i < wanted; i++) {
                from[i] = x + (row + i) * width;
                to[i] = out + (row + i) * outputs + n;
            }
            const char *other = kinds ? others[row / DOTS_ROWS] : 0;
            __m512 sums = dots_of_some(from, wanted, here, width, ahead, fetched,
                                       (const scalar *)other);
            ahead += fetched * width;
            if (ahead == here + (AHEAD + 4) * width)
                fetched = 0;
            if (bias)
                sums = _mm512_add_ps(sums, _mm512_broadcast_f32x4(_mm_loadu_ps(bias + n)));
            dots_store(sums, to, (int)wanted);
        }
    }
}
