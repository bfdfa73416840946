from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx.parser import parse_model

from zeropoint.errors import ModelError, RecipeError
from zeropoint.runtime import open_runtime
from zeropoint.runtime.onnxruntime import CPU, Optimization, Session, provider_name, write_optimized

Array = np.ndarray[Any, Any]
X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
X.flags.writeable = False
THREE_OUTPUTS = "z = Relu(x) a = Neg(x) m = Identity(z)"


def network(nodes: str, outputs: str = "float[N, 4] y", inputs: str = "float[N, 4] x") -> bytes:
    return parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net ({inputs}) => ({outputs}) {{ {nodes} }}').SerializeToString()


def three_outputs() -> bytes:
    return network(THREE_OUTPUTS, "float[N, 4] z, float[N, 4] a, float[N, 4] m")


@pytest.mark.parametrize("optimize", ["all", "basic", "none"])
@pytest.mark.parametrize("threads", [0, 1])
def test_outputs_come_by_name(optimize: Optimization, threads: int) -> None:
    session = Session(three_outputs(), optimize=optimize, threads=threads)
    assert session.outputs == ("z", "a", "m")
    found = session.run({"x": X})
    assert list(found) == ["z", "a", "m"]
    for name, expected in {"z": np.maximum(X, 0), "a": -X, "m": np.maximum(X, 0)}.items():
        np.testing.assert_array_equal(found[name], expected, strict=True)


@pytest.mark.parametrize("names", [["a"], ["m", "z"], []], ids=str)
def test_only_the_outputs_asked_for_come(names: list[str]) -> None:
    found = Session(three_outputs()).run({"x": X}, names)
    assert list(found) == names
    for name in names:
        np.testing.assert_array_equal(found[name], {"z": np.maximum(X, 0), "m": np.maximum(X, 0), "a": -X}[name])


def test_opens_files_as_well_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network("y = Neg(x)"))
    np.testing.assert_array_equal(Session(path).run({"x": X})["y"], -X)


def test_results_outlive_the_next_run() -> None:
    session = Session(network("y = Neg(x)"))
    first = session.run({"x": X})["y"]
    session.run({"x": 2 * X})
    np.testing.assert_array_equal(first, -X)


CONSTANTS = "c = Constant<value = float {1.41421356}>() o = Constant<value = float {1}>() h = Constant<value = float {0.5}>()"
GELU = f"{CONSTANTS} a = Div(x, c) b = Erf(a) d = Add(b, o) e = Mul(x, d) y = Mul(e, h)"
SCALED = (
    "w = Constant<value = float[1, 4] {0.1, 0.2, 0.3, 0.7}>() v = Constant<value = float[4, 4] "
    "{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}>() i = Identity(v) m = Mul(x, w) a = Mul(m, w) y = MatMul(a, i)"
)


def test_optimizing_fuses_and_not_optimizing_does_not() -> None:
    """Fused to one Gelu, these five operators round otherwise."""
    model = network(GELU)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = np.linspace(-3, 3, 4000, dtype=np.float32).reshape(1000, 4)
    expected = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    for level in ("none", "basic"):
        np.testing.assert_array_equal(Session(model, optimize=level).run({"x": x})["y"], expected)
    fused = Session(model).run({"x": x})["y"]
    assert not np.array_equal(fused, expected)
    np.testing.assert_allclose(fused.astype(np.float64), expected, rtol=0, atol=4 * float(np.spacing(np.float32(3))))


OPTIONS: dict[str, dict[str, Any]] = {
    "threads": {"threads": 2},
    "single_run": {"single_run": True},
    "plan_memory": {"plan_memory": False},
    "provider": {"provider": CPU},
}
SQUARE = np.random.default_rng(0).normal(0, 1, (40, 40)).astype(np.float32)


def with_weights_elsewhere() -> bytes:
    """A network that says of its weights `w` that they lie in a file."""
    model = onnx.load_from_string(network("a = MatMul(x, w) y = Relu(a)", "float[N, 40] y", "float[N, 40] x"))
    tensor = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=SQUARE.shape, data_location=onnx.TensorProto.EXTERNAL)
    for key, value in (("location", "weights"), ("offset", "0"), ("length", str(SQUARE.nbytes))):
        tensor.external_data.add(key=key, value=value)
    model.graph.initializer.append(tensor)
    return model.SerializeToString()


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_how_a_network_is_run_changes_no_bit(options: dict[str, Any]) -> None:
    x = np.random.default_rng(1).normal(0, 1, (3, 40)).astype(np.float32)
    model = with_weights_elsewhere()
    if "single_run" in options:  # the weights are inputs then
        proto = onnx.load_from_string(model)
        del proto.graph.initializer[:]
        proto.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, SQUARE.shape))
        model = proto.SerializeToString()
    expected = Session(with_weights_elsewhere(), weights={"w": SQUARE}, threads=1).run({"x": x})["y"]
    np.testing.assert_array_equal(Session(model, weights={"w": SQUARE}, **options).run({"x": x})["y"], expected)
    np.testing.assert_allclose(expected.astype(np.float64), np.maximum(x.astype(np.float64) @ SQUARE, 0), rtol=0, atol=1e-5)


def test_the_network_is_written_as_it_is_run_and_computes_the_same_bits(tmp_path: Path) -> None:
    """Its large weights lie in a file beside it."""
    x = np.random.default_rng(1).normal(0, 1, (3, 40)).astype(np.float32)
    write_optimized(with_weights_elsewhere(), tmp_path / "o.onnx", weights={"w": SQUARE})
    assert {path.name for path in tmp_path.iterdir()} == {"o.onnx", "o.onnx.data"}
    expected = Session(with_weights_elsewhere(), weights={"w": SQUARE}).run({"x": x})["y"]
    np.testing.assert_array_equal(Session(tmp_path / "o.onnx", optimize="none").run({"x": x})["y"], expected)


