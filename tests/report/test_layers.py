from __future__ import annotations

import math

import onnx
import pytest
from tests.report.networks import entry, weight_entry

from zeropoint.evaluate.layers import LayerComparison, LayerFidelity
from zeropoint.graph.load import load
from zeropoint.notes import Note
from zeropoint.plan import Plan, Reader
from zeropoint.report.layers import COLUMNS, layer_table
from zeropoint.report.table import decibels

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4] x, int64[1] i) => (float[1, 4] y, int64[2] s) {
    a = MatMul(x, w)
    b = Relu(a)
    c = MatMul(b, w)
    d = Clip(c)
    e = Add(d, c)
    f = MatMul(e, v)
    y = Tanh(f)
    s = Shape(y)
}
"""


def table_rows(plan: Plan, comparison: LayerComparison | None = None) -> dict[str, dict[str, str]]:
    import numpy as np

    proto = onnx.parser.parse_model(NETWORK)
    for node, name in zip(proto.graph.node, "abcdefyt", strict=True):
        node.name = name
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(np.eye(4, dtype=np.float32), name) for name in "wv")
    table = layer_table(load(proto), plan, comparison, opening=["a", "c"])
    assert {row.cells[0].text: row.opens for row in table.rows if row.opens} == {"a": "0", "c": "1"}
    titles = [column.title for column in COLUMNS]
    return {row.cells[0].text: dict(zip(titles, (cell.text for cell in row.cells), strict=True)) for row in table.rows}


PLAN = Plan(
    target="onnxruntime",
    entries=(
        entry("x", (Reader("a", 0),)),
        entry("b", (Reader("c", 0),)),
        weight_entry("w", (Reader("a", 1), Reader("c", 1))),
    ),
    notes=(Note("f", "too few channels", kind="float"),),
)


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        pytest.param("x", ("", "", "uint8"), id="input-of-the-network"),
        pytest.param("i", ("", "", "int64"), id="input-of-integers"),
        pytest.param("a", ("uint8", "int8", "uint8"), id="writes-what-the-activation-fused-with-it-writes"),
        pytest.param("b", ("fused", "", "uint8"), id="fused-activation"),
        pytest.param("c", ("uint8", "int8", "float"), id="writes-float"),
        pytest.param("d", ("float", "", "float"), id="activation-of-a-tensor-that-others-read-too"),
        pytest.param("f", ("float", "float", "float"), id="left-in-float"),
        pytest.param("t", ("float", "", "int64"), id="another-type"),
    ],
)
def test_formats_are_those_of_the_plan(node: str, expected: tuple[str, str, str]) -> None:
    row = table_rows(PLAN)[node]
    assert (row["Input"], row["Weight"], row["Output"]) == expected


def test_rows_stand_in_the_order_of_the_network() -> None:
    rows = table_rows(PLAN)
    assert list(rows) == ["x", "i", "a", "b", "c", "d", "e", "f", "y", "t"]
    assert [row["#"] for row in rows.values()] == ["0", "0", *map(str, range(1, 9))]


def test_fidelity_is_that_of_the_tensor() -> None:
    measured = LayerFidelity(node="other", operator="MatMul", tensor="c", other="c", sqnr_db=31.25, own_db=None)
    exact = LayerFidelity(node="a", operator="MatMul", tensor="a", other="a", sqnr_db=math.inf, own_db=-math.inf)
    rows = table_rows(PLAN, LayerComparison((measured, exact), ()))
    assert (rows["c"]["SQNR"], rows["c"]["Own SQNR"]) == ("31.2 dB", "")
    assert (rows["a"]["SQNR"], rows["a"]["Own SQNR"]) == ("exact", "wrong")
    assert rows["b"]["SQNR"] == ""


@pytest.mark.parametrize(
    ("value", "text", "sorts_by"),
    [
        pytest.param(12.345, "12.3 dB", "12.345", id="finite"),
        pytest.param(math.inf, "exact", "Infinity", id="exact"),
        pytest.param(-math.inf, "wrong", "-Infinity", id="wrong-comes-first"),
        pytest.param(math.nan, "wrong", "-Infinity", id="nan-comes-first"),
        pytest.param(None, "", "", id="not-measured-comes-last"),
    ],
)
def test_decibels(value: float | None, text: str, sorts_by: str) -> None:
    cell = decibels(value)
    assert (cell.text, cell.sorts_by) == (text, sorts_by)
