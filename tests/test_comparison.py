from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.graph.networks import network

import zeropoint as zp
from zeropoint.comparison import Comparison, OperatorDifference, _enters, decibels_text, verdict
from zeropoint.errors import DataError, ModelError, RecipeError
from zeropoint.evaluate.codes import Codes, CodesDifference
from zeropoint.evaluate.layers import LayerComparison, LayerFidelity

Array = np.ndarray[Any, Any]
RANDOM = np.random.default_rng(0).normal(0.0, 1.0, (12, 16, 8, 8)).astype(np.float32)
FLOAT = "c = Conv(x, w) r = Relu(c) p = GlobalAveragePool(r) y = Flatten(p)"
CODED = (
    "xq = QuantizeLinear(x, s, z) xd = DequantizeLinear(xq, s, z) wd = DequantizeLinear<axis=0>(wc, ws, wz) "
    "bd = DequantizeLinear<axis=0>(bc, bs) c = Conv(xd, wd, bd) r = Relu(c) "
    "rq = QuantizeLinear(r, rs, rz) rd = DequantizeLinear(rq, rs, rz) p = GlobalAveragePool(rd) y = Flatten(p)"
)
CODES: dict[str, Any] = {
    "s": np.float32(0.05),
    "z": np.int8(-3),
    "rs": np.float32(0.02),
    "rz": np.uint8(0),
    "wc": np.random.default_rng(1).integers(-127, 128, (16, 16, 1, 1)).astype(np.int8),
    "ws": np.linspace(0.001, 0.002, 16).astype(np.float32),
    "wz": np.zeros(16, np.int8),
    "bc": np.arange(16, dtype=np.int32),
    "bs": np.full(16, 0.001, np.float32),
}


def coded(**other: Any) -> onnx.ModelProto:
    return network(CODED, weights=CODES | other)


def compared(a: onnx.ModelProto, b: onnx.ModelProto, **options: Any) -> Comparison:
    return zp.compare(a, b, data=options.pop("data", RANDOM), **options)


def test_what_one_network_alone_codes() -> None:
    found = compared(network(FLOAT), coded())
    expected = {
        ("x", "activation"): Codes(format="int8", granularity="tensor", scale=float(np.float32(0.05)), zero_point=-3),
        ("r", "activation"): Codes(format="uint8", granularity="tensor", scale=float(np.float32(0.02)), zero_point=0),
        ("c", "weight"): Codes(format="int8", granularity="channel 0", scale=float(np.float32(0.002)), zero_point=0),
        ("c", "bias"): Codes(format="int32", granularity="channel 0", scale=float(np.float32(0.001)), zero_point=0),
    }
    assert {(one.tensor, one.role): one.b for one in found.codes} == expected
    assert {(one.a, one.scale_ratio) for one in found.codes} == {(None, None)}
    assert (found.a.quantized, found.b.quantized) == (False, True)
    assert found.operators == (OperatorDifference("DequantizeLinear", 0, 4), OperatorDifference("QuantizeLinear", 0, 2))


def test_alike_codes_are_no_difference() -> None:
    found = compared(coded(), coded())
    assert found.codes == ()
    assert found.operators == ()
    assert verdict(found) == "no difference"


@pytest.mark.parametrize(
    ("changed", "tensor", "ratio"),
    [
        pytest.param({"rs": np.float32(0.08)}, "r", 4.0, id="an activation"),
        pytest.param({"ws": CODES["ws"] * np.where(np.arange(16) == 5, 0.5, 1.0).astype(np.float32)}, "c", 0.5, id="a channel of a weight"),
        pytest.param({"rz": np.uint8(2)}, "r", 1.0, id="the zero point alone"),
        pytest.param({"bs": CODES["bs"] * np.float32(3.0)}, "c", 3.0, id="a bias"),
    ],
)
def test_other_codes_of_a_tensor(changed: dict[str, Any], tensor: str, ratio: float) -> None:
    found = compared(coded(), coded(**changed)).codes
    assert [(one.tensor, one.scale_ratio) for one in found] == [(tensor, pytest.approx(ratio))]


