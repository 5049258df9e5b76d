/* The numbers of a tensor, in 16 bits where BF16 is defined. */
#ifndef SCALAR_H
#define SCALAR_H

#include <stdint.h>
#include <string.h>

#ifdef BF16
typedef uint16_t scalar;

static inline float wide(scalar value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

/* To the nearest, ties to even; what is no number stays none. */
static inline scalar narrow(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return value != value ? 0x7FC0 : (scalar)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}
#else
typedef float scalar;

static inline float wide(scalar value) { return value; }
static inline scalar narrow(float value) { return value; }
#endif

#endif
