/* RMSNorm with a frozen weight (Zhang and Sennrich, 2019), forward and backward in one pass over
 * memory each. Sums are fp32. */
#include "scalar.h"

/* out = w x / rms(x) of each row, rounded where torch rounds; scales [rows] = 1 / rms(x). */
void rms_norm(const scalar *x, const scalar *w, float epsilon, scalar *out, float *scales,
              int64_t rows, int64_t width, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const scalar *from = x + row * width;
        scalar *to = out + row * width;
        float squares = 0;
        for (int64_t i = 0; i < width; i++)
            squares += wide(from[i]) * wide(from[i]);
        float scale = 1 / sqrtf(squares / width + epsilon);
        for (int64_t i = 0; i < width; i++)
            to[i] = narrow(wide(w[i]) * wide(narrow(wide(from[i]) * scale)));
        scales[row] = scale;
    }
}

/* d_x for `grad` of the output. What would change the length of x has no effect: its share is taken
 * out. */
void rms_norm_backward(const scalar *grad, const scalar *x, const scalar *w, const float *scales,
                       scalar *d_x, int64_t rows, int64_t width, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t row = 0; row < rows; row++) {
        const scalar *g = grad + row * width, *from = x + row * width;
        scalar *to = d_x + row * width;
        float scale = scales[row], along = 0;
        for (int64_t i = 0; i < width; i++)
            along += wide(g[i]) * wide(w[i]) * wide(from[i]);
        along *= scale * scale / width;
        for (int64_t i = 0; i < width; i++)
            to[i] = narrow(scale * (wide(g[i]) * wide(w[i]) - along * wide(from[i])));
    }
}