def test_tensors_of_other_names_are_the_same() -> None:
    b = coded()
    names = {"c": "/new/conv", "r": "/new/relu", "wc": "k", "ws": "k_scale", "x": "image"}
    for node in b.graph.node:
        node.name = f"node of {node.name}"
        for tensors in (node.input, node.output):
            tensors[:] = [names.get(name, name) for name in tensors]
    for tensor in (*b.graph.initializer, *b.graph.input):
        tensor.name = names.get(tensor.name, tensor.name)
    found = compared(coded(), b)
    assert found.codes == ()
    assert [str(note) for note in found.notes] == ["x: this input is called 'image' in the other network"]


def test_where_the_error_enters() -> None:
    found = compared(coded(), coded(ws=CODES["ws"] * np.float32(1.5)))
    assert found.enters is not None
    assert found.enters == found.ranked[0]
    assert (found.enters.node, found.enters.own_db) == ("c", pytest.approx(6.02, abs=0.01))
    assert verdict(found).startswith("the error enters at c (Conv): 6.0 dB by itself; the outputs are at ")


def test_outputs_are_compared_by_place_where_their_names_differ() -> None:
    b = network(FLOAT.replace("y =", "logits ="), outputs="logits")
    found = compared(network(FLOAT), b)
    assert [output.output for output in found.fidelity] == ["y"]
    assert found.fidelity[0].sqnr_db == math.inf
    assert [str(note) for note in found.notes] == ["y: this output is called 'logits' in the other network"]


def test_an_output_of_one_network_alone_is_noted() -> None:
    found = compared(network(FLOAT), network(FLOAT, outputs="y, r"))
    assert [output.output for output in found.fidelity] == ["y"]
    assert [str(note) for note in found.notes] == ["r: this output was not compared: only one of the networks has it"]


def test_labels_give_accuracy() -> None:
    labels = np.arange(12) % 16
    found = compared(network(FLOAT), coded(), labels=labels).fidelity[0]
    assert found.float_accuracy is not None
    assert found.accuracy is not None


def test_samples_are_counted() -> None:
    found = compared(network(FLOAT), coded(), samples=6, layer_samples=2)
    assert found.evaluation_data.startswith("6 of 12 samples")
    assert found.layer_samples == 2
    other = compared(network(FLOAT), coded(), samples=6, layer_samples=6)
    assert other.fidelity == found.fidelity
    assert [layer.sqnr_db for layer in other.layers] != [layer.sqnr_db for layer in found.layers]


@pytest.mark.parametrize(("asked", "taken"), [(2, 4), (9, 8)], ids=["at least one batch", "no part of one"])
def test_a_fixed_batch_takes_as_many_samples_as_fill_it(asked: int, taken: int) -> None:
    a = network(FLOAT, inputs="float[4,16,8,8] x")
    assert compared(a, a, samples=12, layer_samples=asked).layer_samples == taken


def test_random_data_is_said_first() -> None:
    found = compared(network(FLOAT), coded(), data="random", samples=4, seed=3)
    assert verdict(found).startswith("ONLY A TRIAL: on random numbers, not real data; ")
    assert [note.kind for note in found.notes] == ["warning"]
    assert found.fidelity != compared(network(FLOAT), coded(), data="random", samples=4, seed=4).fidelity


def test_sizes_are_those_of_the_files(tmp_path: Path) -> None:
    for name, model in (("a.onnx", network(FLOAT)), ("b.onnx", coded())):
        onnx.save(model, tmp_path / name)
    found = zp.compare(tmp_path / "a.onnx", tmp_path / "b.onnx", data=RANDOM)
    assert [found.a.bytes, found.b.bytes] == [(tmp_path / name).stat().st_size for name in ("a.onnx", "b.onnx")]
    assert (found.a.file, found.a.opset, found.a.operators["Conv"]) == (str(tmp_path / "a.onnx"), 13, 1)


