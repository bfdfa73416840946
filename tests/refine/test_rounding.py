from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest

from zeropoint.errors import DataError
from zeropoint.refine import rounding
from zeropoint.refine.rounding import (
    FEW,
    LEAST_DAMPING,
    Grid,
    beam_search,
    chosen_shares,
    corrected_target,
    damped,
    damping_for,
    descend,
    gptq,
    nearest,
    quadratic_error,
    round_weights,
)

Array = np.ndarray[Any, Any]
Shape = tuple[int, int, int]

SHAPES = [
    pytest.param((1, 5, 7), id="one group"),
    pytest.param((3, 4, 6), id="grouped"),
    pytest.param((40, 1, 9), id="depthwise"),
    pytest.param((1, 3, 41), id="more columns than a block"),
    pytest.param((1, 1, 1), id="one weight"),
]
every_shape = pytest.mark.parametrize("shape", SHAPES)
METRICS = ["full", "singular", "dead channels", "zero", "one dominates", "uncorrelated", "rounded below zero"]
every_metric = pytest.mark.parametrize("metric", METRICS)
GRIDS = {"8 bits": (127, 1.0, False), "4 bits": (7, 1.0, False), "clipped": (7, 0.4, False), "4 bits, by block": (7, 0.9, True)}
every_grid = pytest.mark.parametrize("how", GRIDS.values(), ids=GRIDS)
ROUNDINGS: dict[str, Callable[[Array, Array, Grid], Array]] = {
    "nearest": lambda W, G, grid: nearest(W, grid),
    "gptq": gptq,
    "beam_search": beam_search,
    "descend": lambda W, G, grid: descend(W, nearest(W, grid), G, grid, sweeps=3),
    "round_weights": round_weights,
    "round_weights, thorough": lambda W, G, grid: round_weights(W, G, grid, thorough=True),
}
every_rounding = pytest.mark.parametrize("rounding_of", ROUNDINGS.values(), ids=ROUNDINGS)


def weights(shape: Shape, seed: int = 0) -> Array:
    return frozen(np.random.default_rng(seed).standard_t(5, shape))


