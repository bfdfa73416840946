from __future__ import annotations

import onnx
import pytest

from zeropoint.evaluate.evidence import Coverage, Evidence, coverage
from zeropoint.graph.load import load
from zeropoint.notes import Note
from zeropoint.plan import Entry, Plan, Reader
from zeropoint.targets import get_target

NETWORK = """
<ir_version: 8, opset_import: ["" : 17, "com.example" : 1]>
g (float[1, 16] x, float[16, 16] w) => (float[1, 16] y) {
    [first] a = MatMul(x, w)
    [relu] b = Relu(a)
    [second] c = MatMul(b, w)
    [moved] d = Transpose(c)
    [own] e = com.example.MatMul(d, w)
    [loose] f = Softmax(e)
    [third] y = MatMul(f, w)
}
"""


def entry(tensor: str, *readers: str) -> Entry:
    return Entry(
        tensor=tensor,
        role="activation",
        format="int8",
        symmetric=True,
        solver="",
        reason="",
        readers=tuple(Reader(node, 0) for node in readers),
    )


@pytest.mark.parametrize(
    ("entries", "notes", "expected"),
    [
        pytest.param([], [], Coverage(0, 0), id="nothing"),
        pytest.param([entry("x", "first")], [], Coverage(1, 1), id="one"),
        pytest.param([entry("x", "first"), entry("b", "second", "third")], [], Coverage(3, 3), id="all"),
        pytest.param([entry("x", "first"), entry("w", "first")], [], Coverage(1, 1), id="both-inputs-of-one-count-once"),
        pytest.param([entry("x", "first")], [Note("second", "excluded", kind="float")], Coverage(1, 2), id="one-left-in-float"),
        pytest.param([entry("x", "first")], [Note("first", "a join", kind="float")], Coverage(0, 1), id="reads-codes-in-float"),
        pytest.param(
            [], [Note("second", "excluded", kind="float"), Note("second", "again", kind="float")], Coverage(0, 1), id="two-on-one"
        ),
        pytest.param([entry("x", "first")], [Note("first", "NaN were seen")], Coverage(1, 1), id="note-on-a-quantized-one"),
        pytest.param([entry("a", "relu"), entry("c", "moved")], [], Coverage(0, 0), id="what-fuses-or-moves-computes-nothing"),
        pytest.param([entry("d", "own"), entry("e", "loose")], [], Coverage(0, 0), id="what-the-target-does-not-know"),
        pytest.param([], [Note("x", "a tensor"), Note("latency", "not measured")], Coverage(0, 0), id="notes-on-no-operator"),
    ],
)
def test_coverage_counts_operators_that_compute(entries: list[Entry], notes: list[Note], expected: Coverage) -> None:
    plan = Plan(target="tensorrt", entries=tuple(entries), notes=tuple(notes))
    assert coverage(load(onnx.parser.parse_model(NETWORK)), plan, get_target("tensorrt")) == expected


def test_size_ratio_is_quantized_over_float() -> None:
    assert Evidence(float_bytes=400, quantized_bytes=100, coverage=Coverage(0, 0)).size_ratio == 0.25
