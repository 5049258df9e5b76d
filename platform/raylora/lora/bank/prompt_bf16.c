/* Many tokens a row: the products of a prompt's rows with their adapters, by the instructions for
 * bf16.
 *
 * The numbers are those that PEFT computes: sums have the order of torch's products (oneDNN 3 for
 * AVX512-BF16), chains over neighbouring pairs in pieces that are added up. Torch's batched
 * products rearrange and copy what these read where it lies, and add in a pass of its own: 215
 * against 112 ms for 16 prompts of SmolLM2 with 88 tokens and adapters of rank 16 (AMD EPYC, Zen 4,
 * one core).
 */
#include "adapt.h"
#include "chains.h"
#include "expand.h"
#include "units.h"

#define TOKENS CHAIN_ROWS
#define RANKS CHAIN_SUMS
/* Columns of A before the next tokens' turn: 16 KB of 16 ranks. */
#define COLUMNS 512
/* Columns that are one chain of a sum; of a width up to 1,024 it is half of that. */
#define CHAIN 1024

static int64_t passes_of(struct unit unit)
{
    return (unit.end - unit.first + TOKENS - 1) / TOKENS;
}

static void shrink(const struct batch *batch, const struct input *input, int64_t ranks,
                   scalar *products)
{
    int64_t panels = (ranks + RANKS - 1) / RANKS, units = all_units(batch), width = input->width;
    int64_t chain = width > CHAIN ? CHAIN : CHAIN / 2;
#pragma omp for schedule(static)
    for (int64_t n = 0; n < units * panels; n++) {
        struct unit unit = unit_at(batch, n / panels);
        int64_t j = n % panels * RANKS;
        int there = ranks - j < RANKS ? (int)(ranks - j) : RANKS;
        const scalar *here = input->a + batch->slots[unit.adapter] * input->stride + j * width;
        int64_t passes = passes_of(unit), tokens = unit.end - unit.first;
        _Alignas(64) float chains[MOST_TOKENS * RANKS] = {0}, sums[MOST_TOKENS * RANKS] = {0};
        _Alignas(64) int32_t turned[COLUMNS / 2 * RANKS];
        for (int64_t k = 0; k < width; k += COLUMNS) {
            int64_t columns = width - k < COLUMNS ? width - k : COLUMNS;
            for (int64_t i = 0; i < columns; i += OUTPUTS)
                turn(here + k + i, there, width, outputs_there(columns - i),
                     turned + RANKS * i / 2);
            for (int64_t pass = 0; pass < passes; pass++) {
                int64_t row = unit.first + part_at(pass, passes, tokens);
                int64_t wanted = unit.first + part_at(pass + 1, passes, tokens) - row;
                const scalar *from[TOKENS];
                for (int i = 0; i < wanted; i++)
                    from[i] = input->x + batch->rows[row + i] * input->x_stride + k;
                float *to = chains + (row - unit.first) * RANKS;
                FOR_EACH_NUMBER(add_chains, from, wanted, turned, columns, to)
            }
            int64_t done = k + columns;
            if (done == width || done % chain == 0)
                for (int64_t i = 0; i < tokens * RANKS; i++) {
                    sums[i] += chains[i];
                    chains[i] = 0;
                }
        }
        for (int64_t row = unit.first; row < unit.end; row++) {
            __m512 own = _mm512_load_ps(sums + (row - unit.first) * RANKS);
            _mm256_mask_storeu_epi16(products + row * ranks + j, (1u << there) - 1,
                                     (__m256i)_mm512_cvtneps_pbh(own));
        }
    }
}

static void expand(const struct batch *batch, const struct part *part, int64_t ranks, int64_t rank)
{
    int64_t units = all_units(batch), width = part->width;
#pragma omp for schedule(static) nowait
    for (int64_t n = 0; n < units; n++) {
        struct unit unit = unit_at(batch, n);
        const scalar *here = part->b + batch->slots[unit.adapter] * part->stride;
        int64_t after = n + 1 < units ? unit_at(batch, n + 1).adapter : unit.adapter;
        const scalar *next = part->b + batch->slots[after] * part->stride;
        int64_t passes = passes_of(unit), tokens = unit.end - unit.first;
        for (int64_t pass = 0; pass < passes; pass++) {
            int64_t row = unit.first + part_at(pass, passes, tokens);
            int64_t wanted = unit.first + part_at(pass + 1, passes, tokens) - row;
            const float *own = part->scales ? part->scales + row : 0;
            int last = pass == passes - 1 && next != here;
            const scalar *from[TOKENS];
            for (int i = 0; i < wanted; i++)
                from[i] = part->products + (row + i) * ranks;
            for (int64_t o = 0; o < width; o += OUTPUTS) {
                scalar *to[TOKENS];
                for (int i = 0; i < wanted; i++)
                    to[i] = part->out + batch->rows[row + i] * part->out_stride + o;
                FOR_EACH_NUMBER(expand_rows, from, wanted, here + o, width, rank,
                                outputs_there(width - o), last ? next + o : 0, own, to)
            }
        }
    }
}
