"""Choose the codes of weights by the error of what the operator puts out, and not by that of each weight alone.

With W the weights of an operator, x its inputs and E = W - scale * codes, the squared error of its outputs is quadratic in E: the sum of
|E x|² over all x is the trace of E G E^T, where G is the sum of x x^T. Each row of W, an output channel, is a problem of its own:
the point of a lattice that is closest to it in the metric G. To round each weight to the nearest code is best only where the inputs
are uncorrelated; else the errors of some weights can make up for those of others.

Arrays are batches of groups, one for each group of a convolution: W and codes (groups, rows, K), G (groups, K, K), symmetric and positive
semidefinite. All are float64, codes too. No input is changed, and nothing is random.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from zeropoint.errors import DataError

Array64 = npt.NDArray[np.float64]
Indices = npt.NDArray[np.intp]

DAMPING = 0.03  # of the mean of G's diagonal
LEAST_DAMPING = 1e-6  # of the same: a singular G has a Cholesky factor all the same
LEAF = 16  # columns that are worked on one by one; between such stretches the work is products of matrices
BLOCK = 32  # the same, where each row has several candidates
CANDIDATES = 8  # of each row
FEW = 1 << 15  # weights: for these several candidates take milliseconds
ENTRIES = 1 << 22  # errors of candidates that are held at once: 32 MiB
SWEEPS, THOROUGH_SWEEPS = 1, 20  # of descent: more than one gains little where few weights are clipped
NO_GAIN = 1.0 - 1e-9  # of half a step: what errors in the last bits could tip stays


@dataclass(frozen=True, slots=True, eq=False)
class Grid:
    """What a weight can be: scale * code, with whole codes from qmin to qmax. scale: positive, (groups, rows, 1) or W's shape."""

    scale: Array64
    qmin: int
    qmax: int


def round_weights(W: Array64, G: Array64, grid: Grid, *, thorough: bool = False, damping: float = DAMPING) -> Array64:
    """Return codes for W, of its shape, with no row's `quadratic_error` larger than that of its nearest codes.

    G: the sum of x x^T over the operator's inputs x. damping: see `damped`. thorough: follow several candidates for each row, which
    takes some five times as long; few weights get as much in any case.

    Raises:
        DataError: G holds NaN or infinity.

    Example:
        >>> W, G = np.array([[[0.4, 0.4]]]), np.array([[[1.0, 0.9], [0.9, 1.0]]])  # two weights that get nearly the same input
        >>> round_weights(W, G, Grid(np.array([[[1.0]]]), -7, 7))
        array([[[1., 0.]]])
    """
    metric = damped(G, damping)
    wide = thorough or W.size <= FEW
    found = beam_search(W, metric, grid) if wide else gptq(W, metric, grid)
    found = descend(W, found, metric, grid, sweeps=THOROUGH_SWEEPS if wide else SWEEPS)
    plain = nearest(W, grid)
    worse = quadratic_error(W - grid.scale * found, G) > quadratic_error(W - grid.scale * plain, G)
    return np.where(worse[..., None], plain, found)


def quadratic_error(E: Array64, G: Array64) -> Array64:
    """Return e G e^T for each row e of E (groups, rows, K): (groups, rows)."""
    return np.asarray(np.einsum("grk,grk->gr", E @ G, E))


def damped(G: Array64, damping: float) -> Array64:
    """Return G + λI, with λ the share `damping` of the mean of G's diagonal.

    G is known from samples. What it says of directions in which these hardly differ is noise, and codes fitted to it do worse
    than the nearest ones on inputs that were not seen. See `damping_for`.

    Raises:
        DataError: G holds NaN or infinity.
    """
    mean = np.abs(np.einsum("gkk->gk", G)).mean(axis=1)
    if not np.isfinite(mean).all():
        raise DataError("inputs of weights: found NaN or infinity in them, expected numbers; look at the samples")
    added = np.where(mean > 0.0, damping * mean, 1.0)
    return G + added[:, None, None] * np.eye(G.shape[1])


