/* What adapters add to a layer's output, and their gradients, in bf16: six products by matrix units.
 *
 * The left side has its pairs one after another, the right side those of neighbouring columns; what
 * does not lie so is laid out first, which is as much as A and B, x and grad, once each.
 */
#include "tiles.h"

#define LANES 16
/* Pairs of tokens are filled up to a multiple. */
#define MANY 32

/* Tokens first to end of a pass go through one adapter. */
struct part {
    const scalar *a; /* [rank, in] */
    const scalar *b; /* [out, rank] */
    scalar *low;     /* scale x A' [tokens, rank] */
    scalar *d_a, *d_b;
    int64_t first, end, rank;
    double scale;
};

/* Rows of pairs: numbers from row to row. */
struct left {
    const scalar *at;
    int64_t stride;
};

/* scale times the sums, or what is there and the sums. turned: a column of sums is a row of it. */
struct into {
    scalar *at;
    int64_t stride;
    float scale;
    int adds, turned;
};

static inline __mmask16 lanes(int64_t there)
{
    return there >= LANES ? 0xFFFF : (__mmask16)((1u << there) - 1);
}

static inline __m512i zero_extended(__mmask16 mask, const scalar *from)
{
    return _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, from));
}

/* [rows, pairs] of pairs to [pairs, rows]. */
static void turn(const scalar *from, int64_t rows, int64_t pairs, scalar *to)
{
    __m512i apart = _mm512_mullo_epi32(
        _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
        _mm512_set1_epi32((int)pairs));
#pragma omp for collapse(2) schedule(static)
    for (int64_t n = 0; n < rows; n += LANES)
        for (int64_t k = 0; k < pairs; k++) {
            __mmask16 mask = lanes(rows - n);
            __m512i column = _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), mask, apart,
                                                         from + 2 * (n * pairs + k), 4);
            _mm512_mask_storeu_epi32(to + 2 * (k * rows + n), mask, column);
        }
}

/* [rows, width] to pairs of neighbouring rows, [filled / 2, width]; rows beyond are 0. */
static void pair_rows(const scalar *from, int64_t rows, int64_t width, int64_t filled, scalar *to)
{
#pragma omp for schedule(static)
    for (int64_t t = 0; t < filled; t += 2)
        for (int64_t n = 0; n < width; n += LANES) {
            __mmask16 mask = lanes(width - n);
            const scalar *own = from + t * width + n;
            __m512i both = _mm512_setzero_si512();
            if (t < rows)
                both = zero_extended(mask, own);
            if (t + 1 < rows)
                both = _mm512_or_si512(both,
                                       _mm512_slli_epi32(zero_extended(mask, own + width), 16));
            _mm512_mask_storeu_epi32(to + t * width + 2 * n, mask, both);
        }
}

static inline __attribute__((always_inline)) void store(__m512 sums, __mmask16 mask, scalar *to,
                                                        const struct into *into)
{
    if (into->adds)
        sums = _mm512_add_ps(sums, (__m512)_mm512_slli_epi32(zero_extended(mask, to), 16));
    else
        sums = _mm512_mul_ps(sums, _mm512_set1_ps(into->scale));
    _mm256_mask_storeu_epi16(to, mask, (__m256i)_mm512_cvtneps_pbh(sums));
}

#define TILES 4

/* Sums of up to 16 rows and columns, at (m, n). */
static void store_tile(const float *sums, int64_t m, int rows, int64_t n, int columns,
                       const struct into *into)
{
    __m512 all[TILE];
    for (int i = 0; i < TILE; i++)
        all[i] = _mm512_load_ps(sums + TILE * i);
    if (!into->turned) {
        for (int i = 0; i < rows; i++)
            store(all[i], lanes(columns), into->at + (m + i) * into->stride + n, into);
        return;
    }
    transpose(all);
    for (int i = 0; i < columns; i++)
        store(all[i], lanes(rows), into->at + (n + i) * into->stride + m, into);
}

/* So many tiles below each other, each of so many rows; of `step` pairs at a time. */
static inline __attribute__((always_inline)) void
column(const struct left *left, int64_t m, int rows, const scalar *right, int64_t width, int64_t n,
       int columns, int64_t pairs, int64_t step, const struct into *into, const int tiles)
{
    _Alignas(64) float sums[TILE * TILE];
    const scalar *from = left->at + m * left->stride;
    int64_t below = TILE * left->stride, row = 2 * left->stride;
    tiles_clear(tiles);
    for (int64_t k = 0; k < pairs; k += step) {
        _tile_loadd(5, right + 2 * (k * width + n), 4 * width);
        _tile_loadd(4, from + 2 * k, row);
        _tile_dpbf16ps(0, 4, 5);
        if (tiles > 1) {
            _tile_loadd(6, from + below + 2 * k, row);
            _tile_dpbf16ps(1, 6, 5);
        }
        if (tiles > 2) {
            _tile_loadd(4, from + 2 * below + 2 * k, row);
            _tile_dpbf16ps(2, 4, 5);
        }
        if (tiles > 3) {
            _tile_loadd(6, from + 3 * below + 2 * k, row);
            _tile_dpbf16ps(3, 6, 5);
        }
    }
    _tile_stored(0, sums, 4 * TILE);
    store_tile(sums, m, rows, n, columns, into);
    if (tiles > 1) {
        _tile_stored(1, sums, 4 * TILE);
        store_tile(sums, m + TILE, rows, n, columns, into);
    }
    if (tiles > 2) {
        _tile_stored(2, sums, 4 * TILE);
        store_tile(sums, m + 2 * TILE, rows, n, columns, into);
    }
    if (tiles > 3) {
        _tile_stored(3, sums, 4 * TILE);
        store_tile(sums, m + 3 * TILE, rows, n, columns, into);
    }
}

