/* Which rows of a batch go through which adapter.
 *
 * Rows stand in the order of their adapters: those of adapter s are rows[starts[s]] up to, not
 * including, rows[starts[s + 1]]. Its tensors lie in slot slots[s] of a stack, whose slots are
 * `stride` elements apart.
 */
#ifndef BATCH_H
#define BATCH_H

#include <stdint.h>

struct batch {
    int64_t adapters;
    const int64_t *slots;
    const int64_t *starts;
    const int64_t *rows;
};

#endif
