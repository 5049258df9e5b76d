/* y = x W' + b for a few rows of x in fp32, W in fp32 or bf16 as it lies in the model.
 *
 * A step is bound by reading W once. Torch's product rearranges it at every call, which pays where
 * many rows share that. Here all rows of x meet 4 rows of W while these are in the first cache.
 * Sums are fp32, and those of a row do not depend on how many rows there are.
 */
#include "scalar.h"
#include "soon.h"
#include "sums.h"

#ifndef __AVX2__
#error "needs AVX2"
#endif

#define MOST_ROWS 64
/* Rows of x, and of W, that meet at a time. */
#define TOGETHER 4
/* Rows of W whose sums are in registers at once: in 16 of 512 bits, in 8 of 256. */
#define AT_ONCE (LANES == 16 ? 4 : 2)
/* Numbers of a row of W before the next row's turn: 4 rows of them are 12 KB in fp32. */
#define PIECE 768
/* Rows of W between what is used and what is fetched from memory meanwhile. */
#define AHEAD 4
#define FAR_AHEAD 16
/* From so many rows of x on, products last long enough to fetch during them. */
#define FETCH_BESIDE 16

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef uint16_t halves __attribute__((vector_size(2 * LANES), aligned(2), may_alias));
typedef uint32_t wholes __attribute__((vector_size(4 * LANES)));

static inline void add_sums(const vector *each, int first, float *sums)
{
#if LANES == 16
    (void)first;
    *(vector *)sums += (vector)sums_of_16((const __m512 *)each);
#else
    for (int i = 0; i < TOGETHER; i += 2) {
        float four[4];
        _mm_storeu_ps(four, sums_of_4((const __m256 *)each + 2 * i));
        for (int j = 0; j < 4; j++)
            sums[TOGETHER * (i + j / 2) + first + j % 2] += four[j];
    }
#endif
}

/* sums [4 i + j] += x[i] w[j] over `count` numbers, for up to 4 rows of x and 4 of W. So many
 * rows `ahead` are fetched, and what is at `soon`, unless that is NULL. */
static inline __attribute__((always_inline)) void
add_dots(const float *x, int rows, const float *w, int64_t step, int64_t width, int64_t count,
         const stored *ahead, int fetched, const char *soon, float *sums)
{
    for (int first = 0; first < TOGETHER; first += AT_ONCE) {
        vector each[TOGETHER * AT_ONCE];
        for (int i = 0; i < TOGETHER * AT_ONCE; i++)
            each[i] = (vector){0};
        int64_t k = 0;
        for (; k + LANES <= count; k += LANES) {
            for (int j = 0; j < fetched; j++)
                __builtin_prefetch(ahead + j * width + k);
            if (soon)
                __builtin_prefetch(soon + sizeof(float) * k, 0, 2);
            vector own[AT_ONCE];
            for (int j = 0; j < AT_ONCE; j++)
                own[j] = *(const vector *)(w + (first + j) * step + k);
            for (int i = 0; i < rows; i++) {
                vector other = *(const vector *)(x + i * width + k);
                for (int j = 0; j < AT_ONCE; j++)
                    each[i * AT_ONCE + j] += other * own[j];
            }
        }
        add_sums(each, first, sums);
        for (; k < count; k++)
            for (int i = 0; i < rows; i++)
                for (int j = first; j < first + AT_ONCE; j++)
                    sums[TOGETHER * i + j] += x[i * width + k] * w[j * step + k];
        fetched = 0;
        soon = 0;
    }
}

#ifdef STORED_BF16
/* 4 rows of W in fp32, PIECE apart. `ahead` is NULL or rows that are fetched. */
static inline __attribute__((always_inline)) void
widen(const stored *w, int64_t width, int64_t count, const stored *ahead, float *whole)
{
    for (int j = 0; j < TOGETHER; j++) {
        int64_t k = 0;
        for (; k + LANES <= count; k += LANES) {
            if (ahead)
                __builtin_prefetch(ahead + j * width + k);
            halves bits = *(const halves *)(w + j * width + k);
            *(vector *)(whole + j * PIECE + k) =
                (vector)(__builtin_convertvector(bits, wholes) << 16);
        }
        for (; k < count; k++)
            whole[j * PIECE + k] = wide_stored(w[j * width + k]);
    }
}
#endif

/* out [rows, outputs] for x [rows, width], W [outputs, width] and bias [outputs] or NULL. outputs
 * is a multiple of 4, rows are at most 64. So many `kinds` of what is read soon are fetched. */
void linear(const float *x, const stored *w, const float *bias, float *out, int64_t rows,
            int64_t outputs, int64_t width, int threads, const struct soon *soon, int64_t kinds)
{
    int beside = rows >= FETCH_BESIDE;
    int64_t pieces = (width + PIECE - 1) / PIECE, blocks = outputs / TOGETHER * pieces;
    int64_t passes = (rows + TOGETHER - 1) / TOGETHER;
#pragma omp parallel for schedule(static) num_threads(threads)
    for (int64_t n = 0; n < outputs; n += TOGETHER) {
        float sums[MOST_ROWS * TOGETHER] = {0};
        for (int64_t k = 0; k < width; k += PIECE) {
            int64_t count = width - k < PIECE ? width - k : PIECE;
            const stored *here = w + n * width + k, *ahead = here + AHEAD * width;
#ifdef STORED_BF16
            float own[TOGETHER * PIECE];
            int64_t step = PIECE;
            int fetched = beside;
            widen(here, width, count, beside ? 0 : here + FAR_AHEAD * width, own);
#else
            const float *own = here;
            int64_t step = width;
            int fetched = beside ? 1 : TOGETHER;
#endif
            const char *others[SOON_PASSES];
            if (kinds)
                soon_of_block(soon, kinds, n / TOGETHER * pieces + k / PIECE, blocks,
                              sizeof(float) * count, passes, others);
            for (int64_t row = 0; row < rows; row += TOGETHER) {
                const float *at = x + row * width + k;
                float *to = sums + row * TOGETHER;
                const char *other = kinds ? others[row / TOGETHER] : 0;
                switch (rows - row) {
                case 1: add_dots(at, 1, own, step, width, count, ahead, fetched, 0, to); break;
                case 2: add_dots(at, 2, own, step, width, count, ahead, fetched, 0, to); break;
                case 3: add_dots(at, 3, own, step, width, count, ahead, fetched, 0, to); break;
                default: add_dots(at, 4, own, step, width, count, ahead, fetched, other, to);
                }
                ahead += fetched * width;
                if (ahead == here + (AHEAD + TOGETHER) * width)
                    fetched = 0;
            }
        }
        for (int64_t row = 0; row < rows; row++)
            for (int j = 0; j < TOGETHER; j++)
                out[row * outputs + n + j] = sums[row * TOGETHER + j] + (bias ? bias[n + j] : 0);
    }
}
