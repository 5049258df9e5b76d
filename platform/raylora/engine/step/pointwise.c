/* What lies between the products of a layer, in one pass over memory. Roundings are where torch
 * makes them: after each of its operations.
 */
#include "scalar.h"

/* out = w x / rms(x) of each row (Zhang and Sennrich, 2019), for x and out [rows, width]. */
void rms_norm(const scalar *x, const scalar *w, float epsilon, scalar *out, int64_t rows,
              int64_t width, int threads)
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
    }
}

/* gate = silu(gate) up, in place, of `count` numbers. */
void swiglu(scalar *gate, const scalar *up, int64_t count, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < count; start += 4096) {
        int64_t end = count - start < 4096 ? count : start + 4096;
        for (int64_t i = start; i < end; i++) {
            float x = wide(gate[i]);
            float e = power(x < 0 ? x : -x);
            float sigmoid = (x < 0 ? e : 1) / (1 + e);
            gate[i] = narrow(wide(narrow(x * sigmoid)) * wide(up[i]));
        }
    }
}
