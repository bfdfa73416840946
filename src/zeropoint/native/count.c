/* Count the elements of a tensor by the upper 16 bits of their float32 pattern, with exact bounds, in one pass over memory. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Elements between two looks at whether any was outside of the bounds; if so they are read again, from the first-level cache. */
enum { BLOCK = 4096 };

/* GCC and Clang compile these for any processor. */
typedef float floats __attribute__((vector_size(16)));
typedef int32_t masks __attribute__((vector_size(16)));

static floats floats_at(const float *x)
{
    floats values;
    memcpy(&values, x, sizeof values);
    return values;
}

static uint64_t pair_at(const float *x)
{
    uint64_t pair;
    memcpy(&pair, x, sizeof pair);
    return pair;
}

/* An increment has to wait for the one before it where both hit the same place: neighbours count in two columns, which the reader adds. */
static void count_pair(uint64_t pair, uint32_t *slots)
{
    slots[2 * (pair >> 16 & 0xffff)]++;
    slots[2 * (pair >> 48) + 1]++;
}

static void count_one(const float *x, uint32_t *slots)
{
    uint32_t bits;
    memcpy(&bits, x, sizeof bits);
    slots[2 * (bits >> 16)]++;
}

/* Count x[0..n) and return whether any of it is outside of the bounds, NaN or infinite, which is rare once some blocks were seen.
   Zeros, of which activations are full, come in runs: eight of them are one addition. */
static int count(const float *x, int64_t n, uint32_t *slots, const float *bounds)
{
    const floats lo = {bounds[0], bounds[0], bounds[0], bounds[0]}, hi = {bounds[1], bounds[1], bounds[1], bounds[1]};
    masks outside = {0};
    int any = 0;
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        floats left = floats_at(x + i), right = floats_at(x + i + 4);
        outside |= ~((left >= lo) & (left <= hi)) | ~((right >= lo) & (right <= hi));
        uint64_t a = pair_at(x + i), b = pair_at(x + i + 2), c = pair_at(x + i + 4), d = pair_at(x + i + 6);
        if ((a | b | c | d) == 0) {
            slots[0] += 8;
            continue;
        }
        count_pair(a, slots);
        count_pair(b, slots);
        count_pair(c, slots);
        count_pair(d, slots);
    }
    for (; i < n; i++) {
        any |= !(x[i] >= bounds[0] && x[i] <= bounds[1]);
        count_one(x + i, slots);
    }
    return any | outside[0] | outside[1] | outside[2] | outside[3];
}

static void widen(const float *x, int64_t n, float *bounds, int64_t *others)
{
    for (int64_t i = 0; i < n; i++) {
        if (isnan(x[i]))
            others[0]++;
        else if (isinf(x[i]))
            others[1]++;
        else {
            bounds[0] = x[i] < bounds[0] ? x[i] : bounds[0];
            bounds[1] = x[i] > bounds[1] ? x[i] : bounds[1];
        }
    }
}

/* x: float32 (n,). slots: uint32 (65536, 2), counts to add to. bounds: float32 (2,), lowest and highest finite value so far.
   others: int64 (2,), how many NaN and infinities so far. */
void zeropoint_count(const float *x, int64_t n, uint32_t *slots, float *bounds, int64_t *others)
{
    for (int64_t start = 0; start < n; start += BLOCK) {
        int64_t length = n - start < BLOCK ? n - start : BLOCK;
        if (count(x + start, length, slots, bounds))
            widen(x + start, length, bounds, others);
    }
}
