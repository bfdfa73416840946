/* Add float32 numbers exactly, as integers of some 300 bits: statistics/channel_sums.py says how their digits lie. */

#include <stdint.h>
#include <string.h>

enum { LIMB_BITS = 16, LOWEST = 22 }; /* a mantissa of biased exponent e is worth 2**(e + LOWEST - 172) */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static int is_finite(const float *row, int64_t channels)
{
    int finite = 1;
    for (int64_t channel = 0; channel < channels; channel++)
        finite &= (bits_of(row[channel]) & 0x7f800000) != 0x7f800000;
    return finite;
}

/* rows: float32 (count, channels). limbs: int64 (19, channels), so that neighbours of like size lie side by side: sums to add to, whose digits may be of any size and sign.
   Returns how many of the rows are finite: the others are left out. */
int64_t zeropoint_add_rows(const float *rows, int64_t count, int64_t channels, int64_t *limbs)
{
    int64_t added = 0;
    for (const float *row = rows, *end = rows + count * channels; row != end; row += channels) {
        if (!is_finite(row, channels))
            continue;
        added++;
        for (int64_t channel = 0; channel < channels; channel++) {
            uint32_t bits = bits_of(row[channel]), exponent = bits >> 23 & 0xff;
            int64_t mantissa = bits & 0x7fffff;
            if (exponent)
                mantissa |= 0x800000;
            else
                exponent = 1; /* subnormal */
            uint32_t position = exponent + LOWEST;
            int64_t digits = mantissa << position % LIMB_BITS;
            limbs[position / LIMB_BITS * channels + channel] += bits >> 31 ? -digits : digits;
        }
    }
    return added;
}
