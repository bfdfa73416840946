"""What the user asked for."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from zeropoint.errors import RecipeError
from zeropoint.statistics.solvers import get_solver

DECIDED_BY_PLAN = frozenset({"solver", "weight_solver", "include", "exclude", "bias"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options that decide the numbers in the result.

    solver, weight_solver: how the ranges of activations and of weights are found. samples: how many samples calibrate.
    batch_size: how many of them are fed at once where the network's batch axis is dynamic. include, exclude: shell patterns over
    node names, or operator types. bias: corrected for the mean error of the rounded
    weights, or kept as they are. weight_storage: weights in the file as integers, or as floats behind a Q/DQ pair.
    """

    solver: str = "auto"
    weight_solver: Literal["mse", "minmax"] = "mse"
    samples: int = 128
    batch_size: int = 1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    bias: Literal["corrected", "kept"] = "corrected"
    weight_storage: Literal["integer", "float"] = "integer"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            RecipeError: one of them is impossible.
        """
        get_solver(self.solver)
        for name, value, least in (("samples", self.samples, 1), ("batch_size", self.batch_size, 1), ("seed", self.seed, 0)):
            given: object = value
            if not isinstance(given, int):
                raise RecipeError(f"{name}: found {given!r}, expected an integer")
            if value < least:
                raise RecipeError(f"{name}: found {value}, expected at least {least}")
        for name, found, known in (
            ("weight_solver", self.weight_solver, ("mse", "minmax")),
            ("bias", self.bias, ("corrected", "kept")),
            ("weight_storage", self.weight_storage, ("integer", "float")),
        ):
            if found not in known:
                raise RecipeError(f"{name}: found {found!r}, expected one of {', '.join(known)}")

    def check_beside_plan(self) -> None:
        """Refuse options that a plan has decided already.

        Raises:
            RecipeError: one of them is not at its default.
        """
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in DECIDED_BY_PLAN and value != option.default:
                told = ", ".join(value) if isinstance(value, tuple) else value
                raise RecipeError(f"{option.name}: found {told!r} beside a plan, which has decided that; edit the plan, or leave one out")