def test_fusions_show_in_the_network_that_is_written(tmp_path: Path) -> None:
    write_optimized(network(GELU), tmp_path / "o.onnx", weights={})
    assert [node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node] == ["Gelu"]


def test_what_cannot_be_loaded_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\AONNX Runtime cannot load the model: \S[^\n]*\Z"):
        write_optimized(network("y = NoSuchOperator(x)"), tmp_path / "o.onnx", weights={})


# --- providers -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["cpu", "CPU", "CPUExecutionProvider", "Cpu"])
def test_a_provider_goes_by_a_short_name_or_its_own(text: str) -> None:
    assert provider_name(text) == CPU


@pytest.mark.parametrize("text", ["cuda", "tensorrt", "", "cpus"])
def test_a_provider_that_is_not_here_is_refused_with_those_that_are(text: str) -> None:
    if text == "cuda" and "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(RecipeError, match=rf"^provider: found '{text}', expected one of .*\bcpu\b.*which this onnxruntime has"):
        provider_name(text)


def test_every_provider_that_is_offered_has_its_name() -> None:
    offered = onnxruntime.get_available_providers()
    assert [provider_name(name.removesuffix("ExecutionProvider").lower()) for name in offered] == offered


def test_a_session_runs_on_the_provider_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, str]]] = []
    real = onnxruntime.InferenceSession

    def spy(source: object, options: object, *, providers: list[tuple[str, dict[str, str]]], enable_fallback: int) -> object:
        asked.extend(providers)
        assert not enable_fallback
        return real(source, options, providers=[CPU])

    monkeypatch.setattr(onnxruntime, "InferenceSession", spy)
    Session(network("y = Neg(x)"))
    assert asked == [(CPU, {})]
    asked.clear()
    with pytest.raises(ModelError, match=r"^ONNX Runtime cannot run the model on CUDAExecutionProvider, which failed to start"):
        Session(network("y = Neg(x)"), provider="CUDAExecutionProvider")
    full = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}
    assert asked == [("CUDAExecutionProvider", full), (CPU, {})]  # full precision, and the CPU for what that cannot


# --- errors ----------------------------------------------------------------------------------------------------------------

UNLOADABLE = {
    "nothing": b"",
    "text": b"hello, world",
    "cut off": three_outputs()[:60],
    "unknown operator": network("y = NoSuchOperator(x)"),
    "types that do not fit": network("c = Cast<to = 7>(x) y = Add(x, c)"),
}


@pytest.mark.parametrize("model", UNLOADABLE.values(), ids=UNLOADABLE)
def test_what_cannot_be_loaded_is_an_error_of_one_line(model: bytes) -> None:
    with pytest.raises(ModelError, match=r"\AONNX Runtime cannot load the model: \S[^\n]*\Z"):
        Session(model)


def test_the_error_says_what_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="NoSuchOperator"):
        Session(network("y = NoSuchOperator(x)"))
    with pytest.raises(ModelError, match=re.escape(str(tmp_path / "no.onnx"))):
        Session(tmp_path / "no.onnx")


FEEDS: dict[str, tuple[dict[str, Array], str]] = {
    "none": ({}, "no input: .*'x'"),
    "another name": ({"k": X}, r"k float32 \(2, 4\): .*'x'"),
    "one too many": ({"x": X, "k": X}, r"x float32 \(2, 4\), k float32 \(2, 4\): .*k"),
    "another type": ({"x": X.astype(np.float64)}, r"x float64 \(2, 4\): .*tensor\(float\)"),
    "another shape": ({"x": X[:, :3]}, r"x float32 \(2, 3\): .*x"),
    "another rank": ({"x": X[0]}, r"x float32 \(4,\): .*Got: 1 Expected: 2"),
}


@pytest.mark.parametrize(("feed", "message"), FEEDS.values(), ids=FEEDS)
def test_a_feed_that_does_not_fit_is_an_error_of_one_line(feed: dict[str, Array], message: str) -> None:
    with pytest.raises(ModelError, match=rf"\AONNX Runtime cannot run the model on {message}[^\n]*\Z"):
        Session(network("y = Neg(x)")).run(feed)


def test_an_output_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"\AONNX Runtime cannot run the model on x float32 \(2, 4\): .*no such output\Z"):
        Session(network("y = Neg(x)")).run({"x": X}, ["no such output"])


def test_a_run_that_fails_is_an_error_of_one_line() -> None:
    with pytest.raises(ModelError, match=r"\AONNX Runtime cannot run the model on i int64 \(1,\): .*Gather[^\n]*\Z"):
        Session(network("w = Constant<value = float[2] {1, 2}>() y = Gather(w, i)", "float[1] y", "int64[1] i")).run({"i": np.array([7])})


def test_a_session_after_an_error_still_runs() -> None:
    session = Session(network("y = Neg(x)"))
    with pytest.raises(ModelError):
        session.run({})
    np.testing.assert_array_equal(session.run({"x": X})["y"], -X)


def test_runtimes_open_by_name() -> None:
    session = open_runtime("onnxruntime", network("y = Neg(x)"))
    assert session is not None
    np.testing.assert_array_equal(session.run({"x": X})["y"], -X)


def test_a_runtime_that_is_not_here_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeropoint.runtime.openvino.is_installed", lambda: False)
    assert open_runtime("openvino", network("y = Neg(x)")) is None
    assert open_runtime("tensorrt", network("y = Neg(x)")) is None
