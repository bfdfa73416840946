from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from zeropoint.errors import DataError, RecipeError
from zeropoint.numerics.affine import Range
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.statistics.solvers import SOLVERS, Solver, get_solver, solve
from zeropoint.statistics.solvers.auto import Auto
from zeropoint.statistics.solvers.entropy import Entropy
from zeropoint.statistics.solvers.minmax import MinMax
from zeropoint.statistics.solvers.mse import MeanSquaredError
from zeropoint.statistics.solvers.percentile import Percentile
from zeropoint.statistics.tensor import TensorStatistic, observe

INT8 = Spec(FORMATS["int8"], symmetric=True)
GAUSSIAN = np.random.default_rng(0).standard_normal(10_000).astype(np.float32)
GAUSSIAN.flags.writeable = False


@dataclass(frozen=True, slots=True)
class Half:
    """A solver that zeropoint does not know."""

    share: float = 0.5

    def solve(self, statistic: TensorStatistic, spec: Spec) -> Range:
        return Range(self.share * statistic.minimum, self.share * statistic.maximum)


# --- names ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("auto", Auto(), id="auto"),
        pytest.param("mse", MeanSquaredError(), id="mse"),
        pytest.param("entropy", Entropy(2048), id="entropy"),
        pytest.param("entropy:4096", Entropy(4096), id="entropy with levels"),
        pytest.param("percentile", Percentile(99.99), id="percentile"),
        pytest.param("percentile:99.9", Percentile(99.9), id="percentile with a number"),
        pytest.param("percentile:100", Percentile(100.0), id="percentile with an integer"),
        pytest.param("minmax", MinMax(), id="minmax"),
    ],
)
def test_name_gives_the_solver(name: str, expected: Solver) -> None:
    assert get_solver(name) == expected


def test_every_solver_is_a_frozen_dataclass_with_defaults() -> None:
    for name, solver in SOLVERS.items():
        assert get_solver(name) == solver()
        assert dataclasses.is_dataclass(solver)
        assert hash(solver()) == hash(solver()), "frozen"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        pytest.param(
            "kl",
            "solver: found 'kl', expected one of auto, mse, entropy, percentile, minmax; a parameter follows a colon (percentile:99.9)",
            id="unknown",
        ),
        pytest.param("", "solver: found '', expected one of auto, mse", id="empty"),
        pytest.param("MinMax", "solver: found 'MinMax', expected one of", id="another case"),
        pytest.param("percentile 99.9", "solver: found 'percentile 99.9', expected one of", id="no colon"),
        pytest.param("minmax:3", "solver: found 'minmax:3', expected 'minmax' alone: it takes no parameter", id="minmax has none"),
        pytest.param("mse:", "solver: found 'mse:', expected a number behind the colon, such as mse:1.0", id="mse without its number"),
        pytest.param("auto:mse", "solver: found 'auto:mse', expected 'auto' alone: it takes no parameter", id="auto has none"),
        pytest.param(
            "percentile:most",
            "solver: found 'percentile:most', expected a number behind the colon, such as percentile:99.99",
            id="not a number",
        ),
        pytest.param("percentile:", "found 'percentile:', expected a number behind the colon", id="nothing behind the colon"),
        pytest.param("percentile:99:9", "found 'percentile:99:9', expected a number behind the colon", id="two colons"),
        pytest.param("entropy:4096.5", "expected a number behind the colon, such as entropy:2048", id="not an integer"),
        pytest.param("percentile:101", "percentile: found 101.0, expected more than 0 and at most 100", id="impossible percentile"),
        pytest.param("percentile:nan", "percentile: found nan, expected more than 0", id="percentile NaN"),
        pytest.param("entropy:100", "entropy levels: found 100, expected at least 2048", id="impossible levels"),
    ],
)
def test_impossible_names_are_refused(name: str, message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        get_solver(name)
    with pytest.raises(RecipeError, match=re.escape(message)):
        solve(observe(GAUSSIAN), INT8, name)


# --- solve ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "auto"])
def test_solution_says_what_was_expected_of_the_range(name: str) -> None:
    found = solve(observe(GAUSSIAN), INT8, name)
    step = found.range.hi / 127
    wide = GAUSSIAN.astype(np.float64)
    noise = np.mean(np.square(np.clip(np.rint(wide / step), -128, 127) * step - wide))
    assert found.range == get_solver(name).solve(observe(GAUSSIAN), INT8)
    assert found.solver == name
    assert found.sqnr == pytest.approx(10.0 * math.log10(np.mean(np.square(wide)) / noise), abs=0.1)
    clipped = 100.0 * np.mean(np.abs(wide) > found.range.hi)
    told = re.fullmatch(rf"{name} {found.sqnr:.1f} dB(?:, clips ([\d.e-]+) %)?", found.reason)
    assert told is not None
    assert float(told[1] or 0.0) == pytest.approx(clipped, abs=0.02)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("percentile:99", "percentile:99.9"),
        ("percentile", "percentile:100"),
        ("entropy", "entropy:4096"),
        ("minmax", "percentile"),
        ("minmax", "entropy"),
        ("minmax", "mse"),
    ],
)
def test_solvers_and_their_parameters_change_the_answer(one: str, other: str) -> None:
    seen = observe(np.random.default_rng(2).standard_t(2, 20_000))
    spec = Spec(FORMATS["int4"], symmetric=True)
    assert solve(seen, spec, one).range != solve(seen, spec, other).range


@pytest.mark.parametrize("name", [*SOLVERS, "percentile:99.9"])
@pytest.mark.parametrize("values", [[], [math.nan, math.inf]], ids=["nothing", "nothing finite"])
def test_nothing_finite_is_refused_by_every_solver(name: str, values: list[float]) -> None:
    with pytest.raises(DataError, match="statistic: found no finite value"):
        solve(observe(values), INT8, name)


@pytest.mark.parametrize(("share", "sqnr"), [pytest.param(1.0, 40.0, id="kept whole"), pytest.param(1e-6, 0.0, id="clipped to nothing")])
def test_sqnr_of_a_range(monkeypatch: pytest.MonkeyPatch, share: float, sqnr: float) -> None:
    monkeypatch.setitem(SOLVERS, "half", Half)
    assert solve(observe(GAUSSIAN), INT8, f"half:{share}").sqnr == pytest.approx(sqnr, abs=2.0)


def test_all_zero_tensor_has_no_noise() -> None:
    found = solve(observe(np.zeros(4)), INT8, "mse")
    assert (found.range, found.sqnr, found.reason) == (Range(0.0, 0.0), math.inf, "mse inf dB")


def test_a_new_solver_is_one_line_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SOLVERS, "half", Half)
    seen = observe([-2.0, 4.0])
    assert solve(seen, INT8, "half").range == Range(-1.0, 2.0)
    assert solve(seen, INT8, "half:0.25").range == Range(-0.5, 1.0)
    assert solve(seen, INT8, "half").reason.startswith("half ")
    with pytest.raises(RecipeError, match="expected one of auto, mse, entropy, percentile, minmax, half;"):
        get_solver("quarter")


def test_solution_is_frozen() -> None:
    found: Any = solve(observe([1.0]), INT8, "minmax")
    with pytest.raises(dataclasses.FrozenInstanceError):
        found.solver = "mse"
