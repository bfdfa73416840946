"""The page of two networks compared: where the error enters, layer by layer, and what they differ in."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from zeropoint.comparison import Comparison, Side, bad_news, verdict
from zeropoint.evaluate.codes import Codes
from zeropoint.evaluate.layers import LayerFidelity
from zeropoint.release import own_version
from zeropoint.report.fidelity import fidelity_figures
from zeropoint.report.figures import Figure, Figures, pair
from zeropoint.report.manifest import Manifest
from zeropoint.report.page import Page, Section, check_libraries
from zeropoint.report.reasons import Reasons, grouped
from zeropoint.report.table import Cell, Column, Row, Table, decibels
from zeropoint.summary import LOWEST_FIDELITY_DB, size_text

LABELS = ("a", "b")
LAYER_COLUMNS = (
    Column(title="Layer"),
    Column(title="#", align="right", hint="The place in network a, from its input"),
    Column(title="Operator"),
    Column(title="In a", hint="The tensor that is compared, as its readers see it"),
    Column(title="In b", hint="What that is called in network b"),
    Column(title="By itself", align="right", hint="SQNR where b's layer reads what a's does: the error that is this layer's own"),
    Column(title="So far", align="right", hint="SQNR with both networks run whole: the lower, the further from a"),
    Column(title="Reach", align="right", first="descending", hint="How many times as far as a's values b's codes reach, at the wider end"),
)
CODES_COLUMNS = (
    Column(title="Tensor"),
    Column(title="Role"),
    Column(title="In a"),
    Column(title="In b"),
    Column(title="Scale, b / a", align="right", hint="Of the channel where the scales differ most"),
)
OPERATOR_COLUMNS = (Column(title="Operator"), Column(title="In a", align="right"), Column(title="In b", align="right"))


def comparison_page(found: Comparison) -> Page:
    """Return the page of a comparison.

    Raises:
        RecipeError: a library is not installed.
    """
    check_libraries()
    names = [Path(side.file).name for side in (found.a, found.b)]
    outputs = [figure for output in found.fidelity for figure in fidelity_figures(output, of=f" of {output.output}", labels=LABELS)]
    sections: Sequence[Section] = (
        Figures("Outputs and sizes", [_sizes(found.a, found.b), *outputs]),
        _layers(found),
        _codes(found),
        _operators(found),
        Reasons(heading="Notes", groups=grouped(found.notes), empty="Everything was compared, and there is no more to know."),
        _manifest(found),
    )
    is_bad = found.worst_db < LOWEST_FIDELITY_DB or bad_news(found)
    return Page(
        kind="compare",
        title=f"{names[0]} and {names[1]}",
        verdict=verdict(found),
        tone="bad" if is_bad else "good" if found.worst_db == math.inf else "plain",
        sections=sections,
    )


def _sizes(a: Side, b: Side) -> Figure:
    bars = pair(a.bytes, b.bytes, texts=(size_text(a.bytes), size_text(b.bytes)), labels=LABELS)
    return Figure(label="Size", bars=bars, comparison=f"{b.bytes / a.bytes:.2f} of a")


def _layers(found: Comparison) -> Table:
    places = {layer: place for place, layer in enumerate(found.layers, start=1)}
    rows = [
        Row(
            (
                Cell(layer.node, None, "code"),
                Cell(str(places[layer]), places[layer]),
                Cell(layer.operator),
                Cell(layer.tensor, None, "code"),
                Cell(layer.other, None, "code"),
                decibels(layer.own_db),
                decibels(layer.sqnr_db),
                _reach(layer),
            )
        )
        for layer in found.ranked
    ]
    wide = "Those whose codes reach too far first, then those that add the most error by themselves"
    first = wide if found.has_too_wide else "Those that add the most error by themselves first"
    lead = f"{first}, on {found.layer_samples} of the samples. Click a column to sort."
    empty = "No layer of the two networks could be paired."
    return Table(heading="Layers", lead=lead, columns=LAYER_COLUMNS, rows=rows, search="Search layers, operators, tensors", empty=empty)


def _reach(layer: LayerFidelity) -> Cell:
    if layer.reach is None:
        return Cell("", math.nan)
    return Cell(f"{layer.reach:.1f}x", layer.reach, "bad" if layer.is_too_wide else "")


def _codes(found: Comparison) -> Table:
    rows = [
        Row(
            (
                Cell(one.tensor, None, "code"),
                Cell(one.role),
                _format(one.a),
                _format(one.b),
                Cell(f"{one.scale_ratio:.4g}", one.scale_ratio) if one.scale_ratio is not None else Cell("", math.nan),
            )
        )
        for one in found.codes
    ]
    empty = "Both networks code the same tensors, with the same numbers."
    return Table(heading="Codes that differ", columns=CODES_COLUMNS, rows=rows, search="Search tensors, formats", empty=empty)


def _format(codes: Codes | None) -> Cell:
    if codes is None:
        return Cell("float", None, "float")
    scale = f"scale {codes.scale:.6g}" if codes.scale is not None else "the scale is computed"
    return Cell(f"{codes.format}, per {codes.granularity}", None, "int", f"{scale}, zero point {codes.zero_point}")


def _operators(found: Comparison) -> Table:
    rows = [Row((Cell(one.operator), Cell(str(one.a), one.a), Cell(str(one.b), one.b))) for one in found.operators]
    empty = "Both networks have the same operators, each as often."
    return Table(heading="Operators that differ", columns=OPERATOR_COLUMNS, rows=rows, empty=empty)


def _manifest(found: Comparison) -> Manifest:
    facts = [("data", found.evaluation_data), ("zeropoint", own_version())]
    for label, side in zip(LABELS, (found.a, found.b), strict=True):
        form = "quantized" if side.quantized else "float"
        opset = f"opset {side.opset}" if side.opset is not None else "no opset of ONNX"
        facts.append((label, ", ".join(part for part in (side.file, form, opset, f"by {side.producer}" if side.producer else "") if part)))
    return Manifest(heading="What was compared", facts=facts)
