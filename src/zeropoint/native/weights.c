/* Find for each row of a weight which of a few scales has the least squared error. */

#include <math.h>
#include <stdint.h>
#include <string.h>

/* Errors are added in float32 in 16 lanes, element i in lane i % 16, and after each BLOCK elements in float64: enough digits to tell
   candidates apart, in an order that numpy can repeat. */
enum { LANES = 16, BLOCK = 512, FIELDS = 3 };

static const float ROUNDER = 12582912.0f; /* 1.5 * 2**23: adding it leaves no bits behind the point, half to even, below 2**22 */

/* sums[lane] += the squared errors of x[0..n), in units of the scale; n is a multiple of LANES. */
static void add_errors(const float *x, int64_t n, float inverse, float first, float last, double *sums)
{
    float lanes[LANES] = {0};
    for (int64_t i = 0; i < n; i += LANES)
        for (int lane = 0; lane < LANES; lane++) {
            float t = x[i + lane] * inverse;
            float code = t < first ? first : t;
            code = code > last ? last : code;
            code = (code + ROUNDER) - ROUNDER;
            float error = code - t;
            lanes[lane] += error * error;
        }
    for (int lane = 0; lane < LANES; lane++)
        sums[lane] += (double)lanes[lane];
}

static double total(const double *sums)
{
    double halves[LANES];
    memcpy(halves, sums, sizeof halves);
    for (int width = LANES / 2; width > 0; width /= 2)
        for (int lane = 0; lane < width; lane++)
            halves[lane] += halves[lane + width];
    return halves[0];
}

/* The squared error of x[0..n), or as soon as it is known to be no less than `limit`, what was added up until then. */
static double squared_error(const float *x, int64_t n, const float *candidate, double limit)
{
    float scale = candidate[0], inverse = 1.0f / scale;
    double square = (double)scale * (double)scale, sums[LANES] = {0}, found = 0.0;
    for (int64_t start = 0; start < n; start += BLOCK) {
        add_errors(x + start, n - start < BLOCK ? n - start : BLOCK, inverse, candidate[1], candidate[2], sums);
        found = total(sums) * square;
        if (found >= limit)
            break;
    }
    return found;
}

/* x: float32 (rows, n), n a multiple of 16. candidates: float32 (rows, count, 3): scale, and the lowest and highest code less the zero
   point. best: int64 (rows,), which candidate of each row has the least squared error; a later one has to be below `gain` times that. */
void zeropoint_least_error(const float *x, int64_t rows, int64_t n, const float *candidates, int64_t count, double gain, int64_t *best)
{
    for (int64_t row = 0; row < rows; row++, x += n, candidates += count * FIELDS) {
        double least = INFINITY;
        for (int64_t i = 0; i < count; i++) {
            double limit = i == 0 ? INFINITY : gain * least;
            double found = squared_error(x, n, candidates + i * FIELDS, limit);
            if (i == 0 || found < limit) {
                least = found;
                best[row] = i;
            }
        }
    }
}
