/* Count the elements of a tensor by the upper 16 bits of their float32 pattern, with exact bounds, in one pass over memory.

   Nearly all elements of a tensor lie within some octaves of each other. A block counts those of OCTAVES octaves, which hold most of a
   sample, of both signs, in its shared memory, and adds what it counted to the counts of all in the end. What lies outside goes to these
   at once, but for one key that may be as frequent, as is that of a mask's lowest float. Zeros, of which activations are full, are counted
   in a register. OCTAVES, a multiple of 8, and THREADS are defined by who compiles this. */

typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long i64;

enum { KEYS = OCTAVES * 128, INFINITY_BITS = 0x7f800000, SAMPLED = 128, BINS = 32, BIN = 8, WINDOW = OCTAVES / BIN, NO_KEY = ~0u };

struct Seen {
    float lo, hi; /* of all that is finite and not 0 */
    u32 zeros;
};

struct Totals {
    int lo, hi; /* as ordered ints */
    u32 zeros, nans, infinities;
    u32 bins[BINS];   /* of a sample, by 8 exponents each */
    u32 common, many; /* a key outside of the window, and how often it was seen */
};

/* Where a block counts: slots for KEYS keys from `lowest` on, positive and negative, and the counts of all blocks for the rest. */
struct Counter {
    u32 lowest;
    u32 *slots;
    u64 *counts;
};

/* Ints that are ordered as the floats are. */
__device__ int ordered(float x)
{
    int bits = __float_as_int(x);
    return bits < 0 ? bits ^ 0x7fffffff : bits;
}

__device__ void widen(Seen &seen, u32 bits)
{
    float x = __uint_as_float(bits);
    seen.lo = fminf(seen.lo, x);
    seen.hi = fmaxf(seen.hi, x);
}

__device__ void take_outside(u32 bits, u32 magnitude, const Counter &counter, Totals &totals, Seen &seen)
{
    if (magnitude > INFINITY_BITS)
        atomicAdd(&totals.nans, 1u);
    else if (magnitude == INFINITY_BITS)
        atomicAdd(&totals.infinities, 1u);
    else {
        widen(seen, bits);
        if (bits >> 16 == totals.common) /* on one address of all blocks they would wait for each other */
            atomicAdd(&totals.many, 1u);
        else
            atomicAdd(counter.counts + (bits >> 16), 1ull);
    }
}

__device__ __forceinline__ void take(u32 bits, const Counter &counter, Totals &totals, Seen &seen)
{
    u32 magnitude = bits & 0x7fffffff;
    u32 slot = (magnitude >> 16) - counter.lowest; /* what lies below wraps to above */
    if (slot < KEYS) {
        widen(seen, bits);
        atomicAdd(counter.slots + slot + (bits >> 31) * KEYS, 1u);
    } else if (magnitude == 0)
        seen.zeros++;
    else
        take_outside(bits, magnitude, counter, totals, seen);
}

struct Float32 {
    typedef u32 word;
    static __device__ u32 bits(word x) { return x; }
    static __device__ void each(u32 pair, u32 (&out)[1]) { out[0] = pair; }
};

struct BFloat16 {
    typedef unsigned short word;
    static __device__ u32 bits(word x) { return (u32)x << 16; }
    static __device__ void each(u32 pair, u32 (&out)[2])
    {
        out[0] = pair << 16;
        out[1] = pair & 0xffff0000;
    }
};

struct Float16 {
    typedef unsigned short word;
    static __device__ u32 bits(word x)
    {
        float wide;
        asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(x));
        return __float_as_uint(wide);
    }
    static __device__ void each(u32 pair, u32 (&out)[2])
    {
        out[0] = bits((word)pair);
        out[1] = bits((word)(pair >> 16));
    }
};

template <typename Format>
__device__ __forceinline__ void take_four(const uint4 &words, const Counter &counter, Totals &totals, Seen &seen)
{
    enum { EACH = 4 / sizeof(typename Format::word) };
    u32 four[4] = {words.x, words.y, words.z, words.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        u32 bits[EACH];
        Format::each(four[i], bits);
#pragma unroll
        for (int j = 0; j < EACH; j++)
            take(bits[j], counter, totals, seen);
    }
}

__device__ void clear(Totals &totals)
{
    if (threadIdx.x < BINS)
        totals.bins[threadIdx.x] = 0;
    if (threadIdx.x == 0) {
        totals.lo = ordered(__int_as_float(INFINITY_BITS));
        totals.hi = ordered(-__int_as_float(INFINITY_BITS));
        totals.zeros = totals.nans = totals.infinities = totals.many = 0;
        totals.common = NO_KEY;
    }
}

/* Return the bits of one of the elements that stand for all: some for each block, from all over the tensor. */
template <typename Format>
__device__ u32 sampled(const typename Format::word *x, i64 n)
{
    i64 step = n / (gridDim.x * SAMPLED), place = (i64)blockIdx.x * SAMPLED + threadIdx.x;
    return Format::bits(x[step ? place * step : place % n]);
}

/* Return the first key of the window that holds most of the sample: the middle one of several, so that others fit too. Every warp does
   this for itself. No window holds 0, NaN or infinities. */
__device__ u32 lowest_key(const Totals &totals)
{
    u32 lane = threadIdx.x % 32, held = 0;
    for (u32 bin = lane; bin < lane + WINDOW && lane + WINDOW <= BINS; bin++)
        held += totals.bins[bin];
    u32 most = held;
    for (int distance = 16; distance > 0; distance /= 2)
        most = max(most, __shfl_xor_sync(~0u, most, distance));
    u32 best = __ballot_sync(~0u, held == most && lane + WINDOW <= BINS);
    int first = __ffs(best) - 1, length = __ffs(~(best >> first)) - 1;
    return 128 * max(1, min((first + (length - 1) / 2) * BIN, 255 - OCTAVES));
}

