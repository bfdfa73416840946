"""The two charts of tensors as Vega-Lite specs without data: the page's script puts in that of the tensor that is opened."""

from __future__ import annotations

from typing import Any

from zeropoint.report.chart import BAD, FLOAT, INK, MUTED, QUANTIZED, spec

HISTOGRAM_HEIGHT, STRIP_HEIGHT, CHANNELS_HEIGHT = 210, 84, 250
AXIS = 62  # pixels to the left of the plots, so that their zeros stand above each other


def specs() -> dict[str, Any]:
    """Return the specs by the names that the script knows them by."""
    return {"distribution": _distribution(), "channels": _channels()}


def _distribution() -> dict[str, Any]:
    """The ranges of the solvers in a strip, above the histogram that they are chosen from; both share the axis of values."""
    import altair as alt

    x = alt.X("x:Q", title=None, axis=None, scale=alt.Scale(zero=False, nice=False))
    told = [alt.Tooltip("solver:N"), alt.Tooltip("lo:Q", format=".5g"), alt.Tooltip("hi:Q", format=".5g")]
    rows = alt.Y("solver:N", title=None, sort=None, axis=alt.Axis(domain=False, ticks=False, minExtent=AXIS, labelPadding=6))
    color = alt.condition("datum.chosen", alt.value(QUANTIZED), alt.value(FLOAT))
    strip = alt.Chart(alt.NamedData("ranges"), height=STRIP_HEIGHT)
    strip = strip.mark_bar(height=6, cornerRadius=3).encode(x=x, x2="x2:Q", y=rows, color=color, tooltip=told)

    bars = alt.Chart(alt.NamedData("bins"), height=HISTOGRAM_HEIGHT)
    counts = alt.Y("count:Q", title="values (log)", scale=alt.Scale(type="log", domainMin=0.5, nice=False))
    counts = counts.axis(minExtent=AXIS, tickCount=5, format="~s")
    bars = bars.mark_rect(stroke=None).encode(
        x=alt.X("x:Q", title="value", axis=alt.Axis(tickCount=8), scale=alt.Scale(zero=False, nice=False)),
        x2="x2:Q",
        y=counts,
        y2="least:Q",
        color=alt.condition("datum.clipped", alt.value(BAD), alt.value(QUANTIZED)),
        tooltip=[alt.Tooltip("x:Q", format=".4g"), alt.Tooltip("x2:Q", format=".4g"), alt.Tooltip("count:Q", format=",")],
    )
    ends = alt.Chart(alt.NamedData("ends")).mark_rule(strokeDash=[4, 3], strokeWidth=1.5, color=INK).encode(x="x:Q")
    return spec(alt.vconcat(strip, bars + ends, spacing=6).resolve_scale(x="shared"))


def _channels() -> dict[str, Any]:
    """A thin bar of the rounded range inside a wide one of the float range, for each channel."""
    import altair as alt

    when = alt.Color(
        "when:N",
        title=None,
        scale=alt.Scale(domain=["float", "quantized"], range=[FLOAT, QUANTIZED]),
        legend=alt.Legend(orient="top", labelColor=MUTED),
    )
    chart = alt.Chart(alt.NamedData("channels"), height=CHANNELS_HEIGHT)
    chart = chart.mark_rect(stroke=None).encode(
        x=alt.X("x:Q", title="channel", scale=alt.Scale(zero=False, nice=False)),
        x2="x2:Q",
        y=alt.Y("lo:Q", title="weights", axis=alt.Axis(minExtent=AXIS, tickCount=6, format="~g")),
        y2="hi:Q",
        color=when,
        tooltip=["when:N", "channel:Q", alt.Tooltip("lo:Q", format=".4g"), alt.Tooltip("hi:Q", format=".4g")],
    )
    return spec(chart)
