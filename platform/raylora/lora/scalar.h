/* The numbers of a tensor, in 16 bits where BF16 is defined; of one that is kept in 16 bits where
 * STORED_BF16 is; and e^x. */
#ifndef SCALAR_H
#define SCALAR_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float wide_bf16(uint16_t value)
{
    uint32_t bits = (uint32_t)value << 16;
    float result;
    memcpy(&result, &bits, sizeof result);
    return result;
}

#ifdef BF16
typedef uint16_t scalar;

static inline float wide(scalar value) { return wide_bf16(value); }

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

#ifdef STORED_BF16
typedef uint16_t stored;

static inline float wide_stored(stored value) { return wide_bf16(value); }
#else
typedef scalar stored;

static inline float wide_stored(stored value) { return wide(value); }
#endif

/* e^x for x <= 0, to 2 units of the last place; the C library's is one number at a time. Cephes'
 * polynomial after a reduction by multiples of ln 2. */
static inline float power(float x)
{
    x = x < -87.0f ? -87.0f : x;
    float n = rintf(x * 1.44269504f);
    float f = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    float p = 1.98756915e-4f;
    p = p * f + 1.39819995e-3f;
    p = p * f + 8.33345186e-3f;
    p = p * f + 4.16657962e-2f;
    p = p * f + 1.66666655e-1f;
    p = p * f + 5.00000012e-1f;
    p = p * f * f + f + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float scale;
    memcpy(&scale, &bits, sizeof scale);
    return p * scale;
}

#endif
