"""Fit the weight of one operator to what its inputs have become: what it should compute, on which scale, by which codes.

With x the float network's inputs of the operator, x' those that it gets in the quantized one, and W its weight, the product of the scale
and the codes, Q, has to bring Q x' close to W x. Both streams enter by their moments only. Arrays are as in `rounding`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import numpy.typing as npt

from zeropoint.refine.rounding import Grid, chosen_shares, corrected_target, damped, damping_for, nearest, round_weights

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]

SHARES = tuple(float(share) for share in 2.0 ** (-np.arange(-1, 7) / 12.0))  # of a scale that has the least error by the weights alone
DAMPINGS = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # of targets: how much x' is believed
LARGEST_GAIN = 2.0
FEW = 2.0  # inputs for each column


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """Sums over rows that count for `count`: of x and x', (groups, K), and of their products, (groups, K, K)."""

    count: float
    floats: Array64
    ints: Array64
    power: Array64  # x x^T
    cross: Array64  # x x'^T
    gram: Array64  # x' x'^T

    def __add__(self, other: Moments) -> Moments:
        return Moments(
            self.count + other.count,
            self.floats + other.floats,
            self.ints + other.ints,
            self.power + other.power,
            self.cross + other.cross,
            self.gram + other.gram,
        )

    def centred(self) -> Moments:
        """Return the same about the means, for operators whose bias takes care of these."""
        about_float, about_int = (sums[:, None, :] / max(1.0, self.count) for sums in (self.floats, self.ints))
        floats, ints = self.floats[:, :, None], self.ints[:, :, None]
        products = self.power - floats * about_float, self.cross - floats * about_int, self.gram - ints * about_int
        return Moments(self.count, self.floats, self.ints, *products)


def moments(floats: Array32, ints: Array32) -> Moments:
    """Return the moments of rows of x and of x', both (groups, places, K).

    A row of more than average power counts only as much as one that has it: a few huge tokens of a transformer would decide all else.
    Rows that hold NaN or infinity do not count.
    """
    x, seen = floats.astype(np.float64), ints.astype(np.float64)
    finite = (np.isfinite(x) & np.isfinite(seen)).all(axis=(0, 2))
    if not finite.all():
        x, seen = x[:, finite], seen[:, finite]
    power = np.square(x).sum(axis=(0, 2))
    weights = np.divide(power.mean() if len(power) else 0.0, power, out=np.ones_like(power), where=power > 0.0)
    root = np.sqrt(np.minimum(weights, 1.0))[None, :, None]
    sums = (x * root**2).sum(axis=1), (seen * root**2).sum(axis=1)
    x, seen = x * root, seen * root
    turned, turned_seen = (rows.transpose(0, 2, 1) for rows in (x, seen))
    return Moments(float(np.square(root).sum()), *sums, turned @ x, turned @ seen, turned_seen @ seen)


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """A weight (groups, rows, K), the grid of its codes, and moments of its inputs, some `seen` and some set `aside`.

    biased: a bias makes up for means, so that all is about these. scalable: each row's scale may be changed, but not to less than the
    share `least` of what it is, (groups, rows).
    """

    W: Array64
    grid: Grid
    seen: Moments
    aside: Moments
    biased: bool
    scalable: bool
    least: Array64


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """codes: (groups, rows, K). shares: of the scale that each row had, (groups, rows)."""

    codes: Array64
    shares: Array64


def fit(layer: Layer, *, thorough: bool = False) -> Fitted:
    """Return codes and scales for a weight.

    What was set aside tells how much of x' to believe, and where inputs are few, if the nearest codes do better than fitted ones. Codes
    and scales are then fitted to all that is there: to keep the nearest codes for single rows cost more than it saved.

    Raises:
        DataError: the moments hold NaN or infinity.
    """
    seen, aside, whole = (part.centred() if layer.biased else part for part in (layer.seen, layer.aside, layer.seen + layer.aside))
    if whole.count < FEW * layer.W.shape[2] and not _is_of_use(layer, seen, aside):
        codes, shares = nearest(layer.W, layer.grid), np.ones(layer.W.shape[:2])
        return Fitted(codes, np.maximum(gains(codes * layer.grid.scale, layer.W, whole), layer.least) if layer.scalable else shares)
    believed = best_damping(layer.W, seen, aside, DAMPINGS)
    target = layer.W if believed is None else corrected_target(layer.W, whole.gram, whole.cross, believed)
    damping, shares = damping_for(whole.count, layer.W.shape[2]), np.ones(layer.W.shape[:2])
    if layer.scalable:
        found = chosen_shares(target, damped(whole.gram, damping), layer.grid, SHARES)
        shares = np.maximum(found, layer.least)
    grid = scaled(layer.grid, shares)
    codes = round_weights(target, whole.gram, grid, thorough=thorough, damping=damping)
    if layer.scalable:
        shares = np.maximum(shares * gains(codes * grid.scale, layer.W, whole), layer.least)
    return Fitted(codes, shares)


def _is_of_use(layer: Layer, seen: Moments, aside: Moments) -> bool:
    """Tell if codes fitted to what was `seen` do better than the nearest ones on what was set `aside`."""
    codes = round_weights(layer.W, seen.gram, layer.grid, damping=damping_for(seen.count, layer.W.shape[2]))
    fitted, plain = (output_error(found * layer.grid.scale, layer.W, aside).sum() for found in (codes, nearest(layer.W, layer.grid)))
    return bool(fitted < plain)


def scaled(grid: Grid, shares: Array64) -> Grid:
    """Return the grid with that share of each row's scale."""
    return replace(grid, scale=grid.scale * shares[..., None])


def output_error(Q: Array64, W: Array64, of: Moments) -> Array64:
    """Return the sum of |Q x' - W x|² less that of |W x|² for each row, (groups, rows): by that, weights Q can be compared."""
    return np.asarray(np.einsum("grk,grk->gr", Q @ of.gram - 2.0 * (W @ of.cross), Q))


def best_damping(W: Array64, seen: Moments, aside: Moments, dampings: Sequence[float]) -> float | None:
    """Return by which damping W's corrected target, fitted to what was `seen`, comes closest to W x on what was set `aside`, if by any."""
    best, least = None, float(output_error(W, W, aside).sum())
    for damping in dampings:
        error = float(output_error(corrected_target(W, seen.gram, seen.cross, damping), W, aside).sum())
        if error < least:
            best, least = damping, error
    return best


def gains(Q: Array64, W: Array64, of: Moments) -> Array64:
    """Return what each row of Q has to be multiplied by for outputs Q x' as large as W x: (groups, rows), 1 where that makes no sense.

    By the factor of least error they would become smaller, the more so the more noise they hold, and from operator to operator the
    signal would fade: rectifiers cut off what stays below their threshold.
    """
    ours, theirs = (np.einsum("grk,grk->gr", weight @ products, weight) for weight, products in ((Q, of.gram), (W, of.power)))
    together = np.einsum("grk,grk->gr", W @ of.cross, Q)
    useful = (ours > 0.0) & (theirs > 0.0) & (together > 0.0)
    ratio = np.divide(theirs, ours, out=np.ones_like(ours), where=useful)
    return np.asarray(np.clip(np.sqrt(ratio), 1.0 / LARGEST_GAIN, LARGEST_GAIN))


def total(parts: Sequence[Moments]) -> Moments:
    """Return the moments of all rows."""
    return reduce(Moments.__add__, parts)
