/* y = x W' + b for a few rows of x in bf16, W as it lies in the model, by matrix units.
 *
 * oneDNN rearranges W, and takes twice as long as reading it.
 */
#include <stdlib.h>

#include "soon.h"
#include "tile_rows.h"

int usable(void) { return tiles_allowed(); }

/* out [rows, outputs] for x [rows, width], W [outputs, width] and bias [outputs] or NULL; at most
 * 64 rows. What is read soon is not fetched: these products never let memory rest. */
void linear(const scalar *x, const scalar *w, const float *bias, scalar *out, int64_t rows,
            int64_t outputs, int64_t width, int threads, const struct soon *soon, int64_t kinds)
{
    (void)soon, (void)kinds;
    int64_t tiles = (rows + TILE - 1) / TILE, steps = steps_of(width);
    scalar *turned = aligned_alloc(64, sizeof *turned * TILE_NUMBERS * tiles * steps);
    const scalar *each[MOST_TILES * TILE];
    for (int64_t i = 0; i < rows; i++)
        each[i] = x + i * width;
    turn_rows(each, rows, width, turned);
#pragma omp parallel num_threads(threads)
    {
        struct tiles before = tiles_before(), now = {0};
#pragma omp for schedule(static)
        for (int64_t n = 0; n < outputs; n += TILE) {
            int there = outputs - n < TILE ? (int)(outputs - n) : TILE;
            const scalar *here = w + n * width;
            rows_by_rows(&now, here, there, width, turned, rows, here + TILE * width,
                         bias ? bias + n : 0, out + n, outputs);
        }
        tiles_as_before(&before);
    }
    free(turned);
}
