/* Matrix units for bf16 (Intel AMX): tiles of up to 16 rows by 16 pairs of numbers. */
#ifndef TILES_H
#define TILES_H

#include "scalar.h"

#if !defined(__AMX_BF16__) || !defined(__AVX512BF16__)
#error "needs AMX and AVX512-BF16"
#endif
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#define TILE 16

/* What a tile holds of rows, and of bytes in a row; as the processor has it. */
struct tiles {
    uint8_t palette, first_row, reserved[14];
    uint16_t bytes[16];
    uint8_t rows[16];
};

/* Linux gives them to a process that has asked (arch_prctl, ARCH_REQ_XCOMP_PERM). */
static int tiles_allowed(void) { return syscall(SYS_arch_prctl, 0x1023, 18) == 0; }

/* oneDNN remembers what it has set in a thread, so it has to find that again. */
static inline struct tiles tiles_before(void)
{
    struct tiles before;
    _tile_storeconfig(&before);
    return before;
}

static inline void tiles_as_before(const struct tiles *before)
{
    if (before->palette)
        _tile_loadconfig(before);
    else
        _tile_release();
}

/* Sums in tiles 0 to 3 of rows by columns, the left side in 4 and 6 of rows by pairs, the right one
 * in 5 and 7 of pairs by columns. `now` is what is set. */
static inline void tiles_shape(struct tiles *now, int rows, int pairs, int columns)
{
    struct tiles wanted = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        int right = i == 5 || i == 7, left = i == 4 || i == 6;
        wanted.rows[i] = (uint8_t)(right ? pairs : rows);
        wanted.bytes[i] = (uint16_t)(4 * (left ? pairs : columns));
    }
    if (memcmp(&wanted, now, sizeof wanted)) {
        _tile_loadconfig(&wanted);
        *now = wanted;
    }
}

/* Pairs in a step of so many: as many as a tile has, if they come out even. */
static inline int pairs_in_step(int64_t pairs)
{
    int step = pairs < TILE ? (int)pairs : TILE;
    while (pairs % step)
        step--;
    return step;
}

/* The first so many tiles of sums become 0; a constant, for so are the numbers of tiles. */
static inline __attribute__((always_inline)) void tiles_clear(const int tiles)
{
    _tile_zero(0);
    if (tiles > 1)
        _tile_zero(1);
    if (tiles > 2)
        _tile_zero(2);
    if (tiles > 3)
        _tile_zero(3);
}

/* 16 rows of 16 become columns. */
static inline __attribute__((always_inline)) void transpose(__m512 *rows)
{
    static const int32_t first[4][16] = {
        {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30},
        {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29},
        {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27},
        {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23},
    };
    for (int stage = 0; stage < 4; stage++) {
        int apart = 1 << stage;
        __m512i low = _mm512_loadu_si512(first[stage]);
        __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(apart));
        for (int j = 0; j < 8; j++) {
            int i = j / apart * 2 * apart + j % apart;
            __m512 one = rows[i], other = rows[i + apart];
            rows[i] = _mm512_permutex2var_ps(one, low, other);
            rows[i + apart] = _mm512_permutex2var_ps(one, high, other);
        }
    }
}

#endif
