/* What kernel.c does, by matrix units where several rows share an adapter: for 64 rows of 8 adapters
 * in two thirds of the time that kernel_bf16.c takes, for fewer than four of each in more of it. */
#include <stdlib.h>

#include "by_dots.h"
#include "tile_rows.h"

/* Rows of an adapter from which on tiles pay. */
#define SEVERAL 4
#define MOST_ROWS (MOST_TILES * TILE)

int usable(void) { return tiles_allowed(); }

static inline int64_t rows_at(const struct batch *batch, int64_t s)
{
    return batch->starts[s + 1] - batch->starts[s];
}

/* A of the adapter at place s, from rank j on. */
static inline const scalar *a_at(const struct batch *batch, const struct input *input, int64_t s,
                                 int64_t j)
{
    return input->a + batch->slots[s] * input->stride + j * input->width;
}

/* A as it lies, 16 ranks at a time. */
static void shrink(const struct batch *batch, const struct input *input, int64_t ranks,
                   scalar *products)
{
    int64_t width = input->width, blocks = (ranks + TILE - 1) / TILE, last = -1;
    int64_t units = batch->adapters * blocks;
    int64_t size = TILE_NUMBERS * MOST_TILES * steps_of(width);
    scalar *turned = NULL;
    struct tiles before = tiles_before(), now = {0};
#pragma omp for schedule(static)
    for (int64_t n = 0; n < units; n++) {
        int64_t s = n / blocks, j = n % blocks * TILE, end = batch->starts[s + 1];
        int there = ranks - j < TILE ? (int)(ranks - j) : TILE;
        if (rows_at(batch, s) < SEVERAL) {
            for (int64_t i = j; i < j + there; i += NARROW)
                shrink_by_dots(batch, input, s, i, ranks, products);
            continue;
        }
        int64_t m = n + 1 < units ? n + 1 : n;
        const scalar *next = a_at(batch, input, m / blocks, m % blocks * TILE);
        for (int64_t k = batch->starts[s]; k < end; k += MOST_ROWS) {
            int64_t rows = end - k < MOST_ROWS ? end - k : MOST_ROWS;
            if (k != last) {
                if (!turned)
                    turned = aligned_alloc(64, size * sizeof *turned);
                const scalar *from[MOST_ROWS];
                for (int64_t i = 0; i < rows; i++)
                    from[i] = input->x + batch->rows[k + i] * input->x_stride;
                turn_rows(from, rows, width, turned);
                last = k;
            }
            rows_by_rows(&now, a_at(batch, input, s, j), there, width, turned, rows, next, 0,
                         products + k * ranks + j, ranks);
        }
    }
    if (now.palette)
        tiles_as_before(&before);
    free(turned);
}

/* So many pairs of rows of B, 32 columns of each, as two tiles whose columns are every other 4. */
static inline void two_tiles_of(const scalar *b, int64_t width, int pairs, __mmask32 there,
                                scalar *low, scalar *high)
{
    for (int j = 0; j < pairs; j++, b += 2 * width) {
        __m512i u = _mm512_maskz_loadu_epi16(there, b);
        __m512i v = _mm512_maskz_loadu_epi16(there, b + width);
        _mm_prefetch((const char *)(b + WIDE), _MM_HINT_T0);
        _mm_prefetch((const char *)(b + width + WIDE), _MM_HINT_T0);
        _mm512_store_si512(low + 2 * TILE * j, _mm512_unpacklo_epi16(u, v));
        _mm512_store_si512(high + 2 * TILE * j, _mm512_unpackhi_epi16(u, v));
    }
}

/* OUTPUTS or fewer, from o on, of up to 16 rows, from k of the order of adapters on. */
static inline void add_sums(const struct batch *batch, const struct part *part, int64_t k,
                            int rows, int64_t o, const float *sums)
{
    __mmask32 there = outputs_there(part->width - o);
    scalar *out[TILE];
    __m512i outputs[TILE];
    for (int i = 0; i < rows; i++) {
        out[i] = part->out + batch->rows[k + i] * part->out_stride + o;
        outputs[i] = _mm512_maskz_loadu_epi16(there, out[i]);
    }
    for (int i = 0; i < rows; i++)
        outputs[i] = sum(outputs[i], _mm512_load_ps(sums + TILE * i),
                         _mm512_load_ps(sums + TILE * (TILE + i)),
                         part->scales ? part->scales + k + i : 0);
    for (int i = 0; i < rows; i++)
        _mm512_mask_storeu_epi16(out[i], there, outputs[i]);
}

/* WIDE outputs or fewer, from o on, of up to 16 rows, from k on, by B from that column on. All is
 * rearranged, then multiplied, then added: each of it at once would wait for the one before. */
static void expand_by_tiles(struct tiles *now, const struct batch *batch, const struct part *part,
                            int64_t k, int rows, const scalar *b, int64_t o, int64_t ranks,
                            int64_t rank)
{
    int64_t width = part->width, wide = width - o < WIDE ? width - o : WIDE;
    int pairs = pairs_in_step(rank / 2);
    _Alignas(64) scalar low[WIDE / OUTPUTS][TILE_NUMBERS], high[WIDE / OUTPUTS][TILE_NUMBERS];
    _Alignas(64) float sums[WIDE / OUTPUTS][TILE_NUMBERS];
    tiles_shape(now, rows, pairs, TILE);
    for (int64_t j = 0; j < rank; j += 2 * pairs) {
        for (int64_t i = 0; i * OUTPUTS < wide; i++)
            two_tiles_of(b + j * width + i * OUTPUTS, width, pairs,
                         outputs_there(wide - i * OUTPUTS), low[i], high[i]);
        _tile_loadd(4, part->products + k * ranks + j, 2 * ranks);
        for (int64_t i = 0; i * OUTPUTS < wide; i++) {
            if (j) {
                _tile_loadd(0, sums[i], 4 * TILE);
                _tile_loadd(1, sums[i] + TILE * TILE, 4 * TILE);
            } else {
                tiles_clear(2);
            }
            _tile_loadd(5, low[i], 4 * TILE);
            _tile_loadd(7, high[i], 4 * TILE);
            _tile_dpbf16ps(0, 4, 5);
            _tile_dpbf16ps(1, 4, 7);
            _tile_stored(0, sums[i], 4 * TILE);
            _tile_stored(1, sums[i] + TILE * TILE, 4 * TILE);
        }
    }
    for (int64_t i = 0; i * OUTPUTS < wide; i++)
        add_sums(batch, part, k, rows, o + i * OUTPUTS, sums[i]);
}

static void expand(const struct batch *batch, const struct part *part, int64_t ranks, int64_t rank)
{
    struct tiles before = tiles_before(), now = {0};
#pragma omp for collapse(2) schedule(static) nowait
    for (int64_t s = 0; s < batch->adapters; s++)
        for (int64_t o = 0; o < part->width; o += WIDE) {
            int64_t end = batch->starts[s + 1];
            const scalar *b = part->b + batch->slots[s] * part->stride + o;
            if (rows_at(batch, s) < SEVERAL) {
                expand_by_dots(batch, part, s, o, ranks, rank);
                continue;
            }
            for (int64_t k = batch->starts[s]; k < end; k += TILE)
                expand_by_tiles(&now, batch, part, k, end - k < TILE ? (int)(end - k) : TILE, b, o,
                                ranks, rank);
        }
    if (now.palette)
        tiles_as_before(&before);
}
