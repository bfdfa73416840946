from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from tests.graph.networks import QUICK, Array, Feed, network, observed, place

from zeropoint.demo import load_digits
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare
from zeropoint.graph.taps import Taps
from zeropoint.graph.trouble import KINDS, trouble_spots
from zeropoint.graph.trouble.curves import curve_of
from zeropoint.graph.trouble.scene import written
from zeropoint.notes import Note
from zeropoint.plan import Plan
from zeropoint.planner import make_plan
from zeropoint.refine.bias_correction import channel_axes
from zeropoint.targets import get_target

WIDE, DEEP = 2048, 512  # channels
ADVICE = re.compile(r"; exclude (.*) to keep (it|all of that) in float$")
RNG = np.random.default_rng(0)


def normal(*shape: int, scale: float = 1.0) -> Array:
    return RNG.normal(0.0, scale, shape).astype(np.float32)


def outlying(*shape: int, times: float = 300.0, at: int = 3) -> Array:
    """Numbers of which those at one index of the last axis are larger."""
    array = normal(*shape)
    array[..., at] = times * (1.0 + 0.1 * np.abs(array[..., at]))
    return array


@dataclass(frozen=True, kw_only=True)
class Case:
    """A network, what it is fed, and one in which that kind of trouble is not met: other weights or another feed."""

    body: str
    inputs: str
    weights: Mapping[str, object]
    feed: Feed
    says: str
    where: str
    fine_weights: Mapping[str, object] | None = None
    fine_feed: Feed | None = None
    targets: tuple[str, ...] = ("tensorrt", "onnxruntime", "openvino")
    outputs: str = "y"


def told(model: onnx.ModelProto, feed: Feed, target: str, *, exclude: Sequence[str] = (), means: bool = True) -> tuple[Plan, list[Note]]:
    """The plan for a network that saw one feed, and the notes on its trouble spots."""
    prepared, facts, placement = place(model, target, exclude=exclude)
    axes = channel_axes(prepared, placement, facts) if means else ()
    statistics = observed(prepared, facts, Taps(tuple(site.tensor for site in placement.activations), axes), [feed])
    plan = make_plan(prepared, placement, statistics.tensors, get_target(target), QUICK)
    return plan, list(trouble_spots(prepared, plan, target=get_target(target), facts=facts, statistics=statistics))


def advised(note: Note) -> list[str]:
    found = ADVICE.search(note.reason)
    assert found is not None, note.reason
    return list(ast.literal_eval(f"[{found[1]}]"))


ROWS = f"float[32,{WIDE}] x"
LAYERS = "h = MatMul(a, w) r = Relu(h) y = MatMul(r, v)"
DENSE = {"w": normal(WIDE, 16, scale=0.05), "v": (16, 16)}
GAIN = outlying(WIDE)
POOLED = "a = Conv(x, w) p = GlobalAveragePool(a) q = Conv(p, s) t = Relu(q) e = Conv(t, u) g = Sigmoid(e) m = Mul(a, g)"
STEM = np.ascontiguousarray(outlying(16, 1024, times=60.0).T)[:, :, None, None]
SQUEEZED = {"w": STEM, "s": normal(16, 1024, 1, 1, scale=0.05), "u": (1024, 16, 1, 1), "z": normal(16, 1024, 1, 1, scale=0.05)}

