/* What kernel.c does, by the instructions for bf16: half of its time where several rows share an
 * adapter, three quarters of it for 64 rows of 64 adapters. */
#include "batch.h"
#include "dots.h"

/* products [rows, ranks] = A x, for x [batch, width], A [slots, ranks, width]. */
void shrink(const struct batch *batch, const scalar *x, int64_t x_stride, const scalar *a,
            int64_t stride, int64_t width, int64_t ranks, scalar *products, int threads)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t j = 0; j < ranks; j += 4) {
            const scalar *here = a + batch->slots[s] * stride + j * width;
            const scalar *ahead = here + 4 * width;
            int fetched = 4;
            int64_t end = batch->starts[s + 1];
            for (int64_t k = batch->starts[s]; k < end; k += DOTS_ROWS, fetched = 0) {
                int64_t wanted = end - k < DOTS_ROWS ? end - k : DOTS_ROWS;
                const scalar *from[DOTS_ROWS];
                scalar *to[DOTS_ROWS];
                for (int i = 0; i < wanted; i++) {
                    from[i] = x + batch->rows[k + i] * x_stride;
                    to[i] = products + (k + i) * ranks + j;
                }
                __m512 sums = dots_of_some(from, wanted, here, width, ahead, fetched, 0);
                dots_store(sums, to, (int)wanted);
            }
        }
}

/* Outputs that are summed up at once: two registers, of which one has every other 4. */
#define OUTPUTS 32

static inline __m512 widened(__m256i narrow)
{
    return (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(narrow), 16);
}

/* Adds scale times what `low` and `high` have to up to 32 outputs. */
static inline void add(scalar *out, __mmask32 there, __m512 low, __m512 high, const float *scale)
{
    /* Every other 4 outputs back in their order. */
    const __m512i order = _mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7);
    __m512i delta = _mm512_permutexvar_epi64(order, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    __m512 first = widened(_mm512_castsi512_si256(delta));
    __m512 second = widened(_mm512_extracti64x4_epi64(delta, 1));
    if (scale) {
        __m512 times = _mm512_set1_ps(*scale);
        delta = (__m512i)_mm512_cvtne2ps_pbh(_mm512_mul_ps(second, times),
                                             _mm512_mul_ps(first, times));
        first = widened(_mm512_castsi512_si256(delta));
        second = widened(_mm512_extracti64x4_epi64(delta, 1));
    }
    __m512i before = _mm512_maskz_loadu_epi16(there, out);
    first = _mm512_add_ps(first, widened(_mm512_castsi512_si256(before)));
    second = _mm512_add_ps(second, widened(_mm512_extracti64x4_epi64(before, 1)));
    _mm512_mask_storeu_epi16(out, there, (__m512i)_mm512_cvtne2ps_pbh(second, first));
}

/* The products of ranks j and j + 1, as each pair of a register has them. */
static inline __m512bh pair(const scalar *own)
{
    int32_t both;
    memcpy(&both, own, sizeof both);
    return (__m512bh)_mm512_set1_epi32(both);
}

/* Up to 32 outputs of `rows` rows, at most 4. */
static inline __attribute__((always_inline)) void
block(const scalar *const *products, int rows, const scalar *b, int64_t width, int64_t rank,
      __mmask32 there, int fetching, const float *scales, scalar *const *out)
{
    __m512 low[DOTS_ROWS], high[DOTS_ROWS];
    for (int i = 0; i < rows; i++)
        low[i] = high[i] = _mm512_setzero_ps();
    for (int64_t j = 0; j < rank; j += 2, b += 2 * width) {
        __m512i u = _mm512_maskz_loadu_epi16(there, b);
        __m512i v = _mm512_maskz_loadu_epi16(there, b + width);
        if (fetching) {
            _mm_prefetch((const char *)(b + OUTPUTS), _MM_HINT_T0);
            _mm_prefetch((const char *)(b + OUTPUTS + width), _MM_HINT_T0);
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
        add(out[i], there, low[i], high[i], scales ? scales + i : 0);
}

/* out [batch, width] += scale (products B), for B [slots, rank, width] and those `rank` columns of
 * products [rows, ranks] that `products` points to; scales [rows] is NULL where all are 1. */
void expand(const struct batch *batch, const scalar *products, int64_t ranks, const scalar *b,
            int64_t stride, int64_t width, int64_t rank, const float *scales, scalar *out,
            int64_t out_stride, int threads)
{
#pragma omp parallel for collapse(2) schedule(static) num_threads(threads)
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t o = 0; o < width; o += OUTPUTS) {
            const scalar *here = b + batch->slots[s] * stride + o;
            __mmask32 there = width - o < OUTPUTS ? (1u << (width - o)) - 1 : ~0u;
            int64_t end = batch->starts[s + 1];
            for (int64_t k = batch->starts[s]; k < end; k += DOTS_ROWS) {
                int64_t wanted = end - k < DOTS_ROWS ? end - k : DOTS_ROWS;
                int fetching = k == batch->starts[s];
                const float *own = scales ? scales + k : 0;
                const scalar *from[DOTS_ROWS];
                scalar *to[DOTS_ROWS];
                for (int i = 0; i < wanted; i++) {
                    from[i] = products + (k + i) * ranks;
                    to[i] = out + batch->rows[k + i] * out_stride + o;
                }
                if (wanted == 4)
                    block(from, 4, here, width, rank, there, fetching, own, to);
                else if (wanted == 3)
                    block(from, 3, here, width, rank, there, fetching, own, to);
                else if (wanted == 2)
                    block(from, 2, here, width, rank, there, fetching, own, to);
                else
                    block(from, 1, here, width, rank, there, fetching, own, to);
            }
        }
}
