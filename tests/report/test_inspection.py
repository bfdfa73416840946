"""The page of `inspect`: that it shows what was found, and that names are text."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

import zeropoint as zp
from zeropoint.demo import load_digits
from zeropoint.inspection import Inspection
from zeropoint.report.inspection import inspection_page
from zeropoint.report.page import render
from zeropoint.report.table import Table

pytest.importorskip("jinja2")
pytest.importorskip("altair")
pytest.importorskip("vl_convert")


@pytest.fixture(scope="module")
def digits() -> Inspection:
    return zp.inspect(load_digits().model, target="tensorrt")


def table(found: Inspection, heading: str) -> list[dict[str, str]]:
    [section] = [section for section in inspection_page(found, name="digits.onnx").sections if section.heading == heading]
    assert isinstance(section, Table)
    titles = [column.title for column in section.columns]
    return [dict(zip(titles, (cell.text for cell in row.cells), strict=True)) for row in section.rows]


def test_every_layer_has_a_row(digits: Inspection) -> None:
    rows = table(digits, "Layers")
    assert [row["Layer"] for row in rows] == [layer.node for layer in digits.layers]
    first = rows[0]
    assert (first["Input"], first["Weight"], first["Bias"], first["Output"]) == ("float32", "float32", "", "float32")
    assert (first["Weight shape"], first["Parameters"]) == ("48×1×5×5", "1.2 k")
    assert first["MACs"] == "235 k"


def test_inputs_outputs_and_operators_are_listed(digits: Inspection) -> None:
    assert table(digits, "Inputs and outputs")[0] == {"Role": "input", "Name": "image", "Dtype": "float32", "Shape": "batch×1×28×28"}
    assert {row["Operator"]: row["Count"] for row in table(digits, "Operators")} == {
        name: str(count) for name, count in digits.operators.items()
    }


def test_verdict_says_float_or_what_multiplies_codes(digits: Inspection) -> None:
    assert inspection_page(digits, name="n").verdict == "A float network of 112 k parameters in 449 kB"
    coded = replace(digits, quantized=True, integer_layers=5)
    assert inspection_page(coded, name="n").verdict.endswith("codes multiply codes in 5 of 7 layers")


def test_target_has_a_section(digits: Inspection) -> None:
    html = unescape(render(inspection_page(digits, name="digits.onnx")))
    assert "tensorrt would compute 8 of" in html
    assert "tensorrt has no integer kernel that pays" in html


def test_names_are_text(digits: Inspection) -> None:
    attack = "<script>alert(1)</script>"
    layers = (replace(digits.layers[0], node=attack), *digits.layers[1:])
    html = render(inspection_page(replace(digits, layers=layers), name=attack))
    assert attack not in html
    assert "&lt;script&gt;alert(1)" in html


def test_what_is_not_known_is_left_empty(digits: Inspection) -> None:
    unknown = replace(digits.layers[0], macs=None, mac_share=None, bytes_moved=None, output_shape=None, weight=None)
    found = replace(digits, layers=(unknown,), macs=None, activation_bytes=None)
    row = table(found, "Layers")[0]
    assert [row[title] for title in ("MACs", "Share", "Moved", "Output shape", "Weight shape")] == [""] * 5
    assert "not known: see the notes" in render(inspection_page(found, name="n"))


def test_totals_are_at_least_what_was_counted(digits: Inspection) -> None:
    coded = replace(digits, quantized=True, layers=tuple(replace(layer, integer=True) for layer in digits.layers))
    for uncounted, expected in (({}, False), ({"LSTM": 1}, True)):
        html = render(inspection_page(replace(coded, uncounted=uncounted), name="n"))
        assert ("at least" in html.split("Multiply-accumulates")[1].split("</div>")[0]) == expected
        assert ("100 % of those counted" in html) == expected


def test_file_is_written(tmp_path: Path) -> None:
    zp.inspect(load_digits().model, report=tmp_path / "page.html")
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert re.search(r"<h1[^>]*>digits.onnx</h1>", html)