CASES = {
    "detection head": Case(
        body="b = Conv(x, w) s = Conv(x, v) c = Concat<axis = 1>(b, s) n = Conv(c, z) y = Sigmoid(n)",
        inputs="float[1,16,8,8] x",
        weights={"w": normal(16, 16, 1, 1, scale=50.0), "v": normal(16, 16, 1, 1, scale=0.1), "z": (16, 32, 1, 1)},
        feed={"x": np.abs(normal(1, 16, 8, 8))},
        fine_weights={"w": normal(16, 16, 1, 1, scale=0.3), "v": normal(16, 16, 1, 1, scale=0.1), "z": (16, 32, 1, 1)},
        says=r"Concat of what differs in size: (values|means of channels) of 'b' reach \d+, and of 's' \d\.?\d*, both in steps of \d",
        where="c",
    ),
    "softmax": Case(
        body="a = Softmax(x) y = MatMul(a, v)",
        inputs="float[1,32,64] x, float[1,64,32] v",
        weights={},
        feed={"x": normal(1, 32, 64, scale=2.5), "v": normal(1, 64, 32)},
        fine_feed={"x": normal(1, 32, 64, scale=0.1), "v": normal(1, 64, 32)},
        says=r"Softmax: \d+% of its values round to 0, which hold \d+\.\d% of the sum",
        where="a",
        targets=("tensorrt",),
    ),
    "squeeze-excite": Case(
        body=f"{POOLED} n = Conv(m, z) y = Sigmoid(n)",
        inputs="float[1,16,8,8] x",
        weights=SQUEEZED,
        feed={"x": np.abs(normal(1, 16, 8, 8))},
        fine_weights={**SQUEEZED, "w": normal(1024, 16, 1, 1)},
        says="squeeze-excite, where a gate scales whole channels: ('.*'|the product) has few codes",
        where="m",
    ),
    "normalization": Case(
        body=f"a = LayerNormalization(x, g, o) {LAYERS}",
        inputs=ROWS,
        weights={**DENSE, "g": GAIN, "o": (WIDE,)},
        feed={"x": normal(32, WIDE)},
        fine_weights={**DENSE, "g": normal(WIDE), "o": (WIDE,)},
        says=r"LayerNorm: its largest value, \d+, is \d+ times the rms",
        where="a",
    ),
    "activation": Case(
        body=f"f = Add(x, o) s = Sigmoid(f) a = Mul(f, s) {LAYERS}",
        inputs=ROWS,
        weights={**DENSE, "o": np.maximum(GAIN, 0.0)},
        feed={"x": normal(32, WIDE)},
        fine_weights={**DENSE, "o": (WIDE,)},
        says=r"SiLU: its largest value, \d+, is \d\d times the rms, and channel 3 averages \d+ where half of them stay within 0\.\d+ of 0",
        where="a",
    ),
    "first layer": Case(
        body="h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)",
        inputs=ROWS,
        weights=DENSE,
        feed={"x": outlying(32, WIDE)},
        fine_feed={"x": normal(32, WIDE)},
        says=r"the first layer, 99\.2% of the multiply-accumulates: its 'x' has few codes for most of its values",
        where="h",
    ),
    "last layer": Case(
        body="a = Add(x, o) h = MatMul(a, w) y = Sigmoid(h)",
        inputs=ROWS,
        weights={**DENSE, "o": GAIN},
        feed={"x": normal(32, WIDE)},
        fine_weights={**DENSE, "o": (WIDE,)},
        says=r"the last layer, 100\.0% of the multiply-accumulates: its 'a' has few codes for most of its values",
        where="h",
    ),
    "attention": Case(
        body="y = MatMul(x, v)",
        inputs=f"float[1,32,{WIDE}] x, float[1,{WIDE},32] v",
        weights={},
        feed={"x": outlying(1, 32, WIDE), "v": normal(1, WIDE, 32)},
        fine_feed={"x": normal(1, 32, WIDE), "v": normal(1, WIDE, 32)},
        says=r"a MatMul of two activations, with ranges .* to .* and .* to .*: 'x' has few codes",
        where="y",
    ),
    "outlying channel": Case(
        body=f"a = Add(x, o) {LAYERS}",
        inputs=ROWS,
        weights={**DENSE, "o": GAIN},
        feed={"x": normal(32, WIDE)},
        fine_weights={**DENSE, "o": (WIDE,)},
        says=r"an outlying channel: channel 3 averages 3\d\d where half of them stay within 0\.\d+ of 0",
        where="a",
    ),
}
OPSET = 17
every_case = pytest.mark.parametrize(
    ("case", "target"), [pytest.param(case, target, id=f"{name}, {target}") for name, case in CASES.items() for target in case.targets]
)


def built(case: Case, *, fine: bool = False) -> tuple[onnx.ModelProto, Feed]:
    weights = case.fine_weights if fine and case.fine_weights is not None else case.weights
    feed = case.fine_feed if fine and case.fine_feed is not None else case.feed
    return network(case.body, inputs=case.inputs, outputs=case.outputs, weights=weights, opset=OPSET), feed