/* left [rows, pairs] times right [pairs, width]. pairs: up to 16, or a multiple of that. What is left
 * over of the rows comes last: to shape tiles anew takes longer than to fill them. */
static void product(struct left left, int64_t rows, const scalar *right, int64_t width,
                    int64_t pairs, struct into into, struct tiles *now)
{
    int64_t panels = (width + TILE - 1) / TILE, whole = rows / TILE, rest = rows % TILE;
    int64_t groups = (whole + TILES - 1) / TILES, step = pairs < TILE ? pairs : TILE;
#define COLUMN(m, rows, tiles)                                                                     \
    column(&left, m, rows, right, width, n, columns, pairs, step, &into, tiles)
#pragma omp for schedule(static)
    for (int64_t t = 0; t < panels * groups; t++) {
        int64_t n = t / groups * TILE, first = t % groups * TILES;
        int columns = width - n < TILE ? (int)(width - n) : TILE;
        tiles_shape(now, TILE, (int)step, columns);
        switch (whole - first) {
        case 1: COLUMN(first * TILE, TILE, 1); break;
        case 2: COLUMN(first * TILE, TILE, 2); break;
        case 3: COLUMN(first * TILE, TILE, 3); break;
        default: COLUMN(first * TILE, TILE, 4); break;
        }
    }
    if (!rest)
        return;
#pragma omp for schedule(static)
    for (int64_t n = 0; n < width; n += TILE) {
        int columns = width - n < TILE ? (int)(width - n) : TILE;
        tiles_shape(now, (int)rest, (int)step, columns);
        COLUMN(whole * TILE, (int)rest, 1);
    }
}

int usable(void) { return tiles_allowed(); }

/* y += scale x A' B', and `low` for the way back. room: (in + out) times the largest rank. */
void add_adapters(const scalar *x, scalar *y, const struct part *parts, int64_t count, int64_t in,
                  int64_t out, scalar *room, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        struct tiles before = tiles_before(), now = {0};
        for (int64_t s = 0; s < count; s++) {
            struct part own = parts[s];
            int64_t tokens = own.end - own.first, rank = own.rank;
            scalar *a = room, *b = room + in * rank;
            turn(own.a, rank, in / 2, a);
            turn(own.b, out, rank / 2, b);
            product((struct left){x + own.first * in, in}, tokens, a, rank, in / 2,
                    (struct into){own.low, rank, (float)own.scale, 0, 0}, &now);
            product((struct left){own.low, rank}, tokens, b, out, rank / 2,
                    (struct into){y + own.first * out, out, 1, 1, 0}, &now);
        }
        tiles_as_before(&before);
    }
}

/* d_a and d_b of each part, and d_x += scale grad B A unless it is NULL. room: the larger of in and
 * out times the largest rank, and in + out + 5 ranks times the most tokens of a part, filled up. */
void adapters_backward(const scalar *grad, const scalar *x, scalar *d_x, const struct part *parts,
                       int64_t count, int64_t in, int64_t out, scalar *room, int threads)
{
#pragma omp parallel num_threads(threads)
    {
        struct tiles before = tiles_before(), now = {0};
        for (int64_t s = 0; s < count; s++) {
            struct part own = parts[s];
            int64_t tokens = own.end - own.first, rank = own.rank;
            int64_t filled = (tokens + MANY - 1) / MANY * MANY;
            const scalar *own_x = x + own.first * in, *own_grad = grad + own.first * out;
            scalar *d_low = room, *pairs = d_low + filled * rank, *lows = pairs + filled * rank;
            scalar *d_lows = lows + filled * rank, *xs = d_lows + filled * rank;
            scalar *grads = xs + filled * in, *weights = grads + filled * out;
            pair_rows(own.b, out, rank, out, weights);
            pair_rows(own_x, tokens, in, filled, xs);
            pair_rows(own_grad, tokens, out, filled, grads);
            pair_rows(own.low, tokens, rank, filled, pairs);
            turn(pairs, filled / 2, rank, lows);
            product((struct left){own_grad, out}, tokens, weights, rank, out / 2,
                    (struct into){d_low, rank, (float)own.scale, 0, 0}, &now);
            pair_rows(d_low, tokens, rank, filled, pairs);
            turn(pairs, filled / 2, rank, d_lows);
            product((struct left){lows, filled}, rank, grads, out, filled / 2,
                    (struct into){own.d_b, rank, 1, 0, 1}, &now);
            product((struct left){d_lows, filled}, rank, xs, in, filled / 2,
                    (struct into){own.d_a, in, 1, 0, 0}, &now);
            if (d_x) {
                pair_rows(own.a, rank, in, rank, weights);
                product((struct left){d_low, rank}, tokens, weights, in, rank / 2,
                        (struct into){d_x + own.first * in, in, 1, 1, 0}, &now);
            }
        }
        tiles_as_before(&before);
    }
}
