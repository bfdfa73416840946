from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import CalibrationDataReader, quantize_static
from tests.graph.networks import network, run_all

import zeropoint as zp
from zeropoint.data import Samples, open_data
from zeropoint.demo import load_digits
from zeropoint.errors import ModelError
from zeropoint.evaluate import layers
from zeropoint.evaluate.layers import LayerComparison, compare_layers
from zeropoint.graph.apart import open_apart
from zeropoint.graph.load import input_infos, load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.scaling import apply_scalings
from zeropoint.graph.store import serialize
from zeropoint.plan import Scaling, Tied

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(0).normal(0.0, 1.0, (5, 16, 8, 8)).astype(np.float32)
S = {"s": np.float32(0.05), "z": np.uint8(128), "rs": np.float32(0.02), "rz": np.uint8(0)}
FLOAT = "c = Conv(x, w) r = Relu(c) y = Conv(r, w2)"
CODED = (
    "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) c = Conv(xd, w) r = Relu(c) "
    "rq = QuantizeLinear(r, rs, rz) rd = DequantizeLinear(rq, rs, rz) y = Conv(rd, w2)"
)


def samples(model: onnx.ModelProto, data: Array = RANDOM) -> Samples:
    return open_data(data, input_infos(load(model)))


def compared(a: onnx.ModelProto, b: onnx.ModelProto, data: Array = RANDOM) -> LayerComparison:
    return compare_layers(load(a), load(b), samples(a, data))


def decibels(pairs: list[tuple[Array, Array]]) -> float:
    """The oracle: one number after the other, in Python's floats."""
    signal = math.fsum(float(x) ** 2 for ours, _ in pairs for x in ours.reshape(-1))
    error = math.fsum(
        (float(x) - float(y)) ** 2 for ours, theirs in pairs for x, y in zip(ours.reshape(-1), theirs.reshape(-1), strict=True)
    )
    return 10 * math.log10(signal / error) if error else math.inf


def test_each_tensor_is_as_far_off_as_with_every_tensor_an_output() -> None:
    a, b = network(FLOAT), network(CODED, weights=S | {"w2": weights("w2") * np.float32(0.9)})
    shown = [(run_all(a, {"x": x[None]}), run_all(b, {"x": x[None]})) for x in RANDOM]
    found = compared(a, b)
    assert [(layer.node, layer.operator, layer.other) for layer in found.layers] == [
        ("x", "input", "xd"),
        ("c", "Conv", "c"),
        ("r", "Relu", "rd"),
        ("y", "Conv", "y"),
    ]
    for layer in found.layers:
        expected = decibels([(ours[layer.tensor], theirs[layer.other]) for ours, theirs in shown])
        assert layer.sqnr_db == pytest.approx(expected, abs=1e-6), layer


def test_a_layer_adds_what_it_makes_of_what_the_other_network_reads() -> None:
    a, b = network(FLOAT), network(CODED, weights=S | {"w2": weights("w2") * np.float32(0.9)})
    floats = [run_all(a, {"x": x[None]}) for x in RANDOM]
    coded = [np.clip(np.rint(tensors["r"] / np.float32(0.02)), 0, 255) * np.float32(0.02) for tensors in floats]
    own = {layer.tensor: layer.own_db for layer in compared(a, b).layers}
    assert own["c"] == math.inf
    assert own["r"] == pytest.approx(decibels([(tensors["r"], codes) for tensors, codes in zip(floats, coded, strict=True)]), abs=1e-3)
    assert own["y"] == pytest.approx(20.0, abs=1e-3)  # 0.9 of it


def weights(name: str) -> Array:
    found = {tensor.name: tensor for tensor in network(FLOAT).graph.initializer}[name]
    return np.asarray(numpy_helper.to_array(found))


def test_a_network_is_no_way_off_itself() -> None:
    found = compared(network(CODED, weights=S), network(CODED, weights=S))
    assert {(layer.sqnr_db, layer.own_db) for layer in found.layers} == {(math.inf, math.inf)}
    assert found.notes == ()


def test_a_tensor_without_partner_is_noted_and_crossed() -> None:
    found = compared(network(FLOAT), network("c = Conv(x, w) e = Exp(c) g = Log(e) r = Relu(g) y = Conv(r, w2)", weights={}))
    assert [layer.tensor for layer in found.layers] == ["c", "r", "y"]
    other = compared(network("c = Conv(x, w) t = Neg(c) r = Relu(t) y = Conv(r, w2)"), network("e = Exp(x) r = Relu(e) y = Conv(r, w2)"))
    assert [layer.tensor for layer in other.layers] == ["r", "y"]
    assert {note.where for note in other.notes} == {"c", "t"}