@every_case
def test_a_spot_is_told_with_where_and_what_was_done(case: Case, target: str) -> None:
    plan, notes = told(*built(case), target)
    [note] = [note for note in notes if re.match(case.says, note.reason)]
    assert note.where == case.where
    assert note.kind == "network"
    shown = re.search(r"one scale for (\S+) to (\S+) leaves ('.*' about )?-?[\d.]+ dB", note.reason)
    assert shown is not None
    assert any(tuple(map(written, entry.range)) == (shown[1], shown[2]) for entry in plan.entries if entry.range)
    assert len(notes) <= 2


@every_case
def test_what_is_no_trouble_is_not_told(case: Case, target: str) -> None:
    assert told(*built(case, fine=True), target)[1] == []


@every_case
def test_following_the_advice_takes_the_note_away(case: Case, target: str) -> None:
    model, feed = built(case)
    plan, notes = told(model, feed, target)
    [note] = [note for note in notes if re.match(case.says, note.reason)]
    after, left = told(model, feed, target, exclude=advised(note))
    assert len(after.entries) < len(plan.entries)
    assert not [note for note in left if re.match(case.says, note.reason) and note.where == case.where]


def test_each_kind_has_a_case() -> None:
    assert len(CASES) == len(KINDS) + 1  # first and last are of one kind


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_parts_that_were_not_observed_are_judged_by_the_means_of_their_channels(target: str) -> None:
    model, feed = built(CASES["detection head"])
    assert [note.where for note in told(model, feed, target)[1]] == ["c"]
    # ONNX Runtime's integer Concat reads both parts, of which TensorRT's convolution only sees the whole.
    assert [note.where for note in told(model, feed, target, means=False)[1]] == (["c"] if target == "onnxruntime" else [])


def test_zeros_of_a_mask_count_for_nothing() -> None:
    logits = normal(1, 32, 64, scale=0.1)
    logits[:, :, 20:] = -np.inf
    assert told(built(CASES["softmax"])[0], {"x": logits, "v": normal(1, 64, 32)}, "tensorrt")[1] == []


def test_what_stays_in_float_is_not_told() -> None:
    model, feed = built(CASES["normalization"])
    assert told(model, feed, "tensorrt", exclude=["MatMul"])[1] == []


# --- many places, and odd names ---------------------------------------------------------------------------------------------------


def deep(
    layers: int, weights: Mapping[str, object], rename: Callable[[str], str] = str, *, end: str = "y = Relu({})"
) -> tuple[onnx.ModelProto, Feed]:
    """A chain of layers, each a normalization and a MatMul back to its width."""
    parts = [f"n{i} = LayerNormalization({'x' if i == 0 else f'm{i - 1}'}, g, o) m{i} = MatMul(n{i}, w)" for i in range(layers)]
    model = network(" ".join([*parts, end.format(f"m{layers - 1}")]), inputs=f"float[32,{DEEP}] x", weights=weights, opset=OPSET)
    for node in model.graph.node:
        node.name = rename(node.name)
    return model, {"x": normal(32, DEEP)}


EVEN = {"g": outlying(DEEP), "o": (DEEP,), "w": normal(DEEP, DEEP, scale=0.05)}


def test_many_places_are_one_note_that_names_the_worst_and_counts_the_rest() -> None:
    model, feed = deep(6, EVEN)
    _, [note] = told(model, feed, "tensorrt")
    assert note.where in {f"n{i}" for i in range(6)}
    assert re.search(r"; the same, if less, at 'n\d', 'n\d' and 3 more; exclude 'm\*' to keep all of that in float$", note.reason)
    assert told(model, feed, "tensorrt", exclude=advised(note))[1] == []


def test_a_pattern_that_would_fit_others_is_not_advised() -> None:
    model, feed = deep(6, EVEN, end="m9 = MatMul(x, w) y = Sub({}, m9)")
    _, [note] = told(model, feed, "tensorrt")
    assert advised(note) == [note.where.replace("n", "m")]


