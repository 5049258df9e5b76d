/* The sums of several registers of fp32, each over its lanes, all at once. */
#ifndef SUMS_H
#define SUMS_H

#include <immintrin.h>

#ifdef __AVX512F__
#define LANES 16

/* Three kinds of steps that halve the number of registers. */
static inline __m512 sums_by_one(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
}

static inline __m512 sums_by_two(__m512 a, __m512 b)
{
    __m512d u = (__m512d)a, v = (__m512d)b;
    return _mm512_add_ps((__m512)_mm512_unpacklo_pd(u, v), (__m512)_mm512_unpackhi_pd(u, v));
}

static inline __m512 sums_by_four(__m512 a, __m512 b)
{
    return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

static inline __m512 sums_of_16(const __m512 *each)
{
    __m512 halves[8], quarters[4];
    for (int i = 0; i < 8; i++)
        halves[i] = sums_by_one(each[2 * i], each[2 * i + 1]);
    for (int i = 0; i < 4; i++)
        quarters[i] = sums_by_two(halves[2 * i], halves[2 * i + 1]);
    return sums_by_four(sums_by_four(quarters[0], quarters[1]),
                        sums_by_four(quarters[2], quarters[3]));
}
#else
#define LANES 8

static inline __m128 sums_of_4(const __m256 *each)
{
    __m256 halves = _mm256_hadd_ps(_mm256_hadd_ps(each[0], each[1]),
                                   _mm256_hadd_ps(each[2], each[3]));
    return _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps(halves, 1));
}
#endif

#endif
