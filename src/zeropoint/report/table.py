"""A table: sorted by any column at a click, searched by a text field."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column; `first`: how a first click sorts it, so that what matters comes first; `hint`: what it means, in a sentence."""

    title: str
    align: Literal["left", "right"] = "left"
    first: Literal["ascending", "descending"] = "ascending"
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    """What a cell says, the number it is sorted by where its text will not do, its style, and what is said of it on the side."""

    text: str
    number: float | None = None
    tone: Literal["", "bad", "muted", "code", "int", "float"] = ""
    hint: str = ""

    @property
    def sorts_by(self) -> str | None:
        """The number as JavaScript reads it; "" for NaN, which comes last."""
        if self.number is None:
            return None
        return "" if math.isnan(self.number) else f"{self.number:.9g}".replace("inf", "Infinity")


@dataclass(frozen=True, slots=True)
class Row:
    """Cells, one for each column; `opens` is the key of what a click on the row shows, "" for nothing."""

    cells: Sequence[Cell]
    opens: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table under a heading, with a line or two before it; `search` is what the text field is for, "" for none."""

    heading: str
    lead: str = ""
    columns: Sequence[Column]
    rows: Sequence[Row]
    search: str = ""
    empty: str = "There is nothing to show."
    template: ClassVar[str] = "table.html"
    draws: ClassVar[bool] = False


def decibels(value: float | None) -> Cell:
    """Return a cell for a signal-to-noise ratio in dB; None where it was not measured.

    Example:
        >>> decibels(31.25).text, decibels(math.inf).text, decibels(None).text
        ('31.2 dB', 'exact', '')
    """
    if value is None:
        return Cell("", math.nan)
    if value == math.inf:
        return Cell("exact", value)
    if not math.isfinite(value):
        return Cell("wrong", -math.inf, "bad", "NaN, infinity, another shape, or an error where the float network has only zeros")
    return Cell(f"{value:.1f} dB", value)
