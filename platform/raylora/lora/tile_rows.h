/* Rows of weights where they lie by a few rows of x, by matrix units.
 *
 * y' = W x': rows of W are rows of a tile as they lie in memory, and only x is rearranged, which is
 * small. Sums are fp32 and rounded once, and those of a row do not depend on how many rows there are.
 */
#ifndef TILE_ROWS_H
#define TILE_ROWS_H

#include "chains.h"
#include "tiles.h"

/* Numbers of a row in a step: 16 pairs. */
#define STEP 32
#define TILE_NUMBERS (2 * TILE * TILE)
#define MOST_TILES 4

static inline int64_t steps_of(int64_t width) { return (width + STEP - 1) / STEP; }

/* Pairs of rows of x beside each other, 16 rows a tile: [tiles, steps, 16, 16] pairs, filled with 0. */
static void turn_rows(const scalar *const *x, int64_t rows, int64_t width, scalar *to)
{
    for (int64_t row = 0; row < rows; row += TILE)
        for (int64_t k = 0; k < width; k += STEP, to += TILE_NUMBERS) {
            __mmask32 there = outputs_there(width - k);
            __m512 own[TILE];
            for (int i = 0; i < TILE; i++)
                own[i] = (__m512)(row + i < rows ? _mm512_maskz_loadu_epi16(there, x[row + i] + k)
                                                 : _mm512_setzero_si512());
            turn_16(own, (int32_t *)to);
        }
}

/* 16 rows of W by so many tiles of x; `next` is what is read after it. */
static inline __attribute__((always_inline)) void
block(const scalar *w, int outputs, int64_t width, const scalar *turned, int64_t steps,
      const scalar *next, float *sums, const int tiles)
{
    _Alignas(64) scalar last[TILE * STEP];
    int64_t tile = TILE_NUMBERS * steps;
    tiles_clear(tiles);
    for (int64_t k = 0; k < steps; k++, turned += TILE_NUMBERS) {
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
static inline void finish(const float *sums, int outputs, int rows, const float *bias, scalar *y,
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

/* y [rows, outputs] = x W' + bias for up to 16 rows of W, [outputs, width], and up to 64 of x as
 * `turn_rows` leaves them; y's rows lie `stride` apart, bias may be NULL. `now` is what tiles are
 * set to, `next` is what will be read after these rows of W. */
static inline void rows_by_rows(struct tiles *now, const scalar *w, int outputs, int64_t width,
                                const scalar *turned, int64_t rows, const scalar *next,
                                const float *bias, scalar *y, int64_t stride)
{
    _Alignas(64) float sums[MOST_TILES * TILE * TILE];
    int64_t steps = steps_of(width);
    tiles_shape(now, outputs, TILE, TILE);
    switch ((rows + TILE - 1) / TILE) {
    case 1: block(w, outputs, width, turned, steps, next, sums, 1); break;
    case 2: block(w, outputs, width, turned, steps, next, sums, 2); break;
    case 3: block(w, outputs, width, turned, steps, next, sums, 3); break;
    default: block(w, outputs, width, turned, steps, next, sums, 4);
    }
    for (int64_t row = 0; row < rows; row += TILE)
        finish(sums + row * TILE, outputs, rows - row < TILE ? (int)(rows - row) : TILE, bias,
               y + row * stride, stride);
}

#endif