/* Choose where a block counts; `totals` is cleared. All threads of the block come here. */
template <typename Format>
__device__ Counter choose(const typename Format::word *x, i64 n, u32 *slots, u64 *counts, Totals &totals)
{
    u32 bits = threadIdx.x < SAMPLED ? sampled<Format>(x, n) : 0, magnitude = bits & 0x7fffffff;
    bool stands = magnitude > 0 && magnitude < INFINITY_BITS;
    /* A key counts once for each warp: what a window is for are many keys, one alone needs none. */
    u32 equal = __match_any_sync(~0u, bits >> 16);
    if (stands && threadIdx.x % 32 == __ffs(equal) - 1)
        atomicAdd(&totals.bins[(magnitude >> 23) / BIN], 1u);
    __syncthreads();
    u32 lowest = lowest_key(totals);
    if (stands && (magnitude >> 16) - lowest >= KEYS)
        totals.common = bits >> 16; /* of one thread, whichever is last */
    __syncthreads();
    return {lowest, slots, counts};
}

/* Add what the threads of a warp have seen to the totals of its block. */
__device__ void add_warp(const Seen &seen, Totals &totals)
{
    float lo = seen.lo, hi = seen.hi;
    u32 zeros = seen.zeros;
    for (int distance = 16; distance > 0; distance /= 2) {
        lo = fminf(lo, __shfl_xor_sync(~0u, lo, distance));
        hi = fmaxf(hi, __shfl_xor_sync(~0u, hi, distance));
        zeros += __shfl_xor_sync(~0u, zeros, distance);
    }
    if (threadIdx.x % 32 == 0) {
        atomicMin(&totals.lo, ordered(zeros ? fminf(lo, 0.0f) : lo));
        atomicMax(&totals.hi, ordered(zeros ? fmaxf(hi, 0.0f) : hi));
        atomicAdd(&totals.zeros, zeros);
    }
}

__device__ void add_block(const Counter &counter, const Totals &totals, int *bounds, u64 *others)
{
    for (u32 slot = threadIdx.x; slot < 2 * KEYS; slot += THREADS) {
        u32 count = counter.slots[slot], key = counter.lowest + (slot < KEYS ? slot : slot - KEYS + 0x8000);
        if (count)
            atomicAdd(counter.counts + key, (u64)count);
    }
    if (threadIdx.x == 0) {
        atomicMin(bounds, totals.lo);
        atomicMax(bounds + 1, totals.hi);
        if (totals.zeros)
            atomicAdd(counter.counts, (u64)totals.zeros);
        if (totals.many)
            atomicAdd(counter.counts + totals.common, (u64)totals.many);
        if (totals.nans)
            atomicAdd(others, (u64)totals.nans);
        if (totals.infinities)
            atomicAdd(others + 1, (u64)totals.infinities);
    }
}

/* x: (n,) of the format, aligned to its elements. counts: (65536,), by key. bounds: (2,), the lowest and the highest finite value as
   ordered ints. others: (2,), how many NaN and infinities. */
template <typename Format>
__device__ __forceinline__ void observe(const typename Format::word *x, i64 n, u64 *counts, int *bounds, u64 *others)
{
    extern __shared__ u32 slots[]; /* (2, KEYS): positive, negative */
    __shared__ Totals totals;
    for (u32 slot = threadIdx.x; slot < 2 * KEYS; slot += THREADS)
        slots[slot] = 0;
    clear(totals);
    __syncthreads();
    const Counter counter = choose<Format>(x, n, slots, counts, totals);

    Seen seen = {__int_as_float(INFINITY_BITS), -__int_as_float(INFINITY_BITS), 0};
    enum { WIDTH = 16 / sizeof(typename Format::word) };
    i64 head = (16 - (u64)x % 16) % 16 / sizeof(typename Format::word);
    head = head < n ? head : n;
    const uint4 *body = (const uint4 *)(x + head);
    i64 length = (n - head) / WIDTH, thread = blockIdx.x * (i64)THREADS + threadIdx.x, threads = gridDim.x * (i64)THREADS;
    i64 i = thread;
    for (; i + threads < length; i += 2 * threads) {
        uint4 first = __ldcs(body + i), second = __ldcs(body + i + threads);
        take_four<Format>(first, counter, totals, seen);
        take_four<Format>(second, counter, totals, seen);
    }
    if (i < length)
        take_four<Format>(__ldcs(body + i), counter, totals, seen);
    i64 edge = n - length * WIDTH; /* elements before and behind the body, fewer than a block has threads */
    if (thread < edge)
        take(Format::bits(x[thread < head ? thread : thread + length * WIDTH]), counter, totals, seen);

    __syncwarp();
    add_warp(seen, totals);
    __syncthreads();
    add_block(counter, totals, bounds, others);
}

#define KERNEL(name, Format)                                                                                                       \
    extern "C" __global__ void __launch_bounds__(THREADS, 2) name(const Format::word *x, i64 n, u64 *counts, int *bounds, u64 *others) \
    {                                                                                                                              \
        observe<Format>(x, n, counts, bounds, others);                                                                             \
    }

KERNEL(observe_float32, Float32)
KERNEL(observe_bfloat16, BFloat16)
KERNEL(observe_float16, Float16)
