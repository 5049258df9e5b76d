/* Dot products of bf16 by the instructions for them: 4 rows with 4 rows in 16 sums in registers. */
#ifndef DOTS_H
#define DOTS_H

#include "scalar.h"

#ifndef __AVX512BF16__
#error "needs AVX512-BF16"
#endif
#include <immintrin.h>

#define DOTS_ROWS 4

/* Sums of 16 registers as one register, in three kinds of steps that halve their number. */
static inline __m512 dots_by_one(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

static inline __m512 dots_by_two(__m512 a, __m512 b)
{
    __m512d u = (__m512d)a, v = (__m512d)b;
    return _mm512_add_ps((__m512)_mm512_unpacklo_pd(u, v), (__m512)_mm512_unpackhi_pd(u, v));
}

static inline __m512 dots_by_four(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

/* w's rows j, j + 1 ... with x's rows: sum [4 i + j] is that of x[i] and w + j * width. `ahead` is
 * NULL or what will be w: a processor fetches ahead within 4 KB, and the pieces here are shorter. */
static inline __attribute__((always_inline)) __m512
dots(const scalar *const *x, int rows, const scalar *w, int64_t width, const scalar *ahead)
{
    __m512 sums[4 * DOTS_ROWS];
    for (int i = 0; i < 4 * DOTS_ROWS; i++)
        sums[i] = _mm512_setzero_ps();
    int64_t k = 0;
    for (; k + 32 <= width; k += 32) {
        __m512bh own[4];
        for (int j = 0; j < 4; j++) {
            own[j] = (__m512bh)_mm512_loadu_si512(w + j * width + k);
            if (ahead)
                _mm_prefetch((const char *)(ahead + j * width + k), _MM_HINT_T0);
        }
        for (int i = 0; i < rows; i++) {
            __m512bh other = (__m512bh)_mm512_loadu_si512(x[i] + k);
            for (int j = 0; j < 4; j++)
                sums[4 * i + j] = _mm512_dpbf16_ps(sums[4 * i + j], own[j], other);
        }
    }
    if (k < width) {
        __mmask32 rest = (1u << (width - k)) - 1;
        for (int i = 0; i < rows; i++) {
            __m512bh other = (__m512bh)_mm512_maskz_loadu_epi16(rest, x[i] + k);
            for (int j = 0; j < 4; j++) {
                __m512bh own = (__m512bh)_mm512_maskz_loadu_epi16(rest, w + j * width + k);
                sums[4 * i + j] = _mm512_dpbf16_ps(sums[4 * i + j], own, other);
            }
        }
    }
    __m512 halves[8], quarters[4];
    for (int i = 0; i < 8; i++)
        halves[i] = dots_by_one(sums[2 * i], sums[2 * i + 1]);
    for (int i = 0; i < 4; i++)
        quarters[i] = dots_by_two(halves[2 * i], halves[2 * i + 1]);
    return dots_by_four(dots_by_four(quarters[0], quarters[1]),
                        dots_by_four(quarters[2], quarters[3]));
}

/* The sums in bf16, 4 to each of the rows of `out`. */
static inline void dots_store(__m512 sums, scalar *const *out, int rows)
{
    uint64_t narrow[DOTS_ROWS];
    _mm256_storeu_si256((__m256i *)narrow, (__m256i)_mm512_cvtneps_pbh(sums));
    for (int i = 0; i < rows; i++)
        memcpy(out[i], &narrow[i], sizeof narrow[i]);
}

#endif
