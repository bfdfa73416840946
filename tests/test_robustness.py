"""Broken, hostile and unusual input: each is a clear error or a note, and never a traceback."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from zeropoint import cli
from zeropoint.api import quantize
from zeropoint.errors import DataError, ModelError, RecipeError, ZeropointError
from zeropoint.graph.store import serialize
from zeropoint.result import Result
from zeropoint.summary import verdict

Array = npt.NDArray[Any]
Options = dict[str, Any]
TARGET = "openvino"  # takes any number of channels, so that networks can be tiny
CHAIN = "a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)"


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def network(
    body: str = CHAIN, *, inputs: str = "float[N, 4] x", outputs: str = "float[N, 4] y", opset: int = 17, **weights: Array
) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : {opset}]> g ({inputs}) => ({outputs}) {{ {body} }}')
    named = {"w": normal(4, 4), "v": normal(4, 4, seed=1), **weights}
    read = {name for node in model.graph.node for name in node.input} | set(re.findall(r"\w+", body))
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in named.items() if name in read)
    return model


def run(model: Any, **options: Any) -> Result:
    return quantize(model, **{"data": normal(24, 4), "samples": 16, "target": TARGET, "evaluate": TARGET != "openvino", **options})


def judged(model: Any, **options: Any) -> Result:
    """Judged on held-out samples; this target's runtime measures no latency here."""
    return run(model, **{"target": "tensorrt", "evaluate": True, **options})


def reasons(result: Result) -> str:
    return "\n".join(map(str, result.notes))


def outputs(model: onnx.ModelProto | bytes, x: Array) -> Array:
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return np.asarray(onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"x": x})[0])


# --- errors ----------------------------------------------------------------------------------------------------------------


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    onnx.save(model, folder / "net.onnx")
    return folder / "net.onnx"


def truncated(folder: Path) -> Options:
    path = saved(network(), folder)
    path.write_bytes(path.read_bytes()[:-25])
    return {"model": path}


def file_holding(content: bytes, name: str = "net.onnx") -> Callable[[Path], Options]:
    def build(folder: Path) -> Options:
        (folder / name).write_bytes(content)
        return {"model": folder / name}

    return build


def external(location: str, *, size: int = 64) -> Callable[[Path], Options]:
    def build(folder: Path) -> Options:
        model = network()
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", "64")):
            tensor.external_data.add(key=key, value=value)
        (folder / "inside").mkdir()
        (folder / "weights.bin").write_bytes(bytes(size))
        (folder / "inside" / "few.bin").write_bytes(bytes(size))
        return {"model": saved(model, folder / "inside")}

    return build


def undefined_input(folder: Path) -> Options:
    model = network()
    model.graph.node[1].input[0] = "nowhere"
    return {"model": model}


def wrong_shape_inside(folder: Path) -> Options:
    return {"model": network(v=normal(5, 4))}


def unknown_operator(folder: Path) -> Options:
    return {"model": network("a = MatMul(x, w) b = Frobnicate(a) y = MatMul(b, v)")}


def array_file(array: Array, name: str = "data.npy", **options: Any) -> Callable[[Path], Options]:
    def build(folder: Path) -> Options:
        np.save(folder / name, array, **options)
        return {"data": folder / name}

    return build


def truncated_array(folder: Path) -> Options:
    np.save(folder / "data.npy", normal(24, 4))
    (folder / "data.npy").write_bytes((folder / "data.npy").read_bytes()[:-40])
    return {"data": folder / "data.npy"}


def truncated_archive(folder: Path) -> Options:
    np.savez(folder / "data.npz", x=normal(24, 4))
    (folder / "data.npz").write_bytes((folder / "data.npz").read_bytes()[:-40])
    return {"data": folder / "data.npz"}


def empty_folder(folder: Path) -> Options:
    (folder / "photos").mkdir()
    (folder / "photos" / "notes.txt").write_text("")
    return {"data": folder / "photos"}


def broken_image(which: int) -> Callable[[Path], Options]:
    def build(folder: Path) -> Options:
        (folder / "images").mkdir()
        for index in range(8):
            Image.fromarray(np.full((4, 4, 3), index, np.uint8)).save(folder / "images" / f"{index}.png")
        path = folder / "images" / f"{which}.png"
        path.write_bytes(path.read_bytes()[:-30])
        body = "f = Flatten(x) y = MatMul(f, u)"
        return {"model": network(body, inputs="float[N, 3, 4, 4] x", u=normal(48, 4)), "data": folder / "images", "preprocess": "unit"}

    return build


def folder_without_preprocess(folder: Path) -> Options:
    return {key: value for key, value in broken_image(7)(folder).items() if key != "preprocess"}


def data(value: Any, **options: Any) -> Callable[[Path], Options]:
    return lambda folder: {"data": value, **options}


