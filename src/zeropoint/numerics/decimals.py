"""Numbers for files that people read."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

MOST_DIGITS = 9  # any float32 is told from its neighbours by these
LEAST, MOST = -14, 22  # magnitudes whose digits are whole numbers times or by powers of ten that float64 holds exactly


def shortest_decimals(values: npt.ArrayLike) -> tuple[float, ...]:
    """Return float32 `values`, of any shape, as the decimals of fewest digits that read back as the same float32.

    Example:
        >>> shortest_decimals(np.array([0.1, 1 / 3], np.float32))
        (0.1, 0.33333334)
    """
    exact = np.asarray(values, np.float32).reshape(-1)
    found = np.full(exact.size, np.nan)
    with np.errstate(all="ignore"):
        x = exact.astype(np.float64)
        magnitude = np.floor(np.log10(np.abs(x)))
        ordinary = (magnitude >= LEAST) & (magnitude <= MOST)
        for digits in range(1, MOST_DIGITS + 1):
            places = digits - 1 - magnitude
            power = 10.0 ** np.abs(places)
            rounded = np.where(places < 0, np.rint(x / power) * power, np.rint(x * power) / power)
            fits = np.isnan(found) & ordinary & (rounded.astype(np.float32) == exact)
            found[fits] = rounded[fits]
    for left in np.flatnonzero(np.isnan(found)):  # zeros, what is not finite, and exponents beyond these
        found[left] = float(str(exact[left]))
    return tuple(found.tolist())
