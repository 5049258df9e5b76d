/* Many tokens a row: the products of a prompt's rows with their adapters, by matrix units.
 *
 * As prompt_bf16.c, with the numbers that PEFT computes: a tile adds neighbouring pairs one after
 * another, which is the order of torch's products (oneDNN 3) on such a processor.
 */
#include <stdlib.h>

#include "adapt.h"
#include "expand.h"
#include "tiles.h"
#include "units.h"

/* Columns in a step: 16 pairs. */
#define STEP 32
#define TILE_NUMBERS (2 * TILE * TILE)

int usable(void) { return tiles_allowed(); }

static int64_t filled_up(int64_t width) { return (width + STEP - 1) / STEP * STEP; }

/* A unit's rows one after another, filled with 0 up to whole steps; where they lie if they do so. */
static const scalar *rows_of(const struct batch *batch, const struct input *input,
                             struct unit unit, scalar *room, int64_t *stride)
{
    const int64_t *rows = batch->rows + unit.first;
    int64_t count = unit.end - unit.first, width = input->width, filled = filled_up(width);
    int alike = width == filled;
    for (int64_t i = 1; i < count && alike; i++)
        alike = rows[i] == rows[0] + i;
    *stride = alike ? input->x_stride : filled;
    if (alike)
        return input->x + rows[0] * input->x_stride;
    for (int64_t i = 0; i < count; i++) {
        memcpy(room + i * filled, input->x + rows[i] * input->x_stride, width * sizeof *room);
        memset(room + i * filled + width, 0, (filled - width) * sizeof *room);
    }
    return room;
}

/* sums [rows, 16] of left [rows, pairs], rows `stride` numbers apart, and of right [pairs, 16]. */
static inline void sums_of(const scalar *left, int64_t stride, const scalar *right, int64_t steps,
                           int pairs, float *sums)
{
    tiles_clear(1);
    for (int64_t k = 0; k < steps; k++) {
        _tile_loadd(4, left + 2 * pairs * k, 2 * stride);
        _tile_loadd(5, right + 2 * TILE * pairs * k, 4 * TILE);
        _tile_dpbf16ps(0, 4, 5);
    }
    _tile_stored(0, sums, 4 * TILE);
}

static void shrink(const struct batch *batch, const struct input *input, int64_t ranks,
                   scalar *products)
{
    int64_t width = input->width, filled = filled_up(width), steps = filled / STEP;
    int64_t units = all_units(batch);
    scalar *room = aligned_alloc(64, (MOST_TOKENS * filled + TILE_NUMBERS * steps) * sizeof *room);
    scalar *right = room + MOST_TOKENS * filled;
    struct tiles before = tiles_before(), now = {0};
#pragma omp for schedule(static)
    for (int64_t n = 0; n < units; n++) {
        struct unit unit = unit_at(batch, n);
        const scalar *a = input->a + batch->slots[unit.adapter] * input->stride;
        int64_t stride;
        const scalar *left = rows_of(batch, input, unit, room, &stride);
        for (int64_t j = 0; j < ranks; j += TILE) {
            int there = ranks - j < TILE ? (int)(ranks - j) : TILE;
            for (int64_t k = 0; k < steps; k++)
                turn(a + j * width + k * STEP, there, width, outputs_there(width - k * STEP),
                     (int32_t *)(right + TILE_NUMBERS * k));
            for (int64_t row = unit.first; row < unit.end; row += TILE) {
                int rows = unit.end - row < TILE ? (int)(unit.end - row) : TILE;
                _Alignas(64) float sums[TILE * TILE];
                tiles_shape(&now, rows, TILE, TILE);
                sums_of(left + (row - unit.first) * stride, stride, right, steps, TILE, sums);
                for (int i = 0; i < rows; i++)
                    _mm256_mask_storeu_epi16(
                        products + (row + i) * ranks + j, (1u << there) - 1,
                        (__m256i)_mm512_cvtneps_pbh(_mm512_load_ps(sums + TILE * i)));
            }
        }
    }
    tiles_as_before(&before);
    free(room);
}

