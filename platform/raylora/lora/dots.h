/* Dot products of bf16 by the instructions for them: 4 rows with 4 rows in 16 sums in registers. */
#ifndef DOTS_H
#define DOTS_H

#include "scalar.h"
#include "sums.h"

#ifndef __AVX512BF16__
#error "needs AVX512-BF16"
#endif
#include <immintrin.h>

#define DOTS_ROWS 4

/* w's rows j, j + 1 ... with x's rows: sum [4 i + j] is that of x[i] and w + j * width.
 *
 * So many rows at `ahead` are fetched meanwhile, for a processor does so within 4 KB, and the pieces
 * here are shorter; and one at `soon`, unless that is NULL. Into the second cache: more may be on
 * their way there than to the first. */
static inline __attribute__((always_inline)) __m512
dots(const scalar *const *x, int rows, const scalar *w, int64_t width, const scalar *ahead,
     int fetched, const scalar *soon)
{
    __m512 sums[4 * DOTS_ROWS];
    for (int i = 0; i < 4 * DOTS_ROWS; i++)
        sums[i] = _mm512_setzero_ps();
    int64_t k = 0;
    for (; k + 32 <= width; k += 32) {
        __m512bh own[4];
        for (int j = 0; j < 4; j++)
            own[j] = (__m512bh)_mm512_loadu_si512(w + j * width + k);
        for (int j = 0; j < fetched; j++)
            _mm_prefetch((const char *)(ahead + j * width + k), _MM_HINT_T1);
        if (soon)
            _mm_prefetch((const char *)(soon + k), _MM_HINT_T1);
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
    return sums_of_16(sums);
}

static inline __attribute__((always_inline)) __m512
dots_fetching(const scalar *const *x, int rows, const scalar *w, int64_t width,
              const scalar *ahead, int fetched, const scalar *soon)
{
    switch (fetched) {
    case 0: return dots(x, rows, w, width, ahead, 0, soon);
    case 1: return dots(x, rows, w, width, ahead, 1, soon);
    case 2: return dots(x, rows, w, width, ahead, 2, soon);
    default: return dots(x, rows, w, width, ahead, 4, soon);
    }
}

/* The same for any number of rows of x up to 4, and of rows fetched of 0, 1, 2 and 4: each has its
 * own loop. Only 4 rows have one with `soon`, for fewer wait for memory as it is. */
static inline __attribute__((always_inline)) __m512
dots_of_some(const scalar *const *x, int64_t rows, const scalar *w, int64_t width,
             const scalar *ahead, int fetched, const scalar *soon)
{
    switch (rows) {
    case 1: return dots_fetching(x, 1, w, width, ahead, fetched, 0);
    case 2: return dots_fetching(x, 2, w, width, ahead, fetched, 0);
    case 3: return dots_fetching(x, 3, w, width, ahead, fetched, 0);
    default:
        return soon ? dots_fetching(x, 4, w, width, ahead, fetched, soon)
                    : dots_fetching(x, 4, w, width, ahead, fetched, 0);
    }
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