def with_one(value: float) -> Array:
    array = normal(24, 4)
    array[2, 1] = value
    return array


def failing() -> Any:
    raise ZeroDivisionError("division by zero")


def failing_later() -> Any:
    yield normal(4)
    raise ZeroDivisionError("division by zero")


ERRORS: dict[str, tuple[Callable[[Path], Options], type[ZeropointError], str]] = {
    "network-truncated": (
        truncated,
        ModelError,
        r"net\.onnx: found \d+ bytes that are not an ONNX model; the file is truncated or of another",
    ),
    "network-of-another-kind": (
        file_holding(b"\x89PNG\r\n\x1a\n" + bytes(100)),
        ModelError,
        r"net\.onnx: found 108 bytes that are not an ONNX",
    ),
    "network-is-text": (file_holding(b"import torch\n", "net.pt"), ModelError, r"net\.pt: found .* not an ONNX model"),
    "network-empty": (file_holding(b""), ModelError, r"net\.onnx: found no nodes, expected an ONNX network"),
    "network-is-a-folder": (lambda folder: {"model": folder}, ModelError, r"cannot be read \(Is a directory\)"),
    "weights-outside-the-folder": (
        external("../weights.bin"),
        ModelError,
        r"'w': external data '\.\./weights\.bin' lies outside .*; refused",
    ),
    "weights-at-an-absolute-path": (external("/etc/hostname"), ModelError, r"external data '/etc/hostname' lies outside .*; refused"),
    "weights-missing": (external("none.bin"), ModelError, r"external data 'none\.bin' is missing; put the file beside the model"),
    "weights-truncated": (external("few.bin", size=60), ModelError, r"external data 'few\.bin' has 60 bytes, expected at least 64"),
    "network-with-an-input-from-nowhere": (undefined_input, ModelError, r"\(Relu\): found input 'nowhere', expected"),
    "shapes-that-do-not-fit": (wrong_shape_inside, ModelError, r"ONNX Runtime cannot (load|run) the model"),
    "unknown-operator": (unknown_operator, ModelError, r"Frobnicate"),
    "data-with-nan": (
        data(with_one(np.nan)),
        DataError,
        r"sample 'data\[2\]': input 'x': found 1 NaN or infinite values.*; remove the sample",
    ),
    "data-with-inf": (data(with_one(np.inf)), DataError, r"sample 'data\[2\]': input 'x': found 1 NaN or infinite values"),
    "data-of-another-rank": (
        data(normal(2, 2, 4)),
        DataError,
        r"input 'x': found shape \(2, 2, 4\), expected \(samples, 4\), or \(4,\) for one",
    ),
    "data-of-another-shape": (data(normal(24, 5)), DataError, r"input 'x': found shape \(24, 5\), expected \(samples, 4\)"),
    "data-of-another-name": (data({"image": normal(24, 4)}), DataError, r"found arrays 'image', expected 'x'"),
    "data-of-text": (data(np.array([["a"] * 4])), DataError, r"dtype <U1, expected numbers"),
    "data-of-complex-numbers": (data(np.ones((24, 4), np.complex64)), DataError, r"complex64"),
    "data-of-objects": (
        array_file(np.array([{}] * 4), allow_pickle=True),
        DataError,
        r"data\.npy: .*Python objects in it are never loaded",
    ),
    "array-truncated": (truncated_array, DataError, r"data\.npy: cannot be read .*write it again"),
    "archive-truncated": (truncated_archive, DataError, r"data\.npz: cannot be read .*write it again"),
    "folder-empty": (empty_folder, DataError, r"found no images and no arrays in it, expected files of \.bmp"),
    "first-image-unreadable": (broken_image(0), DataError, r"0\.png: cannot be read as an image .*; mend it or take it away"),
    "later-image-unreadable": (broken_image(4), DataError, r"4\.png: cannot be read as an image .*; mend it or take it away"),
    "images-without-preprocess": (folder_without_preprocess, DataError, r"found images, expected a preprocess .*; name a preset"),
    "preset-unknown": (
        lambda folder: {**broken_image(7)(folder), "preprocess": "imagnet"},
        RecipeError,
        r"preprocess: found 'imagnet', expected",
    ),
    "function-fails": (data(failing), DataError, r"function failing: failed with ZeroDivisionError: division by zero"),
    "generator-fails": (data(failing_later()), DataError, r"failed with ZeroDivisionError: division by zero while giving samples"),
    "function-unknown": (data("no.such.module:load"), DataError, r"importing no\.such\.module failed with ModuleNotFoundError"),
}


@pytest.mark.parametrize(("build", "error", "message"), ERRORS.values(), ids=ERRORS)
def test_broken_input_is_a_clear_error(tmp_path: Path, build: Callable[[Path], Options], error: type[ZeropointError], message: str) -> None:
    options = {"model": network(), **build(tmp_path)}
    with pytest.raises(error) as raised:
        run(options.pop("model"), **options)
    assert re.search(message, str(raised.value))
    assert "\n" not in str(raised.value)


