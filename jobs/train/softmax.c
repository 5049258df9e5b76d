/* Causal softmax of a block of scores, and its derivative, in place. Sums are fp32.
 *
 * Rows stand by head, then by query, then by group: rows [heads, queries, groups], columns keys. The
 * last query sees all keys, each one before it a key less; of them the last `window` ones where that
 * is not 0. What a query does not see is neither read nor computed, and becomes 0.
 */
#include <stdlib.h>

#include "exponentials.h"

/* The columns from `*first` on, up to the one that is returned, that a row's query sees. */
static inline int64_t seen(int64_t row, int64_t queries, int64_t groups, int64_t keys,
                           int64_t window, int64_t *first)
{
    int64_t end = keys - queries + row / groups % queries + 1;
    *first = window && window < end ? end - window : 0;
    return end;
}

/* weights = softmax(scale scores), for a scale above 0. */
void softmax(scalar *scores, float scale, int64_t heads, int64_t queries, int64_t groups,
             int64_t keys, int64_t window, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        float *powers = malloc(filled_up(keys) * sizeof *powers);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < heads * queries * groups; row++) {
            scalar *own = scores + row * keys;
            int64_t first, end = seen(row, queries, groups, keys, window, &first);
            float highest = most(own + first, end - first);
            float share = 1 / exponentials(own + first, end - first, scale, highest, powers);
            memset(own, 0, first * sizeof *own);
            for (int64_t i = first; i < end; i++)
                own[i] = narrow(share * powers[i - first]);
            memset(own + end, 0, (keys - end) * sizeof *own);
        }
        free(powers);
    }
}

/* Of the scores, from that of the weights: grad = scale weights (grad - sum of weights grad). */
void softmax_backward(scalar *grad, const scalar *weights, float scale, int64_t heads,
                      int64_t queries, int64_t groups, int64_t keys, int64_t window, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < heads * queries * groups; row++) {
        scalar *g = grad + row * keys;
        const scalar *own = weights + row * keys;
        int64_t first, end = seen(row, queries, groups, keys, window, &first);
        float along = 0;
        for (int64_t i = first; i < end; i++)
            along += wide(own[i]) * wide(g[i]);
        memset(g, 0, first * sizeof *g);
        for (int64_t i = first; i < end; i++)
            g[i] = narrow(scale * wide(own[i]) * (wide(g[i]) - along));
        memset(g + end, 0, (keys - end) * sizeof *g);
    }
}
