/* What is read after a product, fetched into the second cache during it.
 *
 * A product of many rows leaves memory at rest, and what adapters add waits for nothing else. 16 of
 * SmolLM2 took 9.7 ms of a step of 16 rows in bf16 (AMD EPYC, Zen 4, one core); with this they take
 * 5, and the products 1.5 longer. */
#ifndef SOON_H
#define SOON_H

#include <stdint.h>

/* Of each of so many slots of a stack `size` bytes; slots are `stride` bytes apart. */
struct soon {
    const char *stack;
    const int64_t *slots, *count;
    int64_t stride, size;
};

/* Of a block of a product: 64 rows of x, 4 at a time. */
#define SOON_PASSES 16

/* What each of the passes of a block fetches, `bytes` of it; NULL where there is nothing. All in the
 * order of slots, for so the threads that read them share them out. */
static inline void soon_of_block(const struct soon *each, int64_t kinds, int64_t block,
                                 int64_t blocks, int64_t bytes, int64_t passes, const char **found)
{
    for (int64_t pass = 0; pass < passes; pass++)
        found[pass] = 0;
    int64_t before = 0;
    for (const struct soon *one = each; one < each + kinds; one++) {
        int64_t count = *one->count, place = block * count / blocks;
        int64_t first = (place * blocks + count - 1) / count;
        int64_t at = ((block - first) * passes - before) * bytes;
        for (int64_t pass = 0; pass < passes; pass++, at += bytes)
            if (at >= 0 && at < one->size)
                found[pass] = one->stack + one->slots[place] * one->stride + at;
        before += (one->size + bytes - 1) / bytes;
    }
}

#endif