def gram(shape: Shape, metric: str = "full", seed: int = 1) -> Array:
    """The second moment of inputs whose channels go together and are of different sizes."""
    rng = np.random.default_rng(seed)
    groups, _, K = shape
    count = max(1, K // 3) if metric == "singular" else 3 * K + 2
    x = rng.normal(size=(groups, count, K)) + 1.5 * rng.normal(size=(groups, count, 1))
    x *= np.exp(rng.normal(0.0, 0.5, (groups, 1, K)))
    if metric == "dead channels":
        x[:, :, :: max(2, K // 3)] = 0.0
    if metric == "one dominates":
        x[:, :, K // 2] *= 1e6
    G = np.swapaxes(x, 1, 2) @ x
    if metric == "zero":
        G = np.zeros_like(G)
    if metric == "uncorrelated":
        G = G * np.eye(K)
    if metric == "rounded below zero":  # what taking the means away leaves of inputs that are all but constant
        noise = rng.normal(size=G.shape)
        G = 1e-12 * (noise + np.swapaxes(noise, 1, 2))
    return frozen(G)


def grid_for(W: Array, how: tuple[int, float, bool] = (7, 1.0, False)) -> Grid:
    """Codes from -qmax to qmax, a share of the range of each row, and by blocks of 3 columns of other scales where asked."""
    qmax, share, by_block = how
    scale = np.abs(W).max(axis=2, keepdims=True) * share / qmax
    if by_block:
        scale = scale * (0.7 + 0.15 * (np.arange(W.shape[2]) // 3 % 3))
    return Grid(frozen(scale), -qmax, qmax)


def frozen(array: Array) -> Array:
    array = np.array(array, np.float64)
    array.flags.writeable = False
    return array


def error_of(W: Array, codes: Array, G: Array, grid: Grid) -> Array:
    return quadratic_error(W - grid.scale * codes, G)


# --- slow loops, row by row ------------------------------------------------------------------------------------------------


def row_by_row(one: Callable[[Array, Array, Array, Grid], Array], W: Array, G: Array, grid: Grid) -> Array:
    """`one` gets the weights, the scales, and the codes' places in no array but plain rows."""
    scale = np.broadcast_to(grid.scale, W.shape)
    return np.array([[one(w, s, G[g], grid) for w, s in zip(W[g], scale[g], strict=True)] for g in range(len(W))])


def brain_surgeon(w: Array, scale: Array, G: Array, grid: Grid) -> Array:
    """GPTQ as its paper derives it: the weights that are left move by the inverse of what is left of the Hessian."""
    left, w, codes = list(np.argsort(-np.diag(G))), w.copy(), np.zeros(len(w))
    H = G + LEAST_DAMPING * np.diag(G).mean() * np.eye(len(w))
    while left:
        j, inverse = left[0], np.linalg.inv(H[np.ix_(left, left)])
        codes[j] = np.clip(np.rint(w[j] / scale[j]), grid.qmin, grid.qmax)
        w[left] -= (w[j] - scale[j] * codes[j]) / inverse[0, 0] * inverse[0]
        left = left[1:]
    return codes


def least_completion(chosen: dict[int, float], G: Array) -> tuple[float, Array]:
    """Return the least error with these entries, and the errors that have it."""
    e, free = np.zeros(len(G)), [j for j in range(len(G)) if j not in chosen]
    e[list(chosen)] = list(chosen.values())
    if free:
        e[free] = np.linalg.solve(G[np.ix_(free, free)], -G[free] @ e)
    return float(e @ G @ e), e


def slow_beam(width: int) -> Callable[[Array, Array, Array, Grid], Array]:
    def of_row(w: Array, scale: Array, G: Array, grid: Grid) -> Array:
        G = G + LEAST_DAMPING * np.diag(G).mean() * np.eye(len(w))
        candidates: list[dict[int, float]] = [{}]
        for j in np.argsort(-np.diag(G)):
            found = []
            for chosen in candidates:
                ideal = (w[j] - least_completion(chosen, G)[1][j]) / scale[j]
                near = sorted(range(grid.qmin, grid.qmax + 1), key=lambda code: abs(code - ideal))[:2]
                found += [{**chosen, int(j): float(w[j] - scale[j] * code)} for code in near]
            candidates = sorted(found, key=lambda chosen: least_completion(chosen, G)[0])[:width]
        best = candidates[0]
        return np.rint([(w[j] - best[j]) / scale[j] for j in range(len(w))])

    return of_row


def slow_descent(sweeps: int) -> Callable[[Array, Array, Array, Grid], Array]:
    def of_row(w: Array, scale: Array, G: Array, grid: Grid) -> Array:
        codes = np.clip(np.rint(w / scale), grid.qmin, grid.qmax)
        for _ in range(sweeps):
            before = codes
            for j in range(len(w)):
                tried = np.repeat(codes[None], grid.qmax - grid.qmin + 1, axis=0)
                tried[:, j] = np.arange(grid.qmin, grid.qmax + 1)
                errors = [e @ G @ e for e in w - scale * tried]
                codes = tried[int(np.argmin(errors))]
            if (codes == before).all():
                break
        return codes

    return of_row


def least_error(w: Array, scale: Array, G: Array, grid: Grid) -> float:
    """Of all codes there are."""
    errors = w - scale * np.array(list(product(range(grid.qmin, grid.qmax + 1), repeat=len(w))))
    return float(np.einsum("nk,kl,nl->n", errors, G, errors).min())


# --- against them ----------------------------------------------------------------------------------------------------------


@every_shape
def test_quadratic_error(shape: Shape) -> None:
    E, G = weights(shape), gram(shape)
    expected = [[sum(e[i] * G[g, i, j] * e[j] for i in range(len(e)) for j in range(len(e))) for e in E[g]] for g in range(len(E))]
    np.testing.assert_allclose(quadratic_error(E, G), expected, rtol=1e-12)


def test_nearest_is_half_to_even_and_saturates() -> None:
    W = np.array([[[-9.0, -1.5, -0.5, 0.5, 1.5, 2.49, 9.0]]])
    np.testing.assert_array_equal(nearest(W, Grid(np.ones((1, 1, 1)), -4, 3)), [[[-4, -2, 0, 0, 2, 2, 3]]])


@every_grid
@every_shape
def test_gptq_against_its_paper(shape: Shape, how: tuple[int, float, bool]) -> None:
    W, G = weights(shape), gram(shape)
    grid = grid_for(W, how)
    np.testing.assert_array_equal(gptq(W, G, grid), row_by_row(brain_surgeon, W, G, grid))


@pytest.mark.parametrize("width", [1, 2, 5])
@pytest.mark.parametrize("how", [GRIDS["4 bits"], GRIDS["clipped"], GRIDS["4 bits, by block"]], ids=["4 bits", "clipped", "by block"])
@pytest.mark.parametrize("shape", SHAPES[:2])
def test_beam_search_against_a_slow_one(shape: Shape, how: tuple[int, float, bool], width: int) -> None:
    W, G = weights(shape), gram(shape)
    grid = grid_for(W, how)
    np.testing.assert_array_equal(beam_search(W, G, grid, width=width), row_by_row(slow_beam(width), W, G, grid))


@every_grid
@every_shape
def test_a_beam_of_one_is_gptq(shape: Shape, how: tuple[int, float, bool]) -> None:
    W, G = weights(shape), gram(shape)
    grid = grid_for(W, how)
    np.testing.assert_array_equal(beam_search(W, G, grid, width=1), gptq(W, G, grid))


@pytest.mark.parametrize("sweeps", [0, 1, 2, 30])
@every_grid
@pytest.mark.parametrize("shape", [(1, 5, 7), (3, 4, 6), (9, 1, 9), (1, 2, 37)], ids=["one group", "grouped", "depthwise", "long"])
def test_descent_against_trying_all_codes(shape: Shape, how: tuple[int, float, bool], sweeps: int) -> None:
    W, G = weights(shape), gram(shape)
    grid = grid_for(W, how)
    found = descend(W, frozen(nearest(W, grid)), G, grid, sweeps=sweeps)
    np.testing.assert_array_equal(found, row_by_row(slow_descent(sweeps), W, G, grid))


@pytest.mark.parametrize(("qmin", "qmax"), [pytest.param(-1, 1, id="2 bits, narrow"), pytest.param(-2, 1, id="2 bits"), (-3, 3)])
@pytest.mark.parametrize("K", [1, 2, 3, 4])
def test_little_is_lost_against_all_codes_there_are(K: int, qmin: int, qmax: int) -> None:
    shape = (20, 2, K)
    W, G = weights(shape), gram(shape)
    grid = Grid(np.abs(W).max(axis=2, keepdims=True) / (qmax + 0.5), qmin, qmax)
    least = np.array([[least_error(w, np.repeat(s, K), G[g], grid) for w, s in zip(W[g], grid.scale[g], strict=True)] for g in range(20)])
    found = error_of(W, round_weights(W, G, grid, damping=0.0), G, grid)
    plain = error_of(W, nearest(W, grid), G, grid)
    assert (found >= least * (1.0 - 1e-9)).all()
    assert found.sum() <= least.sum() * 1.02
    assert K == 1 or plain.sum() > found.sum() * 1.1


# --- what holds for any input ----------------------------------------------------------------------------------------------


@every_rounding
@every_grid
@every_metric
@pytest.mark.parametrize("shape", [(3, 4, 6), (1, 3, 41)], ids=["grouped", "more columns than a block"])
def test_codes_are_whole_and_in_range(
    shape: Shape, metric: str, how: tuple[int, float, bool], rounding_of: Callable[[Array, Array, Grid], Array]
) -> None:
    W, G = weights(shape), gram(shape, metric)
    grid = grid_for(W, how)
    codes = rounding_of(W, G, grid)
    assert (codes.shape, codes.dtype) == (W.shape, np.float64)
    np.testing.assert_array_equal(codes, np.clip(np.rint(codes), grid.qmin, grid.qmax))


@pytest.mark.parametrize("damping", [0.0, 0.1])
@pytest.mark.parametrize("thorough", [False, True], ids=["fast", "thorough"])
@every_grid
@every_metric
@every_shape
def test_no_row_is_worse_than_nearest(shape: Shape, metric: str, how: tuple[int, float, bool], thorough: bool, damping: float) -> None:
    W, G = weights(shape), gram(shape, metric)
    grid = grid_for(W, how)
    codes = round_weights(W, G, grid, thorough=thorough, damping=damping)
    assert (error_of(W, codes, G, grid) <= error_of(W, nearest(W, grid), G, grid)).all()


def test_rows_that_only_lose_go_back_to_nearest() -> None:
    shape = (1, 9000, 4)
    W, G = weights(shape, seed=1), gram(shape, seed=2)
    assert W.size > FEW, "else several candidates lose nothing"
    grid = grid_for(W)
    plain = error_of(W, nearest(W, grid), G, grid)
    assert (error_of(W, descend(W, gptq(W, G, grid), G, grid, sweeps=2), G, grid) > plain).any()
    assert (error_of(W, round_weights(W, G, grid, damping=0.0), G, grid) <= plain).all()


@every_rounding
@pytest.mark.parametrize("metric", ["zero", "uncorrelated"])
@every_grid
def test_without_correlations_nearest_is_best(
    metric: str, how: tuple[int, float, bool], rounding_of: Callable[[Array, Array, Grid], Array]
) -> None:
    W, G = weights((3, 4, 20)), gram((3, 4, 20), metric)
    grid = grid_for(W, how)
    np.testing.assert_array_equal(rounding_of(W, G, grid), nearest(W, grid))


@every_rounding
@pytest.mark.parametrize("shape", [(1, 6, 40), (5, 4, 9)], ids=["one group", "grouped"])
def test_dead_channels_get_the_nearest_code(shape: Shape, rounding_of: Callable[[Array, Array, Grid], Array]) -> None:
    W, G = weights(shape), gram(shape, "dead channels")
    grid = grid_for(W)
    dead = G[0].diagonal() == 0.0
    assert dead.any()
    np.testing.assert_array_equal(rounding_of(W, G, grid)[:, :, dead], nearest(W, grid)[:, :, dead])


@every_rounding
@every_grid
@pytest.mark.parametrize("shape", [(4, 3, 9), (30, 1, 5)], ids=["grouped", "depthwise"])
def test_groups_and_rows_are_problems_of_their_own(
    shape: Shape, how: tuple[int, float, bool], rounding_of: Callable[[Array, Array, Grid], Array]
) -> None:
    W, G = weights(shape), gram(shape)
    grid = grid_for(W, how)
    together = rounding_of(W, G, grid)
    for g, r in np.ndindex(shape[:2]):
        one = Grid(grid.scale[g : g + 1, r : r + 1], grid.qmin, grid.qmax)
        np.testing.assert_array_equal(together[g, r], rounding_of(W[g : g + 1, r : r + 1], G[g : g + 1], one)[0, 0])


@every_rounding
def test_same_inputs_same_codes(rounding_of: Callable[[Array, Array, Grid], Array]) -> None:
    W, G = weights((1, 30, 70)), gram((1, 30, 70))
    grid = grid_for(W)
    np.testing.assert_array_equal(rounding_of(W, G, grid), rounding_of(W, G, grid))


def test_candidates_that_are_held_at_once_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    W, G = weights((2, 11, 40)), gram((2, 11, 40))
    whole = beam_search(W, G, grid_for(W))
    monkeypatch.setattr(rounding, "ENTRIES", 2 * 8 * 40 * 3)
    np.testing.assert_array_equal(beam_search(W, G, grid_for(W)), whole)


# --- descent ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start", ["nearest", "gptq", "anywhere"])
@every_grid
@every_metric
def test_each_sweep_leaves_no_row_worse_and_the_last_none_to_move(metric: str, how: tuple[int, float, bool], start: str) -> None:
    shape = (2, 8, 37)
    W, G = weights(shape), gram(shape, metric)
    grid = grid_for(W, how)
    anywhere = np.random.default_rng(4).integers(grid.qmin, grid.qmax + 1, shape).astype(np.float64)
    codes = {"nearest": nearest(W, grid), "gptq": gptq(W, G, grid), "anywhere": anywhere}[start]
    if metric == "rounded below zero":
        G = damped(G, 30.0)  # no metric before
    for _ in range(1000):
        after = descend(W, codes, G, grid, sweeps=1)
        assert (error_of(W, after, G, grid) <= error_of(W, codes, G, grid) * (1.0 + 1e-12)).all()
        if (after == codes).all():
            break
        codes = after
    np.testing.assert_array_equal(descend(W, codes, G, grid, sweeps=5), codes)
    for j, step in product(range(shape[2]), (-1.0, 1.0)):
        other = codes.copy()
        other[:, :, j] = np.clip(other[:, :, j] + step, grid.qmin, grid.qmax)
        assert (error_of(W, other, G, grid) >= error_of(W, codes, G, grid) * (1.0 - 1e-6)).all()


def test_what_gains_nothing_stays() -> None:
    shape = (2, 30, 12)
    codes = np.random.default_rng(3).integers(-6, 6, shape).astype(np.float64)
    scale = np.exp(weights((2, 30, 1)))
    W = scale * (codes + 0.5)  # as far from the next code
    np.testing.assert_array_equal(descend(W, codes, gram(shape, "uncorrelated"), Grid(scale, -7, 7), sweeps=3), codes)


# --- what the options do ---------------------------------------------------------------------------------------------------


def test_more_candidates_and_thoroughness_lessen_the_error() -> None:
    shape = (1, 300, 120)
    W, G = weights(shape), gram(shape)
    assert W.size > FEW
    grid = grid_for(W)
    errors = [error_of(W, codes, G, grid).sum() for codes in (nearest(W, grid), gptq(W, G, grid), beam_search(W, G, grid, width=3))]
    assert errors[0] > 1.5 * errors[1] > 1.5 * errors[2]
    fast, thorough = (error_of(W, round_weights(W, G, grid, thorough=how, damping=0.0), G, grid).sum() for how in (False, True))
    assert fast > 1.01 * thorough


def test_few_weights_get_several_candidates_at_once() -> None:
    W, G = weights((40, 1, 9)), gram((40, 1, 9))
    grid = grid_for(W)
    np.testing.assert_array_equal(round_weights(W, G, grid), round_weights(W, G, grid, thorough=True))


def test_damping_helps_on_inputs_that_were_not_seen() -> None:
    rng = np.random.default_rng(5)
    W, mix = weights((1, 40, 60)), rng.normal(size=(60, 60))
    few, many = (rng.normal(size=(1, count, 60)) @ mix for count in (64, 4000))
    seen, true = (np.swapaxes(x, 1, 2) @ x for x in (few, many))
    grid = grid_for(W)
    codes = {damping: round_weights(W, seen, grid, damping=damping) for damping in (0.0, damping_for(64, 60))}
    fitted, general = ([error_of(W, found, G, grid).sum() for found in codes.values()] for G in (seen, true))
    assert fitted[0] < fitted[1]
    assert general[1] < 0.9 * general[0]


def test_damped_adds_a_share_of_the_mean_of_the_diagonal() -> None:
    G = np.array([[[1.0, 0.5], [0.5, 3.0]], [[0.0, 0.0], [0.0, 0.0]]])
    np.testing.assert_array_equal(damped(G, 0.25), [[[1.5, 0.5], [0.5, 3.5]], [[1.0, 0.0], [0.0, 1.0]]])


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("of", [round_weights, gptq, beam_search, lambda W, G, grid: corrected_target(W, G, G)])
def test_refuses_what_is_no_number(of: Callable[[Array, Array, Grid], Array], value: float) -> None:
    W, G = weights((2, 3, 4)), np.array(gram((2, 3, 4)))
    G[1, 2, 2] = value
    with pytest.raises(DataError, match=r"^inputs of weights: found NaN or infinity in them, expected numbers; look at the samples$"):
        of(W, G, grid_for(W))


# --- the target ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 60], ids=["fewer inputs than columns", "more"])
@pytest.mark.parametrize("damping", [1e-3, 0.1, 10.0])
def test_corrected_target_against_least_squares(damping: float, count: int) -> None:
    rng = np.random.default_rng(6)
    W, x = weights((3, 4, 7)), rng.normal(size=(3, 7, count))
    xq = 0.9 * x + 0.2 * rng.normal(size=x.shape)
    G, C = xq @ np.swapaxes(xq, 1, 2), x @ np.swapaxes(xq, 1, 2)
    found = corrected_target(W, frozen(G), frozen(C), damping)
    for g in range(3):
        root = np.sqrt(damping * np.diag(G[g]).mean()) * np.eye(7)
        inputs, outputs = np.hstack([xq[g], root]), np.hstack([W[g] @ x[g], W[g] @ root])
        np.testing.assert_allclose(found[g], np.linalg.lstsq(inputs.T, outputs.T, rcond=None)[0].T, rtol=1e-8, atol=1e-8)


@every_metric
@every_shape
def test_weights_are_their_own_target_where_inputs_are_the_same(shape: Shape, metric: str) -> None:
    W, G = weights(shape), gram(shape, metric)
    np.testing.assert_array_equal(corrected_target(W, G, G), W)


# --- the scale -------------------------------------------------------------------------------------------------------------


@every_grid
@every_shape
def test_chosen_shares_against_trying_them_out(shape: Shape, how: tuple[int, float, bool]) -> None:
    W, G, shares = weights(shape), damped(gram(shape), 0.1), (1.0, 0.9, 0.75, 0.6, 0.4, 0.2)
    grid = grid_for(W, how)
    tried = [Grid(grid.scale * share, grid.qmin, grid.qmax) for share in shares]
    errors = np.stack([error_of(W, gptq(W, G, one), G, one) for one in tried], axis=-1)  # (groups, rows, shares)
    chosen = np.take_along_axis(errors, np.searchsorted(-np.array(shares), -chosen_shares(W, G, grid, shares))[..., None], 2)[..., 0]
    np.testing.assert_allclose(chosen, errors.min(axis=2), rtol=1e-6, atol=1e-12)


def test_scale_stays_where_nothing_is_gained() -> None:
    W = weights((2, 3, 5))
    np.testing.assert_array_equal(chosen_shares(W, gram((2, 3, 5), "zero"), grid_for(W), (1.0, 0.5)), np.ones((2, 3)))


def test_the_chosen_scale_lessens_the_error_of_the_codes() -> None:
    W, G = weights((1, 60, 200)), gram((1, 60, 200))
    grid = grid_for(W)
    better = Grid(grid.scale * chosen_shares(W, damped(G, 0.03), grid, (1.0, 0.9, 0.8, 0.7, 0.6))[..., None], grid.qmin, grid.qmax)
    whole, shrunk = (error_of(W, round_weights(W, G, one), G, one).sum() for one in (grid, better))
    assert shrunk < 0.8 * whole