/* B [rank, width] as panels of 16 columns, [panels, rank / 2, 16] pairs, filled with 0. */
static void panels_of(const scalar *b, int64_t width, int64_t pairs, scalar *to)
{
    for (int64_t k = 0; k < pairs; k++, b += 2 * width)
        for (int64_t o = 0; o < width; o += TILE) {
            __mmask16 there = (__mmask16)outputs_there(width - o < TILE ? width - o : TILE);
            __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, b + o));
            __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(there, b + width + o));
            _mm512_store_si512(to + 2 * (o * pairs + TILE * k),
                               _mm512_or_si512(low, _mm512_slli_epi32(high, 16)));
        }
}

static inline __m512 rounded(__m512 sums) { return widened((__m256i)_mm512_cvtneps_pbh(sums)); }

/* What was there before and scale times the sums, rounded where PEFT rounds. */
static inline __m512 added(const float *sums, const float *scale, __m256i before)
{
    __m512 own = rounded(_mm512_load_ps(sums));
    if (scale)
        own = rounded(_mm512_mul_ps(own, _mm512_set1_ps(*scale)));
    return _mm512_add_ps(own, widened(before));
}

/* Rows of a tile, from `row` of the order of adapters on, by all panels. */
static void expand_rows_of(const struct batch *batch, const struct part *part, int64_t row,
                           int rows, int64_t ranks, const scalar *panels, int64_t steps, int step)
{
    const scalar *left = part->products + row * ranks;
    int64_t panel = 2 * TILE * steps * step;
    // Outputs of the rows after them, which a processor does not see coming: 15.5 ms a layer of
    // 5,184 tokens without it, 11.2 so.
    int after = row + rows + TILE <= batch->starts[batch->adapters];
    const int64_t *next = batch->rows + (after ? row + rows : row);
    for (int64_t o = 0; o < part->width; o += OUTPUTS, panels += 2 * panel) {
        __mmask32 there = outputs_there(part->width - o);
        _Alignas(64) float sums[2 * TILE * TILE];
        sums_of(left, ranks, panels, steps, step, sums);
        if (there >> TILE)
            sums_of(left, ranks, panels + panel, steps, step, sums + TILE * TILE);
        else
            memset(sums + TILE * TILE, 0, sizeof sums / 2);
        for (int i = 0; i < rows; i++) {
            scalar *out = part->out + batch->rows[row + i] * part->out_stride + o;
            const float *own = sums + TILE * i, *scale = part->scales ? part->scales + row + i : 0;
            __m512i before = _mm512_maskz_loadu_epi16(there, out);
            _mm_prefetch((const char *)(part->out + next[i] * part->out_stride + o), _MM_HINT_T0);
            __m512 low = added(own, scale, _mm512_castsi512_si256(before));
            __m512 high = added(own + TILE * TILE, scale, _mm512_extracti64x4_epi64(before, 1));
            _mm512_mask_storeu_epi16(out, there, (__m512i)_mm512_cvtne2ps_pbh(high, low));
        }
    }
}

static void expand(const struct batch *batch, const struct part *part, int64_t ranks, int64_t rank)
{
    int64_t units = all_units(batch), pairs = rank / 2, last = -1;
    int step = pairs_in_step(pairs);
    scalar *panels = aligned_alloc(64, 2 * pairs * filled_up(part->width) * sizeof *panels);
    struct tiles before = tiles_before(), now = {0};
#pragma omp for schedule(static) nowait
    for (int64_t n = 0; n < units; n++) {
        struct unit unit = unit_at(batch, n);
        if (unit.adapter != last)
            panels_of(part->b + batch->slots[unit.adapter] * part->stride, part->width, pairs,
                      panels);
        last = unit.adapter;
        for (int64_t row = unit.first; row < unit.end; row += TILE) {
            int rows = unit.end - row < TILE ? (int)(unit.end - row) : TILE;
            tiles_shape(&now, rows, step, TILE);
            expand_rows_of(batch, part, row, rows, ranks, panels, pairs / step, step);
        }
    }
    tiles_as_before(&before);
    free(panels);
}
