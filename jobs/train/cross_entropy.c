/* Cross entropy of rows of logits, and the gradient with it. Sums are fp32. */
#include <stdlib.h>

#include "exponentials.h"

/* losses [rows] = -weight log softmax(scores)[target] and grad [rows, width] = weight (softmax -
 * one-hot), for scores [rows, width]. */
void cross_entropy(const scalar *scores, const int64_t *targets, const float *weights, float *losses,
                   scalar *grad, int64_t rows, int64_t width, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        float *powers = malloc(filled_up(width) * sizeof *powers);
#pragma omp for schedule(static)
        for (int64_t row = 0; row < rows; row++) {
            const scalar *from = scores + row * width;
            scalar *to = grad + row * width;
            int64_t target = targets[row];
            float weight = weights[row], highest = most(from, width);
            float total = exponentials(from, width, 1, highest, powers);
            for (int64_t i = 0; i < width; i++)
                to[i] = narrow(weight / total * powers[i]);
            losses[row] = weight * (logf(total) - (wide(from[target]) - highest));
            to[target] = narrow(weight / total * powers[target] - weight);
        }
        free(powers);
    }
}
