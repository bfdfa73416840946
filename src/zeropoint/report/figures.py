"""What was before and what is after, as numbers and as bars."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Bar:
    """One value: what it is of, how it is written, and how long its bar is, as a share of the longest possible one; None for no bar."""

    label: str
    text: str
    share: float | None = None
    tone: Literal["float", "quantized"] = "quantized"


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One thing that was measured: its values, how they compare in a few words, and details in a line. No bars: it was not measured."""

    label: str
    bars: tuple[Bar, ...] = ()
    comparison: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Figures:
    """A group of figures, side by side where there is room."""

    heading: str
    figures: Sequence[Figure]
    template: ClassVar[str] = "figures.html"
    draws: ClassVar[bool] = False


def pair(before: float, after: float, *, texts: tuple[str, str], labels: tuple[str, str] = ("float", "quantized")) -> tuple[Bar, ...]:
    """Return the two bars of a value before and after, the longer one at full length.

    Example:
        >>> [bar.share for bar in pair(4.0, 1.0, texts=("4 MB", "1 MB"))]
        [1.0, 0.25]
    """
    most = max(before, after)
    shares = [value / most if most > 0 else 0.0 for value in (before, after)]
    return Bar(labels[0], texts[0], shares[0], "float"), Bar(labels[1], texts[1], shares[1])