@pytest.mark.parametrize(
    "rename",
    [
        pytest.param(lambda name: f"/block[{name}]/x*?", id="wildcards"),
        pytest.param(lambda name: f'it\'s "{name}" \\ äöü', id="quotes"),
        pytest.param(lambda name: {"m0": "MatMul"}.get(name, name), id="named as a type"),
        pytest.param(lambda name: {"m0": "*"}.get(name, name), id="a star"),
    ],
)
@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])
def test_advice_fits_that_node_alone_whatever_its_name(target: str, rename: Callable[[str], str]) -> None:
    model, feed = deep(1, {**EVEN, "v": (DEEP, 16)}, rename)
    model.graph.node.append(onnx.helper.make_node("MatMul", ["y", "v"], ["z"], name="other"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(normal(DEEP, 16), "v"))
    model.graph.output[0].name = "z"
    _, [note] = told(model, feed, target)
    assert note.where == rename("n0")
    after, left = told(model, feed, target, exclude=advised(note))
    assert left == []
    assert {reader.node for entry in after.entries if entry.role == "weight" for reader in entry.readers} == {"other"}


def test_the_demo_has_no_trouble() -> None:
    digits = load_digits()
    for target in ("tensorrt", "onnxruntime", "openvino"):
        assert told(onnx.load(digits.model), {"image": digits.calibration[:32]}, target)[1] == []


# --- curves -----------------------------------------------------------------------------------------------------------------------

HALF, ONE, SIX, THREE = (np.float32(number) for number in (0.5, 1.0, 6.0, 3.0))
NUMBERS = {"half": HALF, "one": ONE, "three": THREE, "six": SIX, "zero": np.float32(0.0), "root": np.float32(2**0.5), "many": (16, 1, 1)}
CENTRED = "c = ReduceMean<axes = [-1]>(x) d = Sub(x, c)"


@pytest.mark.parametrize(
    ("body", "name", "end"),
    [
        pytest.param("s = Sigmoid(x) y = Mul(x, s)", "SiLU", "y", id="SiLU"),
        pytest.param("s = Sigmoid(x) y = Mul(s, x)", "SiLU", "y", id="SiLU, the other way round"),
        pytest.param("t = Mul(x, many) s = Sigmoid(t) y = Mul(x, s)", "SiLU", "y", id="SiLU that is nearly GELU"),
        pytest.param("d = Div(x, root) e = Erf(d) f = Add(e, one) g = Mul(x, f) y = Mul(g, half)", "GELU", "g", id="GELU"),
        pytest.param("d = Div(x, root) e = Erf(d) f = Add(e, one) h = Mul(x, half) y = Mul(h, f)", "GELU", "y", id="GELU, halved first"),
        pytest.param("h = Mul(x, x) i = Mul(h, x) j = Add(x, i) t = Tanh(j) f = Add(t, one) y = Mul(x, f)", "GELU", "y", id="GELU by Tanh"),
        pytest.param("s = HardSigmoid(x) y = Mul(x, s)", "hard-swish", "y", id="hard-swish"),
        pytest.param("a = Add(x, three) c = Clip(a, zero, six) m = Mul(x, c) y = Div(m, six)", "hard-swish", "m", id="hard-swish by Clip"),
        pytest.param("m = HardSwish(x) n = Mul(m, many) y = Add(n, many)", "hard-swish", "m", id="hard-swish with gain and shift"),
        pytest.param(
            f"{CENTRED} s = Mul(d, d) v = ReduceMean<axes = [-1]>(s) w = Add(v, one) r = Sqrt(w) q = Div(d, r) y = Mul(q, many)",
            "LayerNorm",
            "q",
            id="LayerNorm",
        ),
        pytest.param(
            "s = Mul(x, x) v = ReduceMean<axes = [-1]>(s) w = Add(v, one) r = Sqrt(w) q = Div(x, r) y = Mul(many, q)",
            "RMSNorm",
            "q",
            id="RMSNorm",
        ),
        pytest.param("p = GlobalAveragePool(x) s = Sigmoid(p) y = Mul(x, s)", "", "", id="squeeze-excite gate"),
        pytest.param("t = Tanh(x) s = Sigmoid(x) y = Mul(t, s)", "", "", id="a gate as of an LSTM"),
        pytest.param("s = Softplus(x) t = Tanh(s) y = Mul(x, t)", "", "", id="Mish"),
        pytest.param("y = Relu(x)", "", "", id="ReLU"),
        pytest.param("y = Mul(x, x)", "", "", id="a square"),
        pytest.param("y = Div(x, x)", "", "", id="a quotient"),
    ],
)
def test_curves_are_recognised_also_written_out(body: str, name: str, end: str) -> None:
    model: ir.Model = load(network(body, weights=NUMBERS, opset=14))
    prepare(model)
    found = curve_of(model.graph.outputs[0])
    assert (found and (str(found[0].name), found[1])) == ((end, name) if name else None)
