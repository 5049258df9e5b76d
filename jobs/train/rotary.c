/* Rotary position embeddings (Su et al., 2021) in the layout of Llama: the two halves of a head turn
 * against each other. Rounded where torch rounds: each product, then their sum. */
#include "scalar.h"

/* A product is rounded before it is added to, in fp32 too. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

static inline float rounded(float x) { return wide(narrow(x)); }

/* out = x cos + turn(x) sin, where turn((a, b)) = (-b, a), or the way back: the gradient of x for x
 * that of out. x and out [tokens, heads, size], cos and sin [tokens, size]. */
void rotate(const scalar *x, const scalar *cos, const scalar *sin, scalar *out, int64_t tokens,
            int64_t heads, int64_t size, int back, int threads)
{
    int64_t half = size / 2;
    float sign = back ? -1 : 1;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t token = 0; token < tokens; token++) {
        const scalar *c = cos + token * size, *s = sin + token * size;
        const scalar *low = back ? s + half : s, *high = back ? s : s + half;
        for (int64_t head = token * heads; head < (token + 1) * heads; head++) {
            const scalar *a = x + head * size, *b = a + half;
            scalar *to = out + head * size;
#pragma omp simd
            for (int64_t i = 0; i < half; i++) {
                float first = wide(a[i]), second = wide(b[i]);
                to[i] = narrow(rounded(first * wide(c[i])) - sign * rounded(second * wide(low[i])));
                to[half + i] = narrow(rounded(second * wide(c[half + i])) +
                                      sign * rounded(first * wide(high[i])));
            }
        }
    }
}
