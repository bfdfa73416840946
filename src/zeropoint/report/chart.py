"""A Vega-Lite chart on a page, in the page's colours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import altair

# Names of CSS variables, so that a chart follows the page from light to dark, and onto paper, without being drawn again.
INK, MUTED, LINE = "var(--ink)", "var(--muted)", "var(--line)"
FLOAT, QUANTIZED, BAD, WARN = "var(--float)", "var(--quantized)", "var(--bad)", "var(--warn)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """A chart under a heading; `described` says in words what is seen, for those who do not see it."""

    heading: str
    lead: str = ""
    spec: Mapping[str, Any]
    described: str
    template: ClassVar[str] = "chart.html"
    draws: ClassVar[bool] = True


def spec(chart: altair.TopLevelMixin) -> dict[str, Any]:
    """Return the Vega-Lite spec of an Altair chart, as wide as its place and in the page's colours."""
    found: dict[str, Any] = chart.to_dict()
    found.pop("$schema", None)
    found["config"] = THEME
    return found


THEME: Mapping[str, Any] = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelColor": MUTED,
        "titleColor": MUTED,
        "gridColor": LINE,
        "domainColor": LINE,
        "tickColor": LINE,
        "titleFontWeight": "normal",
        "labelFontSize": 11,
        "titleFontSize": 11,
    },
    "legend": {"labelColor": INK, "titleColor": MUTED},
    "text": {"color": INK},
    "bar": {"color": QUANTIZED},
    "point": {"color": QUANTIZED, "filled": True},
}
