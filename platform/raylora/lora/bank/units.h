/* The rows of a batch in pieces of one adapter each, of about the same size. */
#ifndef UNITS_H
#define UNITS_H

#include "batch.h"

/* Tokens of a unit of work. */
#define MOST_TOKENS 96

/* Tokens first to end of one adapter. */
struct unit {
    int64_t adapter, first, end;
};

static int64_t units_of(const struct batch *batch, int64_t s)
{
    return (batch->starts[s + 1] - batch->starts[s] + MOST_TOKENS - 1) / MOST_TOKENS;
}

static int64_t all_units(const struct batch *batch)
{
    int64_t count = 0;
    for (int64_t s = 0; s < batch->adapters; s++)
        count += units_of(batch, s);
    return count;
}

/* The part of so many that begins here, of about the same size as the others: with one token left
 * over a pass would take as long as with all. */
static int64_t part_at(int64_t place, int64_t count, int64_t size)
{
    return place * size / count;
}

static struct unit unit_at(const struct batch *batch, int64_t place)
{
    int64_t s = 0;
    for (; place >= units_of(batch, s); s++)
        place -= units_of(batch, s);
    int64_t start = batch->starts[s], size = batch->starts[s + 1] - start;
    int64_t count = units_of(batch, s);
    return (struct unit){s, start + part_at(place, count, size),
                         start + part_at(place + 1, count, size)};
}

#endif