IN_FILES = [name for name in ERRORS if name.startswith(("network", "weights", "array", "archive", "folder", "first", "later"))]


@pytest.mark.parametrize("name", IN_FILES)
def test_broken_file_is_one_paragraph_in_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    build, _, message = ERRORS[name]
    options = {"model": network(), "data": "random", **build(tmp_path)}
    if isinstance(options["model"], onnx.ModelProto):
        onnx.save(options["model"], tmp_path / "own.onnx")
        options["model"] = tmp_path / "own.onnx"
    arguments = ["quantize", str(options["model"]), "--data", str(options["data"]), "-t", TARGET, "-o", str(tmp_path / "out.onnx")]
    monkeypatch.setattr(sys, "argv", ["zeropoint", *arguments, *(["--preprocess", "unit"] if "preprocess" in options else [])])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    shown = capfd.readouterr()
    assert (ended.value.code, shown.out) == (2, "")
    assert re.fullmatch(rf"(calibrating \(about \d+ MB\)\n)?error: .*{message}.*\n", shown.err)
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("keep", [0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 0.999], ids="{0}".format)
def test_network_cut_anywhere_is_no_crash(keep: float) -> None:
    content = network().SerializeToString()
    with pytest.raises(ZeropointError):
        run(content[: int(len(content) * keep)])


@pytest.mark.parametrize("seed", range(12))
def test_network_with_damaged_bytes_is_no_crash(seed: int) -> None:
    generator = np.random.default_rng(seed)
    content = bytearray(network().SerializeToString())
    for place in generator.integers(0, len(content), 3):
        content[place] = generator.integers(256)
    try:
        run(bytes(content))
    except ZeropointError as error:
        assert str(error)


# --- notes -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_weight_that_is_not_finite_stays_in_float_with_a_note(value: float) -> None:
    broken = normal(4, 4)
    broken[0, 0] = value
    result = run(network(v=broken))
    assert re.search(r"MatMul stays in float: .*'v'.* NaN", reasons(result))
    assert result.evidence.coverage.quantized == 1


@pytest.mark.parametrize("effort", ["fast", "balanced", "best"])
def test_activation_with_nan_is_noted_and_leaves_no_good_number(effort: str) -> None:
    body = "l = Log(x) a = MatMul(l, w) b = Relu(a) y = MatMul(b, v)"
    wide: dict[str, Any] = {"w": normal(16, 16), "v": normal(16, 16, seed=1)}
    result = judged(network(body, inputs="float[N, 16] x", outputs="float[N, 16] y", **wide), data=normal(24, 16), effort=effort)
    assert re.search(r"l: \d+ NaN and 0 Inf were seen and left out of its range", reasons(result))
    [fidelity] = result.evidence.fidelity
    assert (fidelity.incomparable, fidelity.sqnr_db, fidelity.agreement) == (8, -np.inf, 0.0)
    assert "8 samples of y CANNOT BE COMPARED" in verdict(result)


def test_tensor_in_which_nothing_finite_is_seen_stays_in_float_with_a_note() -> None:
    result = run(network("n = Neg(x) p = Abs(n) q = Neg(p) l = Log(q) a = MatMul(l, w) y = Add(a, x)"))
    assert "l: stays in float: no finite value was seen in it during calibration" in reasons(result)
    assert verdict(result).startswith("openvino: NOTHING QUANTIZED: ")


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime-arm", "openvino"])
@pytest.mark.parametrize("value", [0.0, 3.0, -3.0, 1e-30, 1e30], ids=str)
def test_constant_tensor_is_quantized_without_much_error(target: str, value: float) -> None:
    model = network(
        "a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)",
        inputs="float[N, 16] x",
        outputs="float[N, 16] y",
        w=np.eye(16, dtype=np.float32),
        v=np.eye(16, dtype=np.float32),
    )
    result = run(model, data=np.full((8, 16), value, np.float32), target=target)
    x = np.full((1, 16), value, np.float32)
    expected = outputs(model, x)
    np.testing.assert_allclose(outputs(serialize(result.model), x), expected, rtol=0.02, atol=1e-30)


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime-arm", "openvino"])
def test_all_zero_weights_give_zeros(target: str) -> None:
    model = network(w=np.zeros((4, 4), np.float32))
    result = run(model, target=target)
    assert not outputs(serialize(result.model), normal(3, 4)).any()
    assert all(scale > 0 for entry in result.plan.entries for scale in entry.scale)