def damping_for(count: float, width: int) -> float:
    """Return the damping for a G of `width` columns that is the sum over `count` inputs.

    Measured on layers of convolutional networks and of a transformer, by the error on other inputs: the fewer inputs, the more.

    Example:
        >>> damping_for(4096, 512), damping_for(64, 1024)
        (0.01875, 1.0)
    """
    return min(1.0, 0.15 * width / max(1, count))


def nearest(W: Array64, grid: Grid) -> Array64:
    """Return the code nearest to each weight, half to even."""
    return np.clip(np.rint(W / grid.scale), grid.qmin, grid.qmax)


@dataclass(frozen=True, slots=True, eq=False)
class _Triangular:
    """The problem with its columns in the order from the last to the first of which codes are chosen, and G = L L^T.

    An error e is then the sum over j of L_jj² (e_j + sum of e_i L_ij / L_jj over i > j)². Columns of much input come first, when
    most others can still make up for them.
    """

    W: Array64  # (groups, rows, K)
    scale: Array64  # of the same shape
    factors: Array64  # [i, j] = L_ij / L_jj: (groups, K, K)
    squares: Array64  # L_jj²: (groups, K)
    order: Indices  # (groups, 1, K)

    @classmethod
    def of(cls, W: Array64, G: Array64, grid: Grid) -> _Triangular:
        order = np.argsort(np.einsum("gkk->gk", G), axis=1, kind="stable")[:, None]
        turned = np.take_along_axis(np.take_along_axis(G, order, 2), np.swapaxes(order, 1, 2), 1)
        L = _cholesky(damped(turned, LEAST_DAMPING))
        pivots = np.einsum("gkk->gk", L)
        W, scale = (np.take_along_axis(np.broadcast_to(array, W.shape), order, 2) for array in (W, grid.scale))
        return cls(W, scale, L / pivots[:, None], pivots * pivots, order)

    def restored(self, codes: Array64) -> Array64:
        """Return codes, (groups, rows, K), in the order of the columns that were given."""
        found = np.empty_like(codes)
        np.put_along_axis(found, np.broadcast_to(self.order, codes.shape), codes, 2)
        return found


def _cholesky(G: Array64) -> Array64:
    """Return L with G = L L^T, of a more damped G where errors in the last bits made it indefinite."""
    try:
        return np.asarray(np.linalg.cholesky(G), np.float64)
    except np.linalg.LinAlgError:
        if len(G) > 1:
            return np.concatenate([_cholesky(one[None]) for one in G])
        return _cholesky(damped(G, 1.0))


def gptq(W: Array64, G: Array64, grid: Grid) -> Array64:
    """Return codes chosen one column after the other, each making up for the errors of those before it.

    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022), written as what it is,
    Babai's nearest plane (Chen et al., "The Geometry of LLM Quantization", 2025): each term of the sum in `_Triangular` in turn is
    made as small as a code can make it.
    """
    problem = _Triangular.of(W, G, grid)
    factors, target, scale = problem.factors, _columns(problem.W, W.shape), _columns(problem.scale, W.shape)
    codes, error, wanted = np.empty_like(target), np.empty_like(target), target.copy()

    def fill(start: int, stop: int) -> None:
        if stop - start > LEAF:
            middle = (start + stop) // 2
            fill(middle, stop)
            wanted[:, start:middle] += np.swapaxes(factors[:, middle:stop, start:middle], 1, 2) @ error[:, middle:stop]
            fill(start, middle)
            return
        for j in range(stop - 1, start - 1, -1):
            codes[:, j] = np.clip(np.rint(wanted[:, j] / scale[:, j]), grid.qmin, grid.qmax)
            error[:, j] = target[:, j] - scale[:, j] * codes[:, j]
            wanted[:, start:j] += factors[:, j, start:j, None] * error[:, None, j]

    fill(0, W.shape[2])
    return problem.restored(np.ascontiguousarray(np.swapaxes(codes, 1, 2)))