@pytest.mark.parametrize(
    ("b", "options", "error", "message"),
    [
        pytest.param(
            network("c = Add(x, t) y = Relu(c)", inputs="float[1,16,8,8] x, float[1] t"), {}, ModelError, "found the inputs", id="n"
        ),
        pytest.param(network("y = Relu(x)", inputs="float[1,16,4,4] x"), {}, ModelError, "found float .1,16,4,4.", id="input shape"),
        pytest.param(network("y = Cast<to=1>(x)", inputs="int64[1,16,8,8] x"), {}, ModelError, "found int64", id="input type"),
        pytest.param(network("a = Relu(x) b = Neg(x)", outputs="a, b"), {}, ModelError, "found the outputs 'a', 'b'", id="outputs"),
        pytest.param(network(FLOAT), {"data": None}, DataError, "data: found none", id="no data"),
        pytest.param(network(FLOAT), {"samples": 0}, RecipeError, "samples: found 0", id="no samples"),
        pytest.param(network(FLOAT), {"layer_samples": 0}, RecipeError, "layer_samples: found 0", id="no layer samples"),
    ],
)
def test_refused(b: onnx.ModelProto, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        compared(network(FLOAT), b, **options)


def test_an_infinitely_wrong_output_is_said() -> None:
    b = network(FLOAT.replace("y =", "f =") + " o = Sub(f, f) y = Div(f, o)")
    said = verdict(compared(network(FLOAT), b))
    assert said.startswith("12 samples of y CANNOT BE COMPARED")
    assert "wrong" not in said


def test_an_output_that_is_zero_in_one_network_alone_is_said() -> None:
    a = network(FLOAT.replace("y =", "f =") + " y = Sub(f, f)")
    said = verdict(compared(a, network(FLOAT)))
    assert said.startswith("y IS NOT ZERO, as it is in the first network; ")
    assert "wrong" not in said


@pytest.mark.parametrize(
    ("outputs", "of_b", "uncompared", "said"),
    [
        pytest.param("y", "y, r", ("r",), "1 OUTPUT WAS NOT COMPARED; no difference in the others", id="of one network alone"),
        pytest.param("bool e, y", "bool e, y", ("e",), "1 OUTPUT WAS NOT COMPARED; no difference in the others", id="no numbers"),
        pytest.param("bool e, y", "bool e, y, r", ("r", "e"), "2 OUTPUTS WERE NOT COMPARED; no difference in the others", id="both"),
        pytest.param(
            "bool e", "bool e", ("e",), "NO OUTPUT WAS COMPARED; no layer that was compared adds an error by itself", id="none is left"
        ),
    ],
)
def test_outputs_that_were_not_compared_are_said_first(outputs: str, of_b: str, uncompared: tuple[str, ...], said: str) -> None:
    body = FLOAT + " h = Sub(y, y) e = Equal(h, h)"
    found = compared(network(body, outputs=outputs), network(body, outputs=of_b))
    assert found.uncompared == uncompared
    assert verdict(found) == said
    assert [note.where for note in found.notes if note.kind == "warning"] == list(uncompared)


def test_nothing_compared_is_no_equality() -> None:
    assert verdict(replace(compared(coded(), coded()), fidelity=(), layers=())) == "NOTHING WAS COMPARED"


def test_the_error_enters_where_it_is_known_to() -> None:
    """A layer that reaches too far leads the table, but adds no error that is known."""
    found = compared(coded(), coded(ws=CODES["ws"] * np.float32(1.5)))
    wide = LayerFidelity(node="wide", operator="Relu", tensor="w", other="w", sqnr_db=9.0, own_db=None, reach=4.0)
    assert _enters(LayerComparison((wide, *found.layers), ())) == found.enters
    assert replace(found, layers=(wide, *found.layers)).ranked[0] == wide


@pytest.mark.parametrize(("value", "text"), [(6.14, "6.1 dB"), (math.inf, "exact"), (-math.inf, "wrong"), (math.nan, "wrong"), (None, "-")])
def test_decibels_text(value: float | None, text: str) -> None:
    assert decibels_text(value) == text


def test_difference_is_a_value() -> None:
    one = CodesDifference(tensor="x", role="activation", a=None, b=None, scale_ratio=None)
    assert hash(one) == hash(CodesDifference(tensor="x", role="activation", a=None, b=None, scale_ratio=None))


def test_codes_that_reach_too_far_come_first_whatever_others_add() -> None:
    def layer(node: str, own_db: float | None, reach: float | None) -> LayerFidelity:
        return LayerFidelity(node=node, operator="Relu", tensor=node, other=node, sqnr_db=9.0, own_db=own_db, reach=reach)

    layers = (layer("unknown", None, None), layer("hard", 17.0, 1.2), layer("wide", 37.0, 4.0), layer("easy", 50.0, 2.9))
    found = replace(compared(coded(), coded()), layers=layers)
    assert [one.node for one in found.ranked] == ["wide", "hard", "easy", "unknown"]
    found = replace(found, enters=found.ranked[0])
    assert verdict(found).startswith("the error enters at wide (Relu, whose codes reach 4.0 times too far): 37.0 dB by itself")
