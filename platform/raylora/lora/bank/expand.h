/* What the products of a few rows and B add to 32 outputs, by the instructions for bf16. */
#ifndef EXPAND_H
#define EXPAND_H

#include "chains.h"

#define EXPAND_ROWS CHAIN_ROWS

static inline __m512 widened(__m256i narrow)
{
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16);
}

/* Rounded to bf16. */
static inline void round_both(__m512 *low, __m512 *high)
{
    __m512i both = (__m512i)_mm512_cvtne2ps_pbh(*high, *low);
    *low = widened(_mm512_castsi512_si256(both));
    *high = widened(_mm512_extracti64x4_epi64(both, 1));
}

/* What was there before, and scale times what `low` and `high` have. */
static inline __m512i sum(__m512i before, __m512 low, __m512 high, const float *scale)
{
    round_both(&low, &high);
    if (scale) {
        __m512 times = _mm512_set1_ps(*scale);
        low = _mm512_mul_ps(low, times);
        high = _mm512_mul_ps(high, times);
        round_both(&low, &high);
    }
    const __m512i none = _mm512_setzero_si512();
    low = _mm512_add_ps(low, (__m512)_mm512_unpacklo_epi16(none, before));
    high = _mm512_add_ps(high, (__m512)_mm512_unpackhi_epi16(none, before));
    return narrowed(low, high);
}

/* Up to 32 outputs of `rows` rows, at most 8, for the `rank` products of each and B [rank, width].
 * As many columns at `soon` are fetched, unless that is NULL. All outputs are read before any is
 * written: rows that lie 4 KB apart would wait for each other, which made 71 ms of 16 prompts 124. */
static inline __attribute__((always_inline)) void
expand_some(const scalar *const *products, int rows, const scalar *b, int64_t width, int64_t rank,
            __mmask32 there, const scalar *soon, const float *scales, scalar *const *out)
{
    __m512i outputs[EXPAND_ROWS];
    __m512 low[EXPAND_ROWS], high[EXPAND_ROWS];
    for (int i = 0; i < rows; i++) {
        outputs[i] = _mm512_maskz_loadu_epi16(there, out[i]);
        low[i] = high[i] = _mm512_setzero_ps();
    }
    for (int64_t j = 0; j < rank; j += 2, b += 2 * width) {
        __m512i u = _mm512_maskz_loadu_epi16(there, b);
        __m512i v = _mm512_maskz_loadu_epi16(there, b + width);
        if (soon) {
            _mm_prefetch((const char *)(soon + j * width), _MM_HINT_T0);
            _mm_prefetch((const char *)(soon + (j + 1) * width), _MM_HINT_T0);
        }
        __m512bh first = (__m512bh)_mm512_unpacklo_epi16(u, v);
        __m512bh second = (__m512bh)_mm512_unpackhi_epi16(u, v);
        for (int i = 0; i < rows; i++) {
            __m512bh own = pair(products[i] + j);
            low[i] = _mm512_dpbf16_ps(low[i], first, own);
            high[i] = _mm512_dpbf16_ps(high[i], second, own);
        }
    }
    for (int i = 0; i < rows; i++)
        outputs[i] = sum(outputs[i], low[i], high[i], scales ? scales + i : 0);
    for (int i = 0; i < rows; i++)
        _mm512_mask_storeu_epi16(out[i], there, outputs[i]);
}

/* Twice as many outputs of one row: with half the sums the processor would wait for each (1,536
 * outputs of 16 adapters: 17.5 us, and 12 so). */
static inline __attribute__((always_inline)) void
expand_one(const scalar *products, const scalar *b, int64_t width, int64_t rank,
           const float *scale, scalar *out)
{
    __m512 low[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    __m512 high[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
    for (int64_t j = 0; j < rank; j += 2, b += 2 * width) {
        __m512bh own = pair(products + j);
        for (int i = 0; i < 2; i++) {
            __m512i u = _mm512_loadu_si512(b + i * OUTPUTS);
            __m512i v = _mm512_loadu_si512(b + width + i * OUTPUTS);
            _mm_prefetch((const char *)(b + (2 + i) * OUTPUTS), _MM_HINT_T0);
            _mm_prefetch((const char *)(b + width + (2 + i) * OUTPUTS), _MM_HINT_T0);
            low[i] = _mm512_dpbf16_ps(low[i], (__m512bh)_mm512_unpacklo_epi16(u, v), own);
            high[i] = _mm512_dpbf16_ps(high[i], (__m512bh)_mm512_unpackhi_epi16(u, v), own);
        }
    }
    for (int i = 0; i < 2; i++) {
        __m512i before = _mm512_loadu_si512(out + i * OUTPUTS);
        _mm512_storeu_si512(out + i * OUTPUTS, sum(before, low[i], high[i], scale));
    }
}

/* The same where it matters whether all 32 are there: without masks. */
static inline __attribute__((always_inline)) void
expand_rows(const scalar *const *products, int rows, const scalar *b, int64_t width, int64_t rank,
            __mmask32 there, const scalar *soon, const float *scales, scalar *const *out)
{
    if (there == ~0u)
        expand_some(products, rows, b, width, rank, ~0u, soon, scales, out);
    else
        expand_some(products, rows, b, width, rank, there, soon, scales, out);
}

#endif