def beam_search(W: Array64, G: Array64, grid: Grid, *, width: int = CANDIDATES) -> Array64:
    """Return codes chosen as `gptq` does, but following the `width` best choices of each row, of which the last step leaves the best.

    Each candidate goes on with the nearest code and with the second nearest, and is judged by the least error that it can still come to
    if what is left to choose need not be whole. With few columns that finds what is close to the least error there is.
    """
    problem = _Triangular.of(W, G, grid)
    groups, rows, K = W.shape
    height = max(1, ENTRIES // (groups * width * K))
    parts = [slice(start, start + height) for start in range(0, rows, height)]
    errors = [_follow(replace(problem, W=problem.W[:, part], scale=problem.scale[:, part]), grid, width) for part in parts]
    return problem.restored(np.rint((problem.W - np.concatenate(errors, axis=1)) / problem.scale))


def _follow(problem: _Triangular, grid: Grid, width: int) -> Array64:
    """Return the errors E of the best candidates, (groups, rows, K)."""
    groups, rows, K = problem.W.shape
    error = np.zeros((groups * rows * width, K))
    cost = np.full((groups, rows, width), np.inf)
    cost[..., 0] = 0.0  # the others are no candidates yet
    for stop in range(K, 0, -BLOCK):
        start = max(0, stop - BLOCK)
        factors = problem.factors[:, :, start:stop]
        wanted = error.reshape(groups, rows * width, K)[:, :, stop:] @ factors[:, stop:]
        wanted = wanted.reshape(groups, rows, width, -1) + problem.W[:, :, None, start:stop]
        block = replace(
            problem,
            W=problem.W[:, :, start:stop],
            scale=problem.scale[:, :, start:stop],
            factors=factors[:, start:stop],
            squares=problem.squares[:, start:stop],
        )
        cost, error[:, start:stop], origin = _follow_block(block, grid, cost, wanted)
        error[:, stop:] = error[:, stop:].take(origin, axis=0)
    best = cost.argmin(axis=2)[:, :, None, None]
    return np.take_along_axis(error.reshape(groups, rows, width, K), best, 2)[:, :, 0]


def _follow_block(block: _Triangular, grid: Grid, cost: Array64, wanted: Array64) -> tuple[Array64, Array64, Indices]:
    """Go through the columns of a block: return costs (groups, rows, width), errors (entries, columns), and where each entry came from.

    Entries are candidates of all rows of all groups, one behind the other. wanted: (groups, rows, width, columns).
    """
    groups, rows, width, columns = wanted.shape
    entries = groups * rows * width
    first = np.arange(0, entries, width).reshape(groups, rows, 1)
    errors, parents = np.empty((columns, entries)), np.empty((columns, entries), np.intp)
    for j in range(columns - 1, -1, -1):
        scale = block.scale[:, :, j, None]
        ideal = wanted[..., j] / scale
        near = np.clip(np.rint(ideal), grid.qmin, grid.qmax)
        up = ((ideal > near) & (near < grid.qmax)) | (near == grid.qmin)
        codes = np.concatenate([near, np.where(up, near + 1.0, near - 1.0)], axis=2)
        off = np.concatenate([ideal, ideal], axis=2) - codes
        costs = np.concatenate([cost, cost], axis=2) + (block.squares[:, None, j, None] * scale * scale) * (off * off)
        chosen = np.argsort(costs, axis=2, kind="stable")[..., :width]
        flat = chosen + 2 * first
        cost, error = costs.reshape(-1).take(flat), block.W[:, :, j, None] - scale * codes.reshape(-1).take(flat)
        errors[j], parents[j] = error.reshape(-1), (chosen % width + first).reshape(-1)
        wanted = wanted.reshape(entries, columns).take(parents[j], axis=0).reshape(wanted.shape)
        wanted[..., :j] += error[..., None] * block.factors[:, None, None, j, :j]
    at = np.arange(entries)
    for j in range(columns):  # from the last choice back to the first
        errors[j] = errors[j].take(at)
        at = parents[j].take(at)
    return cost, errors.T, at


def descend(W: Array64, codes: Array64, G: Array64, grid: Grid, *, sweeps: int) -> Array64:
    """Return codes of no larger error: up to `sweeps` times, each column in turn takes the codes that are best given all others.

    Rows in which nothing moves are done. Most is gained where weights are clipped: `gptq` learns of that error late.
    """
    left = np.arange(W.shape[1])
    scale, codes = _columns(grid.scale, W.shape), _columns(codes, W.shape)
    pull, found = G @ (_columns(W, W.shape) - scale * codes), codes.copy()
    for _ in range(sweeps):
        moved = _sweep(codes, pull, G, scale, grid)
        moving = moved.any(axis=(0, 1))
        if not moving.any():
            break
        found[:, :, left] = codes
        left, codes, pull, scale = left[moving], codes[:, :, moving], pull[:, :, moving], scale[:, :, moving]
    return np.ascontiguousarray(np.swapaxes(found, 1, 2))


def _sweep(codes: Array64, pull: Array64, G: Array64, scale: Array64, grid: Grid) -> Array64:
    """Move the `codes`, (groups, K, rows), once, and keep their `pull`, G E^T, up to date, both in place; return what E gained."""
    diagonal = np.einsum("gkk->gk", G)[:, :, None]
    inverse = np.divide(NO_GAIN, diagonal * scale, out=np.zeros_like(scale), where=diagonal > 0.0)
    moved = np.zeros_like(codes)

    def fill(start: int, stop: int) -> None:
        if stop - start > LEAF:
            middle = (start + stop) // 2
            fill(start, middle)
            pull[:, middle:stop] += G[:, middle:stop, start:middle] @ moved[:, start:middle]
            fill(middle, stop)
            pull[:, start:middle] += G[:, start:middle, middle:stop] @ moved[:, middle:stop]
            return
        for j in range(start, stop):
            step = np.clip(np.rint(pull[:, j] * inverse[:, j]), grid.qmin - codes[:, j], grid.qmax - codes[:, j])
            if step.any():
                codes[:, j] += step
                moved[:, j] = -scale[:, j] * step
                pull[:, start:stop] += G[:, start:stop, j, None] * moved[:, None, j]

    fill(0, codes.shape[1])
    return moved


def corrected_target(W: Array64, G: Array64, C: Array64, damping: float = DAMPING) -> Array64:
    """Return the weights that make of inputs x' what comes closest to W x: W + W (C - G) (G + λI)^-1.

    G: the sum of x' x'^T. C: that of x x'^T, (groups, K, K). damping: as in `damped`; the larger, the closer to W.

    Raises:
        DataError: G holds NaN or infinity.

    Example:
        >>> W, G, C = np.array([[[3.0]]]), np.array([[[4.0]]]), np.array([[[5.0]]])  # x = 2.5, x' = 2
        >>> corrected_target(W, G, C, damping=0.25)
        array([[[3.6]]])
    """
    change = np.linalg.solve(damped(G, max(damping, LEAST_DAMPING)), np.swapaxes(W @ (C - G), 1, 2))
    return np.asarray(W + np.swapaxes(change, 1, 2))


def chosen_shares(W: Array64, metric: Array64, grid: Grid, shares: Sequence[float]) -> Array64:
    """Return which of the `shares` of its scale each row should have, (groups, rows): that at which `gptq` leaves the least error.

    Larger scales clip less, smaller ones round less, and how much each costs depends on what other weights can make up for.

    Example:
        >>> W = np.array([[[0.9, 1.1, -1.0, 1.75]]])
        >>> chosen_shares(W, np.eye(4)[None], Grid(np.array([[[1.75]]]), -1, 1), (1.0, 0.75, 0.5))
        array([[0.75]])
    """
    groups, rows, _ = W.shape
    tried = np.concatenate([np.broadcast_to(grid.scale * share, W.shape) for share in shares], axis=1)
    copies = np.concatenate([W] * len(shares), axis=1)
    errors = quadratic_error(copies - tried * gptq(copies, metric, replace(grid, scale=tried)), metric)
    best = errors.reshape(groups, len(shares), rows).argmin(axis=1)
    return np.asarray(np.asarray(shares, np.float64)[best])


def _columns(array: Array64, shape: tuple[int, ...]) -> Array64:
    """Return a copy of what broadcasts to (groups, rows, K), with each column in one piece: (groups, K, rows)."""
    return np.swapaxes(np.broadcast_to(array, shape), 1, 2).copy(order="C")
