/* Add up the terms of an entropy over the runs of levels that codes share: statistics/solvers/entropy.py says which. */

#include <stdint.h>

enum { LANES = 4 };

/* terms: float64 (levels, widths), of the run from each level on that has fewest + column levels. sums: float64 (count,), over the codes
   of each candidate, whose code j begins at level candidate * j / codes; added in 4 lanes. */
void zeropoint_run_sums(const double *terms, int64_t widths, int64_t fewest, const int64_t *candidates, int64_t count, int64_t codes,
                        double *sums)
{
    for (int64_t i = 0; i < count; i++) {
        int64_t whole = candidates[i] / codes, rest = candidates[i] % codes, begin = 0, carried = 0;
        double lanes[LANES] = {0};
        for (int64_t j = 0; j < codes; j++) {
            carried += rest;
            int64_t more = carried >= codes;
            carried -= more ? codes : 0;
            lanes[j % LANES] += terms[begin * widths + whole + more - fewest];
            begin += whole + more;
        }
        sums[i] = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    }
}
