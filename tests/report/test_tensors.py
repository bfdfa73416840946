from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.report.networks import entry, subject

from zeropoint import api
from zeropoint.demo import load_digits
from zeropoint.graph.load import load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.prepare import prepare
from zeropoint.numerics.affine import Range
from zeropoint.plan import Plan, Reader
from zeropoint.progress import silent
from zeropoint.report.layers import layer_table
from zeropoint.report.tensors import _activation, covered, rounded_weight, statistics_of, tensors_of
from zeropoint.result import Result
from zeropoint.statistics.solvers import get_solver
from zeropoint.statistics.tensor import EMPTY, TensorStatistic, observe

pytest.importorskip("altair")


def tensors(result: Result) -> dict[str, dict[str, Any]]:
    assert result.material is not None
    found = tensors_of(result.material, first=None, progress=silent)
    return {tensor["name"]: dict(tensor) for tensor in found.tensors}


def quantized(**options: Any) -> Result:
    digits = load_digits()
    return api.quantize(digits.model, data=digits.calibration[:8], evaluate=False, effort="fast", **options)


def test_ranges_of_all_solvers_stand_beside_the_chosen_one() -> None:
    result = quantized(target="onnxruntime", solver="percentile:99.9")
    seen = result.material.statistics["stem.relu"]  # type: ignore[union-attr]
    chosen = result.plan.entry("stem.relu")
    found = {solver: (lo, hi) for solver, lo, hi, _ in tensors(result)["stem.relu"]["thresholds"]}
    assert list(found) == ["chosen", "minmax", "percentile", "entropy", "mse"]
    for solver in ("minmax", "percentile", "entropy", "mse"):
        expected = get_solver(solver).solve(seen, chosen.spec)
        assert found[solver] == pytest.approx((expected.lo, expected.hi), rel=1e-4)
    assert found["chosen"] == pytest.approx(chosen.range, rel=1e-4)
    assert found["chosen"][1] < found["percentile"][1]


def test_tensor_that_was_derived_from_another_is_drawn_from_it() -> None:
    found = tensors(quantized(target="onnxruntime"))
    assert found["features"]["counts"] == found["pool"]["counts"]


@pytest.mark.parametrize("storage", ["integer", "float"])
@pytest.mark.parametrize(
    ("target", "options"),
    [
        pytest.param("onnxruntime", {}, id="channels"),
        pytest.param("openvino", {"weight_granularity": "tensor"}, id="tensor"),
        pytest.param("tensorrt", {"weight_format": "int4"}, id="int4"),
        pytest.param("tensorrt", {"weight_format": "int4", "weight_granularity": "block:16"}, id="blocks"),
    ],
)
def test_rounded_weights_are_what_the_network_multiplies_by(target: str, options: dict[str, Any], storage: str) -> None:
    result = quantized(target=target, weight_storage=storage, **options)
    assert result.material is not None
    prepared = result.material.candidate.prepared
    nodes = {str(node.name): node for node in result.model.graph}
    weights = [entry for entry in result.plan.entries if entry.role == "weight"]
    assert weights
    for weight in weights:
        rounded = rounded_weight(weight, nodes)
        before = np.asarray(prepared.graph.initializers[weight.tensor].const_value.numpy())  # type: ignore[union-attr]
        assert rounded is not None
        assert rounded.shape == before.shape
        step = max(weight.scale)
        assert 0 < np.abs(rounded - before).max() <= 40 * step  # clipping may take some steps
        assert np.median(np.abs(rounded - before)) < 0.5 * step
    assert all("float" in tensors(result)[weight.tensor] for weight in weights)


def test_layers_name_their_tensors_by_part() -> None:
    found = subject()
    sections = tensors_of(found.material, first="layer2", progress=silent)
    names = [tensor["name"] for tensor in sections.tensors]
    parts = {layer: [(part, names[index]) for part, index in told["tensors"]] for layer, told in sections.layers.items()}
    assert parts["layer2"] == [("input", "layer1/out"), ("weight", "layer/weight")]
    assert parts["layer1"] == [("output", "layer1/out")]
    assert sections.first == "layer2"
    assert tensors_of(found.material, first="nothing", progress=silent).first == "layer0"


def test_layers_are_found_by_their_places_whatever_their_names() -> None:
    """HTML makes one line break of \\r\\n, so that a name does not come back from the page as it was."""
    found = subject(prefix="a\r\nb")
    assert found.material.candidate.plan.entries
    sections = tensors_of(found.material, first="a\r\nb2", progress=silent)
    table = layer_table(found.material.candidate.prepared, found.plan, None, opening=sections.layers)
    layers, first = sections.document["layers"], sections.document["first"]
    opened = {row.cells[0].text: layers[int(row.opens)]["name"] for row in table.rows if row.opens}
    assert opened == {name: name for name in sections.layers}
    assert layers[int(first)]["name"] == "a\r\nb2"


@pytest.mark.parametrize(
    ("statistic", "told"),
    [
        pytest.param(None, "does not say what was seen", id="from-a-plan"),
        pytest.param(EMPTY, "No finite value", id="nothing-seen"),
        pytest.param(observe([np.nan, np.inf]), "No finite value", id="nothing-finite"),
        pytest.param(observe(np.zeros(9)), "No value is clipped", id="zeros"),
        pytest.param(observe([1.0] * 99 + [50.0]), "1 % of the values lie outside", id="clipped"),
        pytest.param(observe([1.0] * 99_999 + [5e30]), "1 value above what is drawn, up to 5e+30", id="far-beyond"),
        pytest.param(observe([3e38, -3e38]), "clipped", id="largest-numbers"),
        pytest.param(observe([1e-38, 2e-38]), "No value is clipped", id="smallest-numbers"),
    ],
)
def test_whatever_was_seen_can_be_told(statistic: TensorStatistic | None, told: str) -> None:
    document = _activation(entry("x", (Reader("n", 0),)), statistic)
    assert told in document["told"]
    json.dumps(document, allow_nan=False)


def test_range_of_a_plan_without_ranges_follows_from_its_numbers() -> None:
    exact = entry("x", (), (-1.0, 3.0))
    assert covered(replace(exact, range=())) == Range(pytest.approx(-1.0, abs=0.02), pytest.approx(3.0, abs=0.02))  # type: ignore[arg-type]


def test_statistics_of_joined_tensors_are_merged() -> None:
    import onnx

    text = '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 2] a, float[1, 2] b) => (float[1, 4] c) { c = Concat<axis = 1>(a, b) }'
    seen = {"a": observe([1.0, 2.0]), "b": observe([-3.0])}
    found = statistics_of(load(onnx.parser.parse_model(text)), seen, [entry("c", ()), entry("unseen", ())])
    assert (found["c"].count, found["c"].minimum, found["c"].maximum) == (3, -3.0, 2.0)
    assert "unseen" not in found


def test_weight_that_two_layers_share_is_drawn_once() -> None:
    found = tensors_of(subject().material, first=None, progress=silent)
    assert [tensor["name"] for tensor in found.tensors].count("layer/weight") == 1


def test_plan_without_entries_has_nothing_to_draw() -> None:
    digits = load_digits()
    network = load(digits.model)
    prepare(network)
    empty = Plan(target="onnxruntime", entries=())
    candidate = replace(subject().material.candidate, prepared=network, quantized=materialize(network, empty), plan=empty)
    found = tensors_of(replace(subject().material, candidate=candidate), first=None, progress=silent)
    assert (found.tensors, dict(found.layers), found.first) == ([], {}, None)
