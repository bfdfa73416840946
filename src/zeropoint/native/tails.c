/* Look up what lies beyond the boundaries of codes in the running sums of a histogram: statistics/tails.py says what the sums are. */

#include <math.h>
#include <stdint.h>
#include <string.h>

enum { CELL = 45, LANES = 4 };

struct tails {
    const double *outer, *density, *count, *first, *second; /* of each piece */
    const int64_t *lookup;                                  /* (2, cells): positive side, negative side */
    int64_t cells, lowest;
};

/* Return the piece that x lies in, with `inside` how far from its outer end. */
static int64_t find(const struct tails *tails, double x, int negative, double *inside)
{
    double magnitude = fabs(x);
    int64_t key;
    memcpy(&key, &magnitude, sizeof key);
    key = (key >> CELL) - tails->lowest;
    key = key < 0 ? 0 : key;
    key = key >= tails->cells ? tails->cells - 1 : key;
    int64_t at = tails->lookup[negative ? key + tails->cells : key];
    while (tails->outer[at] < magnitude)
        at++;
    *inside = tails->outer[at] - magnitude;
    return at;
}

static double excess(const struct tails *tails, double x, int negative)
{
    double inside;
    int64_t at = find(tails, x, negative, &inside);
    return (tails->density[at] * inside * 0.5 + tails->count[at]) * inside + tails->first[at];
}

static double squared_excess(const struct tails *tails, double x, int negative)
{
    double inside;
    int64_t at = find(tails, x, negative, &inside);
    double linear = tails->count[at] + inside * tails->density[at] / 3.0;
    return tails->second[at] + inside * (2.0 * tails->first[at] + inside * linear);
}

/* codes: float64 (count, 3), scale and first and last code. sums: float64 (count, 2), the excess over the boundaries between the codes,
   added in 4 lanes, and the squared excess over both end codes. */
void zeropoint_code_sums(const struct tails *tails, const double *codes, int64_t count, int64_t boundaries, double *sums)
{
    for (int64_t i = 0; i < count; i++, codes += 3, sums += 2) {
        double lanes[LANES] = {0};
        for (int64_t k = 0; k < boundaries; k++) {
            double x = ((double)k + 0.5 + codes[1]) * codes[0];
            lanes[k % LANES] += excess(tails, x, x < 0.0);
        }
        sums[0] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
        sums[1] = squared_excess(tails, codes[1] * codes[0], 1) + squared_excess(tails, codes[2] * codes[0], 0);
    }
}
