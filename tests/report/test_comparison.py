from __future__ import annotations

import math
from dataclasses import replace

import pytest

from zeropoint.comparison import Comparison, OperatorDifference, Side
from zeropoint.data import NOT_REAL
from zeropoint.evaluate.codes import Codes, CodesDifference
from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.evaluate.layers import LayerFidelity
from zeropoint.notes import Note
from zeropoint.report.comparison import comparison_page
from zeropoint.report.page import render
from zeropoint.report.table import Table

pytest.importorskip("jinja2")

EVIL = "</script><script>alert('\"')</script>"
LAYERS = (
    LayerFidelity(node="good", operator="Conv", tensor="g", other="g/dq", sqnr_db=40.0, own_db=math.inf),
    LayerFidelity(node=EVIL, operator="Conv", tensor=EVIL, other=EVIL, sqnr_db=-math.inf, own_db=3.0),
    LayerFidelity(node="unknown", operator="Relu", tensor="u", other="u", sqnr_db=5.0, own_db=None),
)
CODES = Codes(format="int8", granularity="channel 0", scale=0.25, zero_point=0)


def side(file: str, size: int) -> Side:
    return Side(file=file, bytes=size, opset=17, producer=EVIL, operators={"Conv": 2}, quantized=False)


def fidelity(sqnr_db: float) -> OutputFidelity:
    return OutputFidelity(
        output=EVIL,
        sqnr_db=sqnr_db,
        sqnr_median_db=12.0,
        sqnr_worst_db=10.0,
        cosine=0.9,
        max_error=1.0,
        incomparable=0,
        agreement=0.75,
        float_accuracy=0.5,
        accuracy=0.25,
    )


FOUND = Comparison(
    a=side("folder/a.onnx", 4000),
    b=side("b.onnx", 1000),
    fidelity=(fidelity(20.0),),
    layers=LAYERS,
    enters=LAYERS[1],
    operators=(OperatorDifference(EVIL, 3, 0),),
    codes=(
        CodesDifference(tensor=EVIL, role="weight", a=CODES, b=replace(CODES, scale=1.0), scale_ratio=4.0),
        CodesDifference(tensor="x", role="activation", a=None, b=CODES, scale_ratio=None),
    ),
    evaluation_data="8 of 9 samples",
    layer_samples=4,
    notes=(Note(EVIL, "not compared"),),
)


def table(heading: str, found: Comparison = FOUND) -> Table:
    return next(section for section in comparison_page(found).sections if isinstance(section, Table) and section.heading == heading)


def test_layers_are_those_that_add_the_most_first() -> None:
    rows = [[cell.text for cell in row.cells] for row in table("Layers").rows]
    assert [row[1] for row in rows] == ["2", "1", "3"]
    assert rows[0][5:] == ["3.0 dB", "wrong", ""]
    assert rows[1][5:] == ["exact", "40.0 dB", ""]
    assert table("Layers").lead.startswith("Those that add the most error by themselves first, on 4 of")


def test_layers_whose_codes_reach_too_far_come_first_and_that_is_said() -> None:
    wide = replace(LAYERS[0], reach=4.0)
    found = table("Layers", replace(FOUND, layers=(wide, replace(LAYERS[1], reach=1.25), LAYERS[2])))
    assert [row.cells[-1].text for row in found.rows] == ["4.0x", "1.2x", ""]
    assert [row.cells[-1].tone for row in found.rows] == ["bad", "", ""]
    assert found.lead.startswith("Those whose codes reach too far first, then those that add the most error")


def test_codes_say_what_they_are_in_both() -> None:
    rows = [[cell.text for cell in row.cells] for row in table("Codes that differ").rows]
    assert rows == [
        [EVIL, "weight", "int8, per channel 0", "int8, per channel 0", "4"],
        ["x", "activation", "float", "int8, per channel 0", ""],
    ]


def test_the_page_holds_all_as_text() -> None:
    page = render(comparison_page(FOUND))
    assert EVIL not in page
    assert "&lt;/script&gt;&lt;script&gt;alert" in page
    for text in ("a.onnx and b.onnx", "Operators that differ", "8 of 9 samples", "0.25 of a", "-25.00 points", "opset 17"):
        assert text in page


@pytest.mark.parametrize(
    ("found", "tone"),
    [
        pytest.param(replace(FOUND, fidelity=(fidelity(math.inf),)), "good", id="exact"),
        pytest.param(FOUND, "plain", id="some error"),
        pytest.param(replace(FOUND, fidelity=(fidelity(5.0),)), "bad", id="far"),
        pytest.param(replace(FOUND, fidelity=(fidelity(-math.inf),)), "bad", id="infinitely wrong"),
        pytest.param(replace(FOUND, fidelity=(fidelity(math.nan),)), "bad", id="NaN"),
        pytest.param(replace(FOUND, fidelity=(fidelity(math.inf),), uncompared=("z",)), "bad", id="an output was not compared"),
        pytest.param(replace(FOUND, fidelity=()), "bad", id="no output was compared"),
        pytest.param(replace(FOUND, evaluation_data=f"{NOT_REAL} (4 samples)"), "bad", id="random data"),
    ],
)
def test_tone(found: Comparison, tone: str) -> None:
    assert comparison_page(found).tone == tone
    render(comparison_page(found))


def test_nothing_is_said_to_be_nothing() -> None:
    page = render(comparison_page(replace(FOUND, layers=(), enters=None, operators=(), codes=(), notes=(), fidelity=())))
    for text in ("could be paired", "code the same tensors", "have the same operators", "Everything was compared"):
        assert text in page