@pytest.mark.parametrize("most", [1, 20_000, 1 << 30], ids=["one layer at a time", "some at a time", "all at once"])
def test_how_many_are_held_changes_nothing(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    a, b = network(FLOAT), network(CODED, weights=S)
    expected = compared(a, b)
    monkeypatch.setattr(layers, "MOST_BYTES", most)
    assert compared(a, b) == expected


def test_a_piece_that_does_not_run_is_noted_and_the_others_do(monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(model: Any, tensors: Any, **options: Any) -> Any:
        if options and "r" in tensors:
            raise ModelError("no such kernel")
        return open_apart(model, tensors, **options)

    expected = compared(network(FLOAT), network(FLOAT))
    monkeypatch.setattr(layers, "open_apart", refusing)
    found = compared(network(FLOAT), network(FLOAT))
    assert [layer.own_db for layer in found.layers] == [math.inf, None, math.inf]
    assert [layer.sqnr_db for layer in found.layers] == [layer.sqnr_db for layer in expected.layers]
    assert [str(note) for note in found.notes] == ["r: the error that it adds by itself is not known: no such kernel"]


@pytest.mark.parametrize(
    ("ours", "theirs", "expected"),
    [
        pytest.param([1.0, -np.inf], [1.0, -np.inf], (1.0, 0.0), id="the same infinity"),
        pytest.param([1.0, np.nan], [1.0, np.nan], (1.0, 0.0), id="NaN in both"),
        pytest.param([1.0, -np.inf], [3.0, -np.inf], (1.0, 4.0), id="an error beside an infinity"),
        pytest.param([1.0, 2.0], [1.0, np.nan], (5.0, math.inf), id="NaN in one"),
        pytest.param([1.0, np.inf], [1.0, -np.inf], (1.0, math.inf), id="infinities of other signs"),
        pytest.param([1.0, 2.0], [1.0, 2.0, 3.0], (5.0, math.inf), id="another shape"),
        pytest.param([], [], (0.0, 0.0), id="nothing"),
    ],
)
def test_energies(ours: list[float], theirs: list[float], expected: tuple[float, float]) -> None:
    reference, actual = np.array(ours, np.float32), np.array(theirs, np.float32)
    assert (layers._signal(reference), layers._error(reference, actual)) == expected


def test_half_precision_is_compared_with_single() -> None:
    half = "h = Cast<to=10>(x) c = Conv(h, w) r = Relu(c) o = Conv(r, w2) y = Cast<to=1>(o)"
    lower = {name: weights(name).astype(np.float16) for name in ("w", "w2")}
    found = compared(network(FLOAT), network(half, weights=lower))
    assert [layer.tensor for layer in found.layers] == ["x", "c", "r", "y"]
    assert all(50 < layer.sqnr_db < 100 and (layer.own_db or 0) > 50 for layer in found.layers)


FACTORS = np.geomspace(0.05, 20.0, 16).astype(np.float32)


def test_what_is_scaled_on_purpose_is_noted_and_no_fault() -> None:
    a = network(FLOAT)
    scaled = {"w": weights("w") / FACTORS[:, None, None, None], "w2": weights("w2") * FACTORS[None, :, None, None]}
    found = compared(a, network(FLOAT, weights=scaled))
    assert [layer.tensor for layer in found.layers] == ["y"]
    assert found.layers[0].own_db is not None and found.layers[0].own_db > 100
    assert {note.where for note in found.notes} == {"c", "r"}
    assert all("scaled" in note.reason for note in found.notes)


def test_what_is_scaled_on_purpose_is_known_behind_errors_that_add_up() -> None:
    """A wrong weight in front makes an error of 14 dB, beside which factors near to 1 hardly show; what is not scaled keeps its line."""
    body, given = "k = Conv(x, v) c = Conv(k, w) r = Relu(c) y = Conv(r, w2)", {"w": weights("w"), "w2": weights("w2")}
    factors = np.geomspace(0.7, 1.4, 16).astype(np.float32)
    spread = {"w": weights("w") / factors[:, None, None, None], "w2": weights("w2") * factors[None, :, None, None]}
    v = np.random.default_rng(4).normal(0.0, 0.3, (16, 16, 1, 1)).astype(np.float32)
    noise = np.random.default_rng(5).normal(0.0, 0.06, v.shape).astype(np.float32)
    found = compared(network(body, weights={**given, "v": v}), network(body, weights={**given, **spread, "v": v + noise}))
    assert {note.where for note in found.notes} == {"c", "r"}
    assert [layer.tensor for layer in found.layers] == ["k", "y"]
    assert found.layers[1].own_db is not None and found.layers[1].own_db > 100


def test_handed_the_network_scaled_alike_all_is_compared() -> None:
    a = load(network(FLOAT))
    prepare(a)
    tied = tuple(Tied(tensor=name, shape=(16, 1, 1), shifted=False) for name in ("c", "r"))
    one = Scaling(tied=tied, readers=(), free=True, loose=(), factors=tuple(map(float, FACTORS)), shifts=(), reason="test")
    b = a.clone()
    apply_scalings(b, [one])
    found = compare_layers(b, load(serialize(b)), samples(network(FLOAT)))
    assert [layer.tensor for layer in found.layers] == ["c", "r", "y"]
    assert found.notes == ()


def test_a_weight_that_is_wrong_by_a_factor_is_a_fault() -> None:
    found = compared(network(FLOAT), network(FLOAT, weights={"w": weights("w") * np.float32(1.5)}))
    assert [round(layer.own_db or 0, 3) for layer in found.layers[:1]] == [pytest.approx(6.021, abs=2e-3)]
    assert found.layers[1].own_db == math.inf
    assert found.notes == ()


# --- planted faults -------------------------------------------------------------------------------------------------------


class Digits(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self) -> None:
        self.feeds = iter([{"image": image[None]} for image in load_digits().calibration[:8]])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


@cache
def ours() -> bytes:
    digits = load_digits()
    return serialize(zp.quantize(digits.model, data=digits.calibration[:32], target="onnxruntime", effort="fast", evaluate=False).model)


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path: Path = tmp_path_factory.mktemp("quantized") / "digits.onnx"
    quantize_static(load_digits().model, path, Digits())
    return path.read_bytes()


def planted(content: bytes, tensor: str, factor: float) -> onnx.ModelProto:
    model = onnx.load_from_string(content)
    found = next(value for value in model.graph.initializer if value.name == tensor)
    found.CopyFrom(numpy_helper.from_array((numpy_helper.to_array(found) * np.float32(factor)).astype(np.float32), tensor))
    return model


def scales(content: bytes, *, of_weights: bool) -> Mapping[str, str]:
    """Scale by the name of the weight, or of the tensor that the pair codes."""
    graph = onnx.load_from_string(content).graph
    stored = {tensor.name: len(tensor.dims) for tensor in graph.initializer}
    if of_weights:
        return {n.input[0]: n.input[1] for n in graph.node if n.op_type == "DequantizeLinear" and stored.get(n.input[0], 0) > 1}
    return {node.input[0]: node.input[1] for node in graph.node if node.op_type == "QuantizeLinear" and node.input[0] not in stored}


def worst(content: bytes, tensor: str, factor: float) -> str:
    digits = load_digits()
    data = open_data(digits.test[:4], input_infos(load(digits.model)))
    found = compare_layers(load(digits.model), load(planted(content, tensor, factor)), data).layers
    return min(found, key=lambda layer: layer.own_db or 0.0).node


CONVS = ("stem", "stage1.first", "stage1.second", "stage2.first", "stage2.second", "stage2.shortcut")


@pytest.mark.parametrize("layer", CONVS)
def test_a_wrong_weight_of_ours_is_found(layer: str) -> None:
    scale = next(scale for weight, scale in scales(ours(), of_weights=True).items() if weight.startswith(layer))
    assert worst(ours(), scale, 1.5) == f"{layer}.conv"


@pytest.mark.parametrize("layer", CONVS)
def test_a_wrong_weight_of_another_tool_is_found(others: bytes, layer: str) -> None:
    scale = next(scale for weight, scale in scales(others, of_weights=True).items() if weight.startswith(f"{layer}.conv"))
    assert worst(others, scale, 1.5) == f"{layer}.conv"


@pytest.mark.parametrize(("factor"), [4.0, 0.25], ids=["too wide", "too narrow"])
@pytest.mark.parametrize("tensor", ["stem.relu", "stage1.second.conv", "stage2.relu"])
def test_a_wrong_scale_of_ours_is_found(tensor: str, factor: float) -> None:
    assert worst(ours(), scales(ours(), of_weights=False)[tensor], factor) == tensor


@pytest.mark.parametrize(
    ("scale", "zero", "told"),
    [
        pytest.param(0.02, np.uint8(0), "", id="as far as the values"),
        pytest.param(0.2, np.uint8(0), "12", id="ten times as far"),
        pytest.param(0.4, np.int8(0), "12", id="ten times as far, half of the codes unused"),
        pytest.param(0.001, np.uint8(0), "", id="not as far"),
    ],
)
def test_codes_that_reach_too_far_are_noted(scale: float, zero: Any, told: str) -> None:
    data = np.abs(RANDOM) / np.abs(RANDOM).max() * np.float32(4.25)
    a = network("r = Relu(x) y = Conv(r, w2)")
    b = network(
        "r = Relu(x) q = QuantizeLinear(r, f, n) d = DequantizeLinear(q, f, n) y = Conv(d, w2)", weights={"f": np.float32(scale), "n": zero}
    )
    found = [note.reason for note in compared(a, b, data).notes]
    assert found == ([f"its codes in the other network reach {told}.0 times as far as its values do here"] if told else [])


def test_progress_counts_samples() -> None:
    told: list[tuple[str, int, int]] = []
    compare_layers(load(network(FLOAT)), load(network(FLOAT)), samples(network(FLOAT)), progress=lambda *step: told.append(step))
    assert told == [("comparing layers", done, 5) for done in range(1, 6)]


def test_progress_counts_the_samples_of_each_part(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[tuple[str, int, int]] = []
    monkeypatch.setattr(layers, "MOST_BYTES", 1)
    compare_layers(load(network(FLOAT)), load(network(FLOAT)), samples(network(FLOAT)), progress=lambda *step: told.append(step))
    assert told == [("comparing layers", done, 15) for done in range(1, 16)]
