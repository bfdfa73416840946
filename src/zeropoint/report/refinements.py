"""What each refinement brought, and those that were tried and not kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from zeropoint.notes import counted
from zeropoint.plan import Plan, Step
from zeropoint.report.figures import Bar

NOT_REFINED = "Nothing was refined: the effort left no time for it, or there was no data."


@dataclass(frozen=True, slots=True)
class Refinement:
    """A step with its two bars, of the outputs' SQNR without and with it, and the rest of what is known of it."""

    name: str
    kept: bool
    bars: tuple[Bar, Bar]
    told: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Refinements:
    """Steps in the order in which they were tried; `empty` is said where there are none."""

    heading: str
    steps: Sequence[Refinement]
    empty: str = NOT_REFINED
    template: ClassVar[str] = "refinements.html"
    draws: ClassVar[bool] = False


def refinements(plan: Plan) -> Refinements:
    """Return what the plan says of how it was refined; all bars have one scale."""
    most = max((value for step in plan.steps for value in (step.before_db, step.after_db) if math.isfinite(value)), default=0.0)
    return Refinements(heading="Refinements", steps=[_refinement(step, most) for step in plan.steps])


def _refinement(step: Step, most: float) -> Refinement:
    bars = (
        Bar("without", f"{step.before_db:.2f} dB", _share(step.before_db, most), "float"),
        Bar("with", f"{step.after_db:.2f} dB", _share(step.after_db, most)),
    )
    told = f"SQNR of the outputs on {counted(step.samples, 'calibration sample')} set aside." + (f" {step.detail}" if step.detail else "")
    return Refinement(step.name, step.kept, bars, told)


def _share(value: float, most: float) -> float:
    if math.isnan(value):
        return 0.0
    return min(max(value / most, 0.0), 1.0) if most > 0 else float(value == math.inf)
