from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from zeropoint.refine.layer import DAMPINGS, Layer, Moments, best_damping, fit, gains, moments, output_error, scaled, total
from zeropoint.refine.rounding import Grid, corrected_target

Array = np.ndarray[Any, Any]
GROUPS, ROWS, K, PLACES = 2, 5, 6, 400


def rows(seed: int, *, noise: float = 0.2) -> tuple[Array, Array]:
    """Correlated inputs of no zero mean, and what noise and a loss of a tenth leave of them."""
    rng = np.random.default_rng(seed)
    mixed = np.random.default_rng(9).normal(size=(GROUPS, K, K))
    x = (rng.normal(size=(GROUPS, PLACES, K)) + 0.5) @ mixed
    return x.astype(np.float32), (0.9 * x + noise * rng.normal(size=x.shape)).astype(np.float32)


def layer(**given: Any) -> Layer:
    W = np.random.default_rng(3).normal(size=(GROUPS, ROWS, K))
    grid = Grid(np.abs(W).max(axis=2, keepdims=True) / 7, -7, 7)
    made = Layer(W, grid, moments(*rows(0)), moments(*rows(1)), biased=True, scalable=True, least=np.zeros(W.shape[:2]))
    return replace(made, **given)


def outputs(Q: Array, x: Array, *, centred: bool) -> Array:
    y = x.astype(np.float64) @ Q.transpose(0, 2, 1)
    return y - centred * y.mean(axis=1, keepdims=True)


def slow_moments(floats: Array, ints: Array) -> Moments:
    """The same, row by row."""
    found = Moments(0.0, np.zeros((GROUPS, K)), np.zeros((GROUPS, K)), *np.zeros((3, GROUPS, K, K)))
    power = [float(np.square(floats[:, i], dtype=np.float64).sum()) for i in range(floats.shape[1])]
    for i, own in enumerate(power):
        w = min(1.0, float(np.mean(power)) / own) if own else 1.0
        x, seen = floats[:, i].astype(np.float64), ints[:, i].astype(np.float64)
        products = [
            w * np.stack([np.outer(a, b) for a, b in zip(left, right, strict=True)]) for left, right in ((x, x), (x, seen), (seen, seen))
        ]
        found += Moments(w, w * x, w * seen, *products)
    return found


def assert_same(one: Moments, other: Moments) -> None:
    for name in ("count", "floats", "ints", "power", "cross", "gram"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-9, atol=1e-9, err_msg=name)


def test_moments_against_a_slow_loop() -> None:
    floats, ints = (array[:, :40].copy() for array in rows(0))
    floats[:, 3] *= 50.0  # a row that is to count for less
    floats[:, 4] = 0.0
    assert_same(moments(floats, ints), slow_moments(floats, ints))


def test_a_huge_row_does_not_decide_all_else() -> None:
    floats, ints = rows(0)
    plain = moments(floats, ints)
    floats[:, 0] *= 1000.0
    ints[:, 0] *= 1000.0
    found = moments(floats, ints)
    assert (np.abs(found.floats / found.count - plain.floats / plain.count) < 0.5 + np.abs(plain.floats / plain.count)).all()
    assert np.trace(found.gram[0]) < 1e6 / PLACES * np.trace(plain.gram[0])


def test_moments_of_nothing_add_nothing() -> None:
    floats, ints = rows(0)
    found = moments(floats, ints)
    assert_same(total([found, moments(floats[:, :0], ints[:, :0])]), found)


def test_rows_that_hold_no_numbers_do_not_count() -> None:
    floats, ints = rows(0)
    others = moments(np.delete(floats, (3, 5), axis=1), np.delete(ints, (3, 5), axis=1))
    floats[0, 3, 1], ints[1, 5, 2] = np.nan, np.inf
    assert_same(moments(floats, ints), others)
    assert_same(moments(np.full_like(floats, np.nan), ints), moments(floats[:, :0], ints[:, :0]))


