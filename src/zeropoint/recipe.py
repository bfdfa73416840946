"""What the user asked for."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Literal

from zeropoint.errors import RecipeError
from zeropoint.numerics.formats import get_format
from zeropoint.numerics.spec import PerBlock, PerChannel, Spec
from zeropoint.statistics.solvers import get_solver

DECIDED_BY_PLAN = frozenset(
    {"solver", "weight_solver", "weight_format", "weight_granularity", "include", "exclude", "bias", "effort", "without"}
)
REFINEMENT_NAMES = ("smoothing", "rounding", "reconstruction")  # what an effort may make of a plan, in this order
BLOCK = re.compile(r"block:([2-9]|[1-9][0-9]{1,8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The options that decide the numbers in the result.

    solver, weight_solver: how the ranges of activations and of weights are found. samples: how many samples calibrate.
    batch_size: how many of them are fed at once where the network's batch axis is dynamic. include, exclude: shell patterns over
    node names, or operator types. weight_format: of the codes of weights. weight_granularity: what of a weight shares a scale: an output
    "channel", the whole "tensor", or 32 input channels of an output channel for "block:32". bias: corrected for the mean error of the
    rounded weights, or kept as they are. weight_storage: weights in the file as integers, or as floats behind a Q/DQ pair. effort: how
    much time may go into refining what calibration found: none, little beside it, or minutes. without: the names of refinements that the
    effort would make and that are left out.
    """

    solver: str = "auto"
    weight_solver: Literal["mse", "minmax"] = "mse"
    samples: int = 128
    batch_size: int = 1
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    weight_format: Literal["int8", "int4"] = "int8"
    weight_granularity: str = "channel"
    bias: Literal["corrected", "kept"] = "corrected"
    weight_storage: Literal["integer", "float"] = "integer"
    effort: Literal["fast", "balanced", "best"] = "balanced"
    without: tuple[str, ...] = ()
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
            ("weight_format", self.weight_format, ("int8", "int4")),
            ("bias", self.bias, ("corrected", "kept")),
            ("weight_storage", self.weight_storage, ("integer", "float")),
            ("effort", self.effort, ("fast", "balanced", "best")),
        ):
            if found not in known:
                raise RecipeError(f"{name}: found {found!r}, expected one of {', '.join(known)}")
        for refinement in self.without:
            if refinement not in REFINEMENT_NAMES:
                raise RecipeError(
                    f"without: found {refinement!r}, expected names of refinements, which are {', '.join(REFINEMENT_NAMES[:-1])} and "
                    f"{REFINEMENT_NAMES[-1]}; "
                    "leave others out, and set bias to kept where biases are not to be corrected"
                )
        if self.weight_granularity not in ("channel", "tensor") and self.weight_block is None:
            raise RecipeError(
                f"weight_granularity: found {self.weight_granularity!r}, expected channel, tensor or block:N, N being a whole number "
                "of 2 or more; block:32 and block:128 are usual"
            )

    @property
    def weight_block(self) -> int | None:
        """How many input channels of a weight share a scale; None where all do."""
        found = BLOCK.fullmatch(str(self.weight_granularity))
        return None if found is None else int(found[1])

    @property
    def weight_opset(self) -> int:
        """The least opset whose DequantizeLinear reads the weights."""
        granularity = PerChannel(0) if self.weight_block is None else PerBlock(0, self.weight_block)
        return Spec(get_format(self.weight_format), symmetric=True, granularity=granularity).opset

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