def test_network_with_nothing_to_quantize_says_so_first() -> None:
    model = network("a = Relu(x) y = Sigmoid(a)")
    result = judged(model)
    assert verdict(result).startswith("tensorrt: NOTHING QUANTIZED: no operator found that tensorrt could compute in integers; ")
    assert result.plan.entries == ()
    assert np.array_equal(outputs(serialize(result.model), normal(3, 4)), outputs(model, normal(3, 4)))


def test_network_in_which_all_is_excluded_says_so_first() -> None:
    result = run(network(), exclude=["MatMul"])
    assert verdict(result).startswith("openvino: NOTHING QUANTIZED: none of 2 operators that openvino could compute in integers; ")


# --- unusual networks ------------------------------------------------------------------------------------------------------

BRANCHES = """
    s = ReduceSum <keepdims = 0> (b)
    z = Constant <value_float = 0.0> ()
    c = Greater(s, z)
    y = If(c) <then_branch = yes () => (float[N, 4] p) { p = MatMul(b, v) }, else_branch = no () => (float[N, 4] q) { q = MatMul(a, v) }>
"""
UNUSUAL: dict[str, tuple[onnx.ModelProto, int]] = {
    "opset-11": (network(opset=11), 2),
    "opset-7": (network(opset=7), 2),
    "all-axes-dynamic": (network(inputs="float[N, M] x", outputs="float[N, K] y"), 2),
    "axes-without-names": (network(inputs="float[?, 4] x", outputs="float[?, 4] y"), 2),
    "shared-weight": (network("a = MatMul(x, w) b = Relu(a) y = MatMul(b, w)"), 2),
    "weight-shared-with-a-float-operator": (
        network("a = MatMul(x, w) b = Add(a, w) y = MatMul(b, v)", inputs="float[4, 4] x", outputs="float[4, 4] y"),
        2,
    ),
    "weight-from-a-constant-node": (
        network("k = Constant <value = float[4, 4] {1,2,3,4,4,3,2,1,-1,1,-1,1,2,0,0,2}> () a = MatMul(x, k) b = Relu(a) y = MatMul(b, v)"),
        2,
    ),
    "if": (network("a = MatMul(x, w) b = Relu(a)" + BRANCHES), 1),
    "names-with-slashes-and-html": (
        network('["/net/<b>[bold]/m"] "/a<i>" = MatMul(x, w) "/b[x]" = Relu("/a<i>") ["&amp;/m2"] y = MatMul("/b[x]", v)'),
        2,
    ),
    "initializer-as-input": (network(inputs="float[N, 4] x, float[4, 4] w"), 2),
    "unused-input-and-output-that-is-an-input": (network("a = MatMul(x, w) b = Relu(a) y = MatMul(b, v)", inputs="float[N, 4] x"), 2),
}


@pytest.mark.parametrize("target", ["openvino", "onnxruntime-arm"])
@pytest.mark.parametrize(("model", "quantized"), UNUSUAL.values(), ids=UNUSUAL)
def test_unusual_network_is_quantized(model: onnx.ModelProto, quantized: int, target: str) -> None:
    given = model.SerializeToString()
    result = run(model, target=target)
    assert model.SerializeToString() == given
    if target == "openvino":
        assert result.evidence.coverage.quantized == quantized
    assert result.evidence.findings == ()
    x = normal(4, 4, seed=5)
    expected, found = outputs(model, x), outputs(serialize(result.model), x)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()
    assert [value.name for value in onnx.load_from_string(serialize(result.model)).graph.output] == ["y"]


@pytest.mark.parametrize("model", [model for model, _ in UNUSUAL.values()], ids=UNUSUAL)
def test_unusual_network_is_refined(model: onnx.ModelProto) -> None:
    result = run(model, target="onnxruntime-arm", data=normal(48, 4), samples=48, effort="best")
    assert "no refinement was tried" not in reasons(result)
    assert result.evidence.findings == ()
    x = normal(4, 4, seed=5)
    expected, found = outputs(model, x), outputs(serialize(result.model), x)
    assert np.abs(found - expected).max() < 0.1 * np.abs(expected).max()


def test_body_of_an_if_is_left_in_float_with_a_note() -> None:
    assert "the body of this If is passed through untouched, in float" in reasons(run(UNUSUAL["if"][0]))


def test_network_that_is_quantized_already_is_an_error() -> None:
    content = serialize(run(network()).model)
    with pytest.raises(ModelError, match="the network is already quantized; start from the float one"):
        run(content)


def test_weights_in_a_file_beside_the_network(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    model = network()
    onnx.save(model, path, save_as_external_data=True, location="net.bin", size_threshold=0)
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}
    result = judged(path)
    assert serialize(result.model) == serialize(judged(network()).model)
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_network_without_inputs_is_an_error() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["w"], ["y"])],
        "g",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4, 4])],
        [numpy_helper.from_array(normal(4, 4), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    with pytest.raises(DataError, match="network: found no inputs"):
        run(model)
