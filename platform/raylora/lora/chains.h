/* Matrix products of bf16 whose sums are chains over neighbouring pairs, by the instructions for
 * them: 8 rows with 16 rows at a time. */
#ifndef CHAINS_H
#define CHAINS_H

#include "scalar.h"

#ifndef __AVX512BF16__
#error "needs AVX512-BF16"
#endif
#include <immintrin.h>

#define CHAIN_ROWS 8
#define CHAIN_SUMS 16

/* Two neighbours of a row, as each pair of a register has them. */
static inline __m512bh pair(const scalar *own)
{
    int32_t both;
    memcpy(&both, own, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

/* Outputs that are summed up at once: two registers, of which one has every other 4. */
#define OUTPUTS 32

/* Those of the first OUTPUTS that there are. */
static inline __mmask32 outputs_there(int64_t left)
{
    return left < OUTPUTS ? (1u << left) - 1 : ~0u;
}

/* The two in bf16, in their order. */
static inline __m512i narrowed(__m512 low, __m512 high)
{
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    return _mm512_permutexvar_epi64(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Calls a function whose second argument is a constant from 1 to 8. */
#define FOR_EACH_NUMBER(function, first, number, ...)              \
    switch (number) {                                              \
    case 1: function(first, 1, __VA_ARGS__); break;                \
    case 2: function(first, 2, __VA_ARGS__); break;                \
    case 3: function(first, 3, __VA_ARGS__); break;                \
    case 4: function(first, 4, __VA_ARGS__); break;                \
    case 5: function(first, 5, __VA_ARGS__); break;                \
    case 6: function(first, 6, __VA_ARGS__); break;                \
    case 7: function(first, 7, __VA_ARGS__); break;                \
    default: function(first, CHAIN_ROWS, __VA_ARGS__);             \
    }

/* 16 pairs of each of 16 rows, turned: those of a pair of columns side by side. `x` is used up, `to`
 * is aligned as a register is. */
static inline void turn_16(__m512 *x, int32_t *to)
{
    __m512 y[CHAIN_SUMS];
    for (int i = 0; i < CHAIN_SUMS; i += 2) {
        y[i] = _mm512_unpacklo_ps(x[i], x[i + 1]);
        y[i + 1] = _mm512_unpackhi_ps(x[i], x[i + 1]);
    }
    for (int i = 0; i < CHAIN_SUMS; i += 4)
        for (int half = 0; half < 2; half++) {
            __m512d u = (__m512d)y[i + half], v = (__m512d)y[i + 2 + half];
            x[i + 2 * half] = (__m512)_mm512_unpacklo_pd(u, v);
            x[i + 2 * half + 1] = (__m512)_mm512_unpackhi_pd(u, v);
        }
    for (int i = 0; i < 4; i++) {
        __m512 even = _mm512_shuffle_f32x4(x[i], x[4 + i], 0x88);
        __m512 odd = _mm512_shuffle_f32x4(x[i], x[4 + i], 0xdd);
        __m512 other_even = _mm512_shuffle_f32x4(x[8 + i], x[12 + i], 0x88);
        __m512 other_odd = _mm512_shuffle_f32x4(x[8 + i], x[12 + i], 0xdd);
        _mm512_store_ps(to + CHAIN_SUMS * i, _mm512_shuffle_f32x4(even, other_even, 0x88));
        _mm512_store_ps(to + CHAIN_SUMS * (4 + i), _mm512_shuffle_f32x4(odd, other_odd, 0x88));
        _mm512_store_ps(to + CHAIN_SUMS * (8 + i), _mm512_shuffle_f32x4(even, other_even, 0xdd));
        _mm512_store_ps(to + CHAIN_SUMS * (12 + i), _mm512_shuffle_f32x4(odd, other_odd, 0xdd));
    }
}

/* The same of up to 16 rows of A, width apart; zeros for rows and columns that are not there. */
static inline void turn(const scalar *a, int rows, int64_t width, __mmask32 there, int32_t *to)
{
    __m512 x[CHAIN_SUMS];
    for (int i = 0; i < CHAIN_SUMS; i++)
        x[i] = (__m512)(i < rows ? _mm512_maskz_loadu_epi16(there, a + i * width)
                                 : _mm512_setzero_si512());
    turn_16(x, to);
}

/* sums [rows, 16] += so many columns of x and A, for A as `turn` leaves it and up to 8 rows of x. */
static inline __attribute__((always_inline)) void
add_chains(const scalar *const *x, int rows, const int32_t *a, int64_t columns, float *sums)
{
    __m512 own[CHAIN_ROWS];
    for (int i = 0; i < rows; i++)
        own[i] = _mm512_load_ps(sums + CHAIN_SUMS * i);
    for (int64_t k = 0; k + 2 <= columns; k += 2, a += CHAIN_SUMS) {
        __m512bh those = (__m512bh)_mm512_load_si512(a);
        for (int i = 0; i < rows; i++)
            own[i] = _mm512_dpbf16_ps(own[i], those, pair(x[i] + k));
    }
    if (columns % 2)
        for (int i = 0; i < rows; i++) {
            __m512bh last = (__m512bh)_mm512_set1_epi32(x[i][columns - 1]);
            own[i] = _mm512_dpbf16_ps(own[i], (__m512bh)_mm512_load_si512(a), last);
        }
    for (int i = 0; i < rows; i++)
        _mm512_store_ps(sums + CHAIN_SUMS * i, own[i]);
}

#endif
