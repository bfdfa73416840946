from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx.parser import parse_model

from zeropoint.errors import ModelError
from zeropoint.runtime import open_runtime
from zeropoint.runtime.openvino import Session, is_installed

pytest.importorskip("openvino")

Array = np.ndarray[Any, Any]
X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
X.flags.writeable = False


def network(nodes: str, outputs: str = "float[N, 4] y", inputs: str = "float[N, 4] x") -> bytes:
    return parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net ({inputs}) => ({outputs}) {{ {nodes} }}').SerializeToString()


NETWORKS = {
    "one output": ("y = Neg(x)", "float[N, 4] y"),
    "an output called after an Identity": ("a = Relu(x) y = Identity(a)", "float[N, 4] y"),
    "an output called after a Dropout": ("a = Relu(x) b = Identity(a) z = Dropout(b)", "float[N, 4] z"),
    "one value as two outputs": ("z = Relu(x) a = Identity(z)", "float[N, 4] z, float[N, 4] a"),
    "the input as an output": ("y = Identity(x)", "float[N, 4] y"),
    "a constant as an output": ("a = Constant<value = float[2] {1, 2}>() k = Identity(a) y = Neg(x)", "float[2] k, float[N, 4] y"),
    "other types": ("s = ReduceMax<keepdims = 0>(x) b = Less(x, s) i = Cast<to = 7>(x)", "float s, bool[N, 4] b, int64[N, 4] i"),
}


@pytest.mark.parametrize(("nodes", "outputs"), NETWORKS.values(), ids=NETWORKS)
def test_outputs_come_by_the_names_and_types_that_onnxruntime_gives_them(nodes: str, outputs: str) -> None:
    model = network(nodes, outputs)
    oracle = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in oracle.get_outputs()]
    session = Session(model)
    assert session.outputs == tuple(names)
    found = session.run({"x": X})
    assert list(found) == names
    for name, expected in zip(names, oracle.run(names, {"x": X}), strict=True):
        np.testing.assert_array_equal(found[name], expected, strict=True)


def test_computes_in_float32() -> None:
    """On machines with bfloat16 units, OpenVINO would take them unless it is told not to."""
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(64, 64)).astype(np.float32), rng.normal(size=(8, 64)).astype(np.float32)
    found = (
        Session(network("y = MatMul(x, w)", "float[8, 64] y", "float[8, 64] x, float[64, 64] w"))
        .run({"x": x, "w": weight})["y"]
        .astype(np.float64)
    )
    exact = x.astype(np.float64) @ weight.astype(np.float64)
    assert np.abs(found - exact).max() < 64 * float(np.spacing(np.abs(exact).max().astype(np.float32)))


def test_only_the_outputs_asked_for_come() -> None:
    found = Session(network("y = Neg(x) z = Relu(x)", "float[N, 4] y, float[N, 4] z")).run({"x": X}, ["z"])
    assert list(found) == ["z"]
    np.testing.assert_array_equal(found["z"], np.maximum(X, 0))


def test_opens_files_as_well_as_bytes(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network("y = Neg(x)"))
    np.testing.assert_array_equal(Session(path).run({"x": X})["y"], -X)


def test_results_outlive_the_next_run() -> None:
    session = Session(network("y = Neg(x)"))
    first = session.run({"x": X})["y"]
    session.run({"x": 2 * X})
    np.testing.assert_array_equal(first, -X)


UNLOADABLE = {
    "nothing": (b"", "Unable to read the model"),
    "text": (b"hello, world", "Unable to read the model"),
    "cut off": (network("y = Neg(x)")[:40], "Unable to read the model"),
    "unknown operator": (network("y = NoSuchOperator(x)"), "NoSuchOperator"),
    "shapes that do not fit": (network("w = Constant<value = float[3] {1, 2, 3}>() y = Add(x, w)"), "Add"),
}


@pytest.mark.parametrize(("model", "message"), UNLOADABLE.values(), ids=UNLOADABLE)
def test_what_cannot_be_loaded_is_an_error_of_one_line(model: bytes, message: str) -> None:
    with pytest.raises(ModelError, match=rf"\AOpenVINO cannot load the model: [^\n]*{message}[^\n]*\Z"):
        Session(model)


def test_a_missing_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"\AOpenVINO cannot load the model: [^\n]*no\.onnx[^\n]*\Z"):
        Session(tmp_path / "no.onnx")


FEEDS: dict[str, tuple[dict[str, Array], str]] = {
    "none": ({}, r"it has no 'x'; found inputs \[\], outputs \['y'\]"),
    "another name": ({"k": X}, r"it has no 'x'; found inputs \['k'\], outputs \['y'\]"),
    "one too many": ({"x": X, "k": X}, "[^\n]*k[^\n]*"),
    "another shape": ({"x": X[:, :3]}, "[^\n]*incompatible"),
    "another rank": ({"x": X[0]}, "[^\n]*incompatible"),
}


@pytest.mark.parametrize(("feed", "message"), FEEDS.values(), ids=FEEDS)
def test_a_feed_that_does_not_fit_is_an_error_of_one_line(feed: dict[str, Array], message: str) -> None:
    session = Session(network("y = Neg(x)"))
    session.run({"x": X})  # OpenVINO would take what it was fed before for what is missing
    with pytest.raises(ModelError, match=rf"\AOpenVINO cannot run the model: {message}\Z"):
        session.run(feed)


def test_an_output_that_is_not_there_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"\AOpenVINO cannot run the model: it has no 'z'; found inputs \['x'\], outputs \['y'\]\Z"):
        Session(network("y = Neg(x)")).run({"x": X}, ["z"])


def test_opens_by_name() -> None:
    assert is_installed()
    session = open_runtime("openvino", network("y = Neg(x)"))
    assert isinstance(session, Session)