def test_moments_about_the_means() -> None:
    x, seen = (array - array.mean(axis=1, keepdims=True, dtype=np.float64) for array in rows(0, noise=0.3))
    flat = moments(*(np.repeat(np.ones_like(array[:, :1]), 3, axis=1) for array in rows(0)))
    assert max(np.abs(flat.centred().gram).max(), np.abs(flat.centred().power).max()) < 1e-9
    plain = Moments(
        PLACES,
        *(a.sum(axis=1, dtype=np.float64) for a in rows(0, noise=0.3)),
        *(
            a.astype(np.float64).transpose(0, 2, 1) @ b
            for r in [rows(0, noise=0.3)]
            for a, b in ((r[0], r[0]), (r[0], r[1]), (r[1].astype(np.float64), r[1]))
        ),
    )
    np.testing.assert_allclose(plain.centred().power, x.transpose(0, 2, 1) @ x, rtol=1e-4, atol=1e-2)
    np.testing.assert_allclose(plain.centred().cross, x.transpose(0, 2, 1) @ seen, rtol=1e-4, atol=1e-2)


def test_output_error_against_the_outputs() -> None:
    one, (x, seen) = layer(), (array[:, :1].repeat(8, axis=1) for array in rows(0))  # rows of equal power all count fully
    of, Q = moments(x, seen), one.W + 0.1
    theirs = outputs(one.W, x, centred=False)
    expected = np.square(outputs(Q, seen, centred=False) - theirs).sum(axis=1) - np.square(theirs).sum(axis=1)
    np.testing.assert_allclose(output_error(Q, one.W, of), expected, rtol=1e-6)


def test_gains_make_outputs_as_large_as_they_were() -> None:
    one = layer()
    of = one.seen.centred()
    Q = one.W * gains(one.W, one.W, of)[..., None]
    ours, theirs = (np.einsum("grk,gkl,grl->gr", weight, product, weight) for weight, product in ((Q, of.gram), (one.W, of.power)))
    np.testing.assert_allclose(ours, theirs)
    np.testing.assert_array_equal(gains(-one.W, one.W, of), 1.0)  # nothing in common
    np.testing.assert_array_equal(gains(0.0 * one.W, one.W, of), 1.0)


@pytest.mark.parametrize("thorough", [False, True])
def test_fitted_outputs_are_as_large_as_they_were(thorough: bool) -> None:
    one = layer()
    found = fit(one, thorough=thorough)
    of = (one.seen + one.aside).centred()
    Q = found.codes * scaled(one.grid, found.shares).scale
    ours, theirs = (np.einsum("grk,gkl,grl->gr", weight, product, weight) for weight, product in ((Q, of.gram), (one.W, of.power)))
    np.testing.assert_allclose(ours, theirs)


def test_damping_is_of_the_target_that_does_best_on_other_samples() -> None:
    one = layer()
    seen, aside = one.seen.centred(), one.aside.centred()
    errors = {d: output_error(corrected_target(one.W, seen.gram, seen.cross, d), one.W, aside).sum() for d in DAMPINGS}
    assert best_damping(one.W, seen, aside, DAMPINGS) == min(errors, key=lambda damping: float(errors[damping]))
    exact = moments(*(rows(0)[0],) * 2)
    assert best_damping(one.W, exact, exact, DAMPINGS) is None


@pytest.mark.parametrize("thorough", [False, True])
@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("scalable", [False, True])
def test_a_fit_beats_nearest_on_other_inputs(thorough: bool, biased: bool, scalable: bool) -> None:
    one = layer(biased=biased, scalable=scalable)
    found = fit(one, thorough=thorough)
    np.testing.assert_array_equal(found.codes, np.clip(np.rint(found.codes), -7, 7))
    x, seen = rows(5)
    theirs = outputs(one.W, x, centred=biased)
    plain, ours = (
        np.square(outputs(codes * grid.scale, seen, centred=biased) - theirs).sum()
        for codes, grid in ((np.rint(one.W / one.grid.scale), one.grid), (found.codes, scaled(one.grid, found.shares)))
    )
    assert ours < plain
    assert scalable == bool((found.shares != 1.0).any())


def test_no_scale_falls_below_its_least_share() -> None:
    least = np.full((GROUPS, ROWS), 1.3)
    assert (fit(layer(least=least)).shares >= 1.3).all()
