/* silu(gate) up (Shazeer, 2020), forward and backward in one pass over memory each. */
#include "scalar.h"

/* Numbers that a thread takes at a time. */
#define PIECE 4096

static inline float sigmoid(float x)
{
    float e = power(x < 0 ? x : -x);
    return (x < 0 ? e : 1) / (1 + e);
}

/* Rounded where torch rounds: after silu too. */
void swiglu(const scalar *gate, const scalar *up, scalar *out, int64_t count, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < count; start += PIECE) {
        int64_t end = count - start < PIECE ? count : start + PIECE;
        for (int64_t i = start; i < end; i++) {
            float x = wide(gate[i]);
            out[i] = narrow(wide(narrow(x * sigmoid(x))) * wide(up[i]));
        }
    }
}

/* For `grad` of the output. */
void swiglu_backward(const scalar *grad, const scalar *gate, const scalar *up, scalar *d_gate,
                     scalar *d_up, int64_t count, int threads)
{
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t start = 0; start < count; start += PIECE) {
        int64_t end = count - start < PIECE ? count : start + PIECE;
        for (int64_t i = start; i < end; i++) {
            float x = wide(gate[i]), g = wide(grad[i]), s = sigmoid(x);
            d_up[i] = narrow(g * (x * s));
            d_gate[i] = narrow(g * wide(up[i]) * s * (1 + x * (1 - s)));
        }
    }
}
