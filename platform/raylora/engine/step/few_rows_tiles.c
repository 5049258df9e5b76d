/* y = x W' + b for a few rows of x in bf16, W as it lies in the model, by matrix units.
 *
 * y' = W x': rows of W are rows of a tile where they lie, and only x is rearranged, which is small.
 * oneDNN rearranges W, and takes twice as long as reading it. Sums are fp32 and rounded once, and
 * those of a row do not depend on how many rows there are.
 */
#include <stdlib.h>

#include "soon.h"
#include "tiles.h"

/* Numbers of a row in a step: 16 pairs. */
#define STEP 32
#define MOST_TILES 4

int usable(void) { return tiles_allowed(); }

/* Pairs of x's rows beside each other, 16 rows a tile: [tiles, steps, 16, 16] pairs, filled with 0. */
static void turn(const scalar *x, int64_t rows, int64_t width, int64_t steps, scalar *to)
{
    __m512i apart = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32((int)width));
    for (int64_t row = 0; row < rows; row += TILE) {
        int64_t there = rows - row;
        __mmask16 mask = there >= TILE ? 0xFFFF : (__mmask16)((1u << there) - 1);
        const scalar *from = x + row * width;
        for (int64_t k = 0; k < steps * STEP; k += 2, to += 2 * TILE) {
            __m512i pairs = _mm512_setzero_si512();
            if (k + 1 < width) {
                pairs = _mm512_mask_i32gather_epi32(pairs, mask, apart, from + k, 2);
            } else if (k < width) {
                _Alignas(64) uint32_t last[TILE] = {0};
                for (int64_t i = 0; i < there && i < TILE; i++)
                    last[i] = from[i * width + k];
                pairs = _mm512_load_si512(last);
            }
            _mm512_store_si512(to, pairs);
        }
    }
}

/* 16 rows of W by so many tiles of x; `next` is what is read after it. */
static inline __attribute__((always_inline)) void
block(const scalar *w, int outputs, int64_t width, const scalar *turned, int64_t steps,
      const scalar *next, float *sums, const int tiles)
{
    _Alignas(64) scalar last[TILE * STEP];
    int64_t tile = 2 * TILE * TILE * steps;
    tiles_clear(tiles);
    for (int64_t k = 0; k < steps; k++, turned += 2 * TILE * TILE) {
        for (int i = 0; i < TILE; i++)
            _mm_prefetch((const char *)(next + (k * TILE + i) * STEP), _MM_HINT_T1);
        int64_t rest = width - k * STEP;
        if (rest < STEP) {
            memset(last, 0, sizeof last);
            for (int i = 0; i < outputs; i++)
                memcpy(last + i * STEP, w + i * width + k * STEP, 2 * rest);
            _tile_loadd(4, last, 2 * STEP);
        } else {
            _tile_loadd(4, w + k * STEP, 2 * width);
        }
        _tile_loadd(5, turned, 4 * TILE);
        _tile_dpbf16ps(0, 4, 5);
        if (tiles > 1) {
            _tile_loadd(7, turned + tile, 4 * TILE);
            _tile_dpbf16ps(1, 4, 7);
        }
        if (tiles > 2) {
            _tile_loadd(5, turned + 2 * tile, 4 * TILE);
            _tile_dpbf16ps(2, 4, 5);
        }
        if (tiles > 3) {
            _tile_loadd(7, turned + 3 * tile, 4 * TILE);
            _tile_dpbf16ps(3, 4, 7);
        }
    }
    _tile_stored(0, sums, 4 * TILE);
    if (tiles > 1)
        _tile_stored(1, sums + TILE * TILE, 4 * TILE);
    if (tiles > 2)
        _tile_stored(2, sums + 2 * TILE * TILE, 4 * TILE);
    if (tiles > 3)
        _tile_stored(3, sums + 3 * TILE * TILE, 4 * TILE);
}

/* Sums [outputs, rows] of a tile, to rows of y. */
static void finish(const float *sums, int outputs, int rows, const float *bias, scalar *y,
                   int64_t stride)
{
    __mmask16 mask = outputs == TILE ? 0xFFFF : (__mmask16)((1u << outputs) - 1);
    __m512 all[TILE], added = bias ? _mm512_maskz_loadu_ps(mask, bias) : _mm512_setzero_ps();
    for (int i = 0; i < TILE; i++)
        all[i] = _mm512_load_ps(sums + i * TILE);
    transpose(all);
    for (int i = 0; i < rows; i++)
        _mm256_mask_storeu_epi16(y + i * stride, mask,
                                 (__m256i)_mm512_cvtneps_pbh(_mm512_add_ps(all[i], added)));
}

/* out [rows, outputs] for x [rows, width], W [outputs, width] and bias [outputs] or NULL; at most
 * 64 rows. What is read soon is not fetched: these products never let memory rest. */
void linear(const scalar *x, const scalar *w, const float *bias, scalar *out, int64_t rows,
            int64_t outputs, int64_t width, int threads, const struct soon *soon, int64_t kinds)
{
    (void)soon, (void)kinds;
    int64_t tiles = (rows + TILE - 1) / TILE, steps = (width + STEP - 1) / STEP;
    scalar *turned = aligned_alloc(64, 4 * TILE * TILE * tiles * steps);
    turn(x, rows, width, steps, turned);
#pragma omp parallel num_threads(threads)
    {
        struct tiles before = tiles_before(), now = {0};
#pragma omp for schedule(static)
        for (int64_t n = 0; n < outputs; n += TILE) {
            int there = outputs - n < TILE ? (int)(outputs - n) : TILE;
            const scalar *here = w + n * width, *next = here + TILE * width;
            _Alignas(64) float sums[MOST_TILES * TILE * TILE];
            tiles_shape(&now, there, TILE, TILE);
#define BLOCK(tiles) block(here, there, width, turned, steps, next, sums, tiles)
            switch (tiles) {
            case 1: BLOCK(1); break;
            case 2: BLOCK(2); break;
            case 3: BLOCK(3); break;
            default: BLOCK(4);
            }
            for (int64_t row = 0; row < rows; row += TILE)
                finish(sums + row * TILE, there, rows - row < TILE ? (int)(rows - row) : TILE,
                       bias ? bias + n : 0, out + row * outputs + n, outputs);
        }
        tiles_as_before(&before);
    }
    free(turned);
}
