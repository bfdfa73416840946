from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_model
from onnx.printer import to_text

from zeropoint.data.inputs import InputInfo
from zeropoint.errors import ModelError
from zeropoint.graph.load import fingerprint, given_size, input_infos, load, source_name
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import open_session, serialize

Array = np.ndarray[Any, Any]
LATEST = onnx.defs.onnx_opset_version()
X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)
X.flags.writeable = False
WEIGHT = np.arange(8, dtype=np.float32).reshape(4, 2)
SOFTMAX = "t = MatMul(x, w) y = Softmax<axis = 1>(t)"


def network(opset: int = 17, nodes: str = SOFTMAX, *, ir_version: int = 8, functions: str = "") -> onnx.ModelProto:
    return parse_model(
        f"""<ir_version: {ir_version}, opset_import: ["" : {opset}, "house" : 1], producer_name: "trainer", producer_version: "7",
             domain: "org.example", model_version: 3, doc_string: "what it is for", metadata_props: ["classes" : "cat,dog"]>
        net (float[N, 4] x) => (float[N, ?] y) <float[4, 2] w = {{1, -2, 3, 4, 0.5, 6, 7, 8}}> {{ {nodes} }} {functions}"""
    )


def run(model: bytes, feed: dict[str, Array] | None = None) -> list[Array]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return [np.asarray(output) for output in session.run(None, feed or {"x": X})]


def reloaded(source: Any, min_opset: int = 7) -> onnx.ModelProto:
    """What `source` became, less value_info, which onnx_ir adds."""
    model = onnx.ModelProto.FromString(serialize(load(source, min_opset=min_opset)))
    del model.graph.value_info[:]
    return model


# --- what can be given ----------------------------------------------------------------------------------------------------

SOURCES: dict[str, Callable[[Path], Any]] = {"Path": lambda path: path, "str": str, "bytes": Path.read_bytes, "ModelProto": onnx.load}
every_source = pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)


@every_source
def test_loads_what_it_is_given(source: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network(), path)
    assert to_text(reloaded(source(path))) == to_text(network())


@every_source
@pytest.mark.parametrize("min_opset", [7, 18], ids=["as it is", "converted"])
def test_nothing_done_later_changes_the_source(source: Callable[[Path], Any], min_opset: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(network(nodes="c = Constant<value = float[2] {2, 3}>() t = Gemm(x, w) i = Identity(t) y = Mul(i, c)"), path)
    given = source(path)
    before = path.read_bytes(), given.SerializeToString() if isinstance(given, onnx.ModelProto) else given

    model = load(given, min_opset=min_opset)
    prepare(model)
    model.graph.initializers.clear()
    model.metadata_props["classes"] = "changed"
    model.doc_string = "changed"

    assert (path.read_bytes(), given.SerializeToString() if isinstance(given, onnx.ModelProto) else given) == before


def test_a_relative_path_is_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    external_network(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert open_session(load("net.onnx")).run({"x": X})["y"].tolist() == (X @ WEIGHT).tolist()


def test_names_and_fingerprints_of_sources(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(network().SerializeToString(deterministic=True))
    assert [source_name(path), source_name(str(path)), source_name(b""), source_name(network())] == [str(path)] * 2 + ["model"] * 2
    found = {fingerprint(source) for source in (path, str(path), path.read_bytes(), network())}
    assert len(found) == 1
    assert fingerprint(network(nodes="y = MatMul(x, w)")) not in found


# --- large weights, which protobuf does not see -----------------------------------------------------------------------------

LARGE: dict[str, Array] = {
    "w": np.random.default_rng(0).normal(size=(50, 80)).astype(np.float32),
    "half": np.arange(5000, dtype=np.float16),
    "bytes": np.arange(5001, dtype=np.uint8),  # after which nothing is aligned
    "v": np.random.default_rng(1).normal(size=(1, 7000)),
}


def large_network() -> onnx.ModelProto:
    model = network()
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, f"large_{name}") for name, array in LARGE.items())
    return model


@every_source
@pytest.mark.parametrize("min_opset", [7, 18], ids=["as it is", "converted"])
def test_large_weights_are_what_was_given(source: Callable[[Path], Any], min_opset: int, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(large_network(), path)
    model = load(source(path), min_opset=min_opset)
    path.write_bytes(b"")  # it is read by now
    for name, array in LARGE.items():
        value = model.graph.initializers[f"large_{name}"]
        assert value.const_value is not None
        found = value.const_value.numpy()
        np.testing.assert_array_equal(found, array, strict=True)
        assert found.flags.aligned
        assert value.const_value.name == value.name
        assert value.shape == ir.Shape(array.shape)


@every_source
def test_weights_that_contradict_themselves_are_found_where_they_are_read(source: Callable[[Path], Any], tmp_path: Path) -> None:
    model = large_network()
    model.graph.initializer[1].dims[0] += 1
    onnx.save(model, tmp_path / "net.onnx")
    loaded = load(source(tmp_path / "net.onnx"))
    with pytest.raises(ValueError, match="reshape"):
        loaded.graph.initializers["large_w"].const_value.numpy()  # type: ignore[union-attr]


@every_source
def test_of_two_weights_of_one_name_the_last_counts(source: Callable[[Path], Any], tmp_path: Path) -> None:
    model = large_network()
    model.graph.initializer[3].name = model.graph.initializer[1].name
    onnx.save(model, tmp_path / "net.onnx")
    found = load(source(tmp_path / "net.onnx")).graph.initializers["large_w"].const_value
    assert found is not None
    np.testing.assert_array_equal(found.numpy(), LARGE["bytes"])


def test_of_external_weights_only_large_ones_stay_in_their_file(tmp_path: Path) -> None:
    onnx.save(large_network(), tmp_path / "net.onnx", save_as_external_data=True, location="net.bin", size_threshold=0)
    model = load(tmp_path / "net.onnx")
    outside = {name for name, value in model.graph.initializers.items() if isinstance(value.const_value, ir.ExternalTensor)}
    assert outside == {f"large_{name}" for name in LARGE}


@every_source
def test_the_size_is_that_of_what_was_given(source: Callable[[Path], Any], tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(large_network(), path)
    assert given_size(source(path)) == path.stat().st_size


def test_the_size_takes_external_weights_in(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(large_network(), path, save_as_external_data=True, location="net.bin", size_threshold=0)
    weights = sum(array.nbytes for array in LARGE.values())
    assert given_size(path) == path.stat().st_size + weights


# --- opsets ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", range(7, LATEST + 1))
def test_opsets_from_7_on_load_as_they_are(opset: int) -> None:
    model = network(opset)
    assert to_text(reloaded(model)) == to_text(model)


CONVERTED = {
    "softmax over what follows the axis": SOFTMAX,
    "dropout with an attribute": "d = Dropout<ratio = 0.5>(x) y = MatMul(d, w)",
    "axes as attributes": "a = Unsqueeze<axes = [0]>(x) s = ReduceSum<axes = [0], keepdims = 0>(a) y = Squeeze<axes = [0]>(a)",
    "operator of another domain": "g = house.double(x) y = MatMul(g, w)",
    "loop": "n = Constant<value = int64 {3}>() c = Constant<value = bool {1}>() "
    "y = Loop<body = b (int64 i, bool ci, float[N, 4] v) => (bool co, float[N, 4] vo) { co = Identity(ci) vo = Add(v, v) }>(n, c, x)",
}
DOUBLE = """<opset_import: ["" : 11], domain: "house"> double (a) => (b) { b = Add(a, a) }"""


@pytest.mark.parametrize("nodes", CONVERTED.values(), ids=CONVERTED)
def test_conversion_from_11_to_13_keeps_the_outputs(nodes: str) -> None:
    model = network(11, nodes, functions=DOUBLE if "house" in nodes else "")
    converted = reloaded(model, 13)
    assert {opset.version for opset in converted.opset_import if not opset.domain} == {13}
    for found, expected in zip(run(converted.SerializeToString()), run(model.SerializeToString()), strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("opset", range(7, 13))
def test_every_old_opset_converts(opset: int) -> None:
    model = network(opset)
    np.testing.assert_array_equal(run(reloaded(model, 13).SerializeToString())[0], run(model.SerializeToString())[0])


def test_conversion_keeps_what_users_wrote() -> None:
    model = network(11)
    model.graph.doc_string = "the graph"
    model.graph.metadata_props.add(key="layout", value="NC")
    model.graph.input[0].doc_string = "the input"
    model.graph.node[0].name = "scope/<b>first node"
    converted = reloaded(model, 13)
    for name in ("producer_name", "producer_version", "domain", "model_version", "doc_string", "metadata_props"):
        assert getattr(converted, name) == getattr(model, name)
    for name in ("doc_string", "metadata_props", "input", "output"):
        assert getattr(converted.graph, name) == getattr(model.graph, name)
    assert [node.name for node in converted.graph.node] == ["scope/<b>first node", ""]


def test_no_conversion_where_the_opset_is_high_enough() -> None:
    assert to_text(reloaded(network(17), 13)) == to_text(network(17))


# --- what is refused ------------------------------------------------------------------------------------------------------

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89"
REFUSED = {
    "empty": (b"", "found no nodes, expected an ONNX network; check that the file is complete"),
    "picture": (PNG, f"found {len(PNG)} bytes that are not an ONNX model; the file is truncated or of another kind, get it again"),
    "text": (b"# README\n", "found 9 bytes that are not an ONNX model; the file is truncated or of another kind, get it again"),
    "archive": (b"PK\x03\x04", "found 4 bytes that are not an ONNX model"),
    "no nodes": (network(nodes="").SerializeToString(), "found no nodes, expected an ONNX network; check that the file is complete"),
    "opset 6": (network(6).SerializeToString(), "found opset 6, expected 7 or later; export it again with a newer opset"),
    "no opset": (
        parse_model("<ir_version: 8, opset_import: []> g (float x) => (float y) { y = Neg(x) }").SerializeToString(),
        "found no opset",
    ),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_refuses(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=re.escape(f"{path}: {message}")):
        load(path)
    with pytest.raises(ModelError, match=re.escape(f"model: {message}")):
        load(content)


@pytest.mark.parametrize(("name", "reason"), [("no.onnx", "No such file or directory"), ("", "Is a directory")], ids=["missing", "folder"])
def test_refuses_what_cannot_be_read(name: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(ModelError, match=re.escape(f"{path}: cannot be read ({reason}); expected an ONNX file, check the path")):
        load(path)


def test_a_file_cut_off_anywhere_is_refused_unless_it_is_still_whole() -> None:
    """A cut between the last two fields leaves a network without its metadata, which no reader can tell from a whole one."""
    content = network().SerializeToString()
    loaded = []
    for length in range(len(content)):
        try:
            load(content[:length])
        except ModelError:
            continue
        loaded.append(onnx.ModelProto.FromString(content[:length]))
    assert all(model.graph == network().graph and model.opset_import for model in loaded)


def test_a_damaged_file_is_refused_or_loads() -> None:
    content = network(nodes="c = Constant<value = float[2] {2, 3}>() t = Gemm(x, w) y = Mul(t, c)").SerializeToString()
    refused = 0
    for position in range(len(content)):
        for byte in {0x00, 0xFF, content[position] ^ 0x01, content[position] ^ 0x80}:
            try:
                load(content[:position] + bytes([byte]) + content[position + 1 :])
            except ModelError:
                refused += 1
    assert refused > len(content)


def test_says_where_a_network_contradicts_itself() -> None:
    model = network()
    model.graph.initializer[0].data_type = 99
    with pytest.raises(ModelError, match=r"^model: found a network that contradicts itself \(.*99.*\); export it again$"):
        load(model)


IN_ORDER = {
    "optional input left out": 'a = MatMul(x, w) y = Clip(a, "", z)',
    "body reads what is around it": "a = MatMul(x, w) y = If(c) <then_branch = one () => (float[N, 2] p) { p = Neg(a) }, "
    "else_branch = two () => (float[N, 2] q) { q = If(c) <then_branch = three () => (float[N, 2] r) { r = Abs(a) }, "
    "else_branch = four () => (float[N, 2] s) { s = Add(a, z) }> }>",
    "function": "a = MatMul(x, w) y = house.double(a)",
}
OUT_OF_ORDER = {
    "input": ("a = MatMul(x, w) y = Add(a, v)", "the node that writes 'y' (Add): found input 'v', expected what a node before it computes"),
    "input of a named node": ("a = MatMul(x, w) [sum] y = Add(a, v)", "node 'sum' (Add): found input 'v', expected"),
    "input that a later node computes": ("y = Neg(a) a = MatMul(x, w)", "the node that writes 'y' (Neg): found input 'a', expected"),
    "input in a body": (
        "y = If(c) <then_branch = one () => (float[N, 2] p) { p = Neg(v) }, else_branch = two () => (float[N, 2] q) { q = MatMul(x, w) }>",
        "the node that writes 'p' (Neg): found input 'v', expected",
    ),
    "input that a body keeps to itself": (
        "a = MatMul(x, w) b = If(c) <then_branch = one () => (float[N, 2] p) { t = Neg(a) p = Neg(t) }, "
        "else_branch = two () => (float[N, 2] q) { q = Neg(a) }> y = Add(b, t)",
        "the node that writes 'y' (Add): found input 't', expected",
    ),
    "input in a function": ("a = MatMul(x, w) y = house.broken(a)", "the node that writes 'b' (Add): found input 'v', expected"),
    "output": ("a = MatMul(x, w)", "'net' gives out 'y', expected what one of its nodes computes; export the network again"),
    "output of a body": (
        "a = MatMul(x, w) y = If(c) <then_branch = one () => (float[N, 2] a) { p = Neg(a) }, "
        "else_branch = two () => (float[N, 2] q) { q = Neg(a) }>",
        "'one' gives out 'a', expected what one of its nodes computes",
    ),
}
ORDERED_FUNCTIONS = DOUBLE + """<opset_import: ["" : 11], domain: "house"> broken (a) => (b) { b = Add(a, v) }"""


def network_of(nodes: str) -> onnx.ModelProto:
    model = network(nodes=nodes, functions=ORDERED_FUNCTIONS if "broken" in nodes else DOUBLE if "double" in nodes else "")
    model.graph.initializer.extend([numpy_helper.from_array(np.array(True), "c"), numpy_helper.from_array(np.array(9, np.float32), "z")])
    return model


@pytest.mark.parametrize("nodes", IN_ORDER.values(), ids=IN_ORDER)
def test_loads_what_reads_only_what_is_there(nodes: str) -> None:
    model = network_of(nodes)
    np.testing.assert_array_equal(run(serialize(load(model).clone()))[0], run(model.SerializeToString())[0])


@pytest.mark.parametrize("min_opset", [7, 18], ids=["as it is", "converted"])
@pytest.mark.parametrize(("nodes", "message"), OUT_OF_ORDER.values(), ids=OUT_OF_ORDER)
def test_refuses_what_nothing_computes(nodes: str, message: str, min_opset: int, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ModelError, match=re.escape(f"model: {message}")):
        load(network_of(nodes), min_opset=min_opset)
    assert capfd.readouterr() == ("", "")


def test_says_what_cannot_be_converted() -> None:
    model = network(11, "y = NoSuchOperator(x, w)")
    with pytest.raises(
        ModelError, match=r"(?s)^model: cannot be converted from opset 11 to 13 \(.*NoSuchOperator.*\); export it again at opset 13$"
    ):
        load(model, min_opset=13)


# --- external data --------------------------------------------------------------------------------------------------------


def external_network(
    folder: Path, location: str = "net.bin", *, opset: int = 17, place: str = "initializer", entries: dict[str, object] | None = None
) -> Path:
    """A network whose weight is in `location`, written there where that is inside the folder."""
    weight = numpy_helper.from_array(WEIGHT, "w")
    content = weight.raw_data
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **({"offset": 0, "length": len(content)} if entries is None else entries)}.items():
        weight.external_data.add(key=key, value=str(value))
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    if place != "initializer":
        nodes.insert(0, helper.make_node("Constant", [], ["w"], value=weight))
    if place == "body":
        body = helper.make_graph(nodes, "body", [], [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])])
        for node in body.node:
            node.output[:] = [f"{name}_in_body" if name == "y" else name for name in node.output]
        body.output[0].name = "y_in_body"
        condition = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True)))
        nodes = [condition, helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 2])],
        [weight] if place == "initializer" else [],
    )
    path = folder / "net.onnx"
    path.write_bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8).SerializeToString())
    if location == "net.bin":
        (folder / location).write_bytes(content)
    return path


@pytest.mark.parametrize("place", ["initializer", "attribute", "body"])
@pytest.mark.parametrize("opset", [17, 11], ids=["as it is", "converted"])
@pytest.mark.parametrize("entries", [None, {}, {"offset": 0}, {"length": 32}], ids=["offset and length", "neither", "offset", "length"])
def test_external_data_is_loaded(place: str, opset: int, entries: dict[str, object] | None, tmp_path: Path) -> None:
    model = load(external_network(tmp_path, opset=opset, place=place, entries=entries), min_opset=13)
    np.testing.assert_array_equal(run(serialize(model))[0], X @ WEIGHT)


def test_external_data_has_an_offset(tmp_path: Path) -> None:
    path = external_network(tmp_path, entries={"offset": 12, "length": 32})
    (tmp_path / "net.bin").write_bytes(b"elsewhere..." + WEIGHT.tobytes())
    np.testing.assert_array_equal(run(serialize(load(path)))[0], X @ WEIGHT)


OUTSIDE = "lies outside the model's folder; refused, since a model could read any file that way: copy it beside the model"
EXTERNAL_REFUSED: dict[str, tuple[str, dict[str, object] | None, str]] = {
    "absolute": ("/etc/hostname", None, OUTSIDE),
    "parent": ("../net.bin", None, OUTSIDE),
    "parent of a folder": ("sub/../../net.bin", None, OUTSIDE),
    "no location": ("", None, OUTSIDE),
    "missing": ("other.bin", None, "is missing; put the file beside the model"),
    "a folder": (".", None, "is missing; put the file beside the model"),
    "truncated": ("net.bin", {"offset": 4}, "has 32 bytes, expected at least 36; the file is truncated, get it again"),
    "negative offset": ("net.bin", {"offset": -4}, "has offset -4 and length 32, expected 32 bytes from 0 on; export the model again"),
    "short length": ("net.bin", {"length": 8}, "has offset 0 and length 8, expected 32 bytes from 0 on; export the model again"),
    "no number": (
        "net.bin",
        {"length": "all"},
        "cannot be located (invalid literal for int() with base 10: 'all'); export the model again",
    ),
}


@pytest.mark.parametrize(("location", "entries", "message"), EXTERNAL_REFUSED.values(), ids=EXTERNAL_REFUSED)
@pytest.mark.parametrize("place", ["initializer", "attribute", "body"])
def test_refuses_external_data(location: str, entries: dict[str, object] | None, message: str, place: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "net.bin").write_bytes(WEIGHT.tobytes())
    path = external_network(folder, location, place=place, entries=entries)
    with pytest.raises(ModelError, match=re.escape(f"{path}: tensor 'w': external data {location!r} {message}")):
        load(path)


@pytest.mark.parametrize("min_opset", [13, 18], ids=["as it is", "converted"])
def test_external_data_may_be_a_link_that_stays_in_the_folder(min_opset: int, tmp_path: Path) -> None:
    path = external_network(tmp_path, "link.bin")
    (tmp_path / "real.bin").write_bytes(WEIGHT.tobytes())
    (tmp_path / "link.bin").symlink_to("real.bin")
    np.testing.assert_array_equal(run(serialize(load(path, min_opset=min_opset)))[0], X @ WEIGHT)


def test_refuses_links_that_leave_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret").write_bytes(WEIGHT.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match=re.escape(f"external data 'link.bin' {OUTSIDE}")):
        load(external_network(folder, "link.bin"))


def test_refuses_hard_links(tmp_path: Path) -> None:
    path = external_network(tmp_path)
    os.link(tmp_path / "net.bin", tmp_path / "again.bin")
    with pytest.raises(ModelError, match=r"external data 'net\.bin' has 2 hard links, expected one; put a copy of the file in its place"):
        load(path)


@pytest.mark.parametrize("source", [Path.read_bytes, lambda path: onnx.load(path, load_external_data=False)], ids=["bytes", "ModelProto"])
def test_refuses_external_data_of_a_model_without_a_folder(source: Callable[[Path], Any], tmp_path: Path) -> None:
    given = source(external_network(tmp_path))
    with pytest.raises(ModelError, match=r"'net\.bin' belongs to a model given as bytes; pass the path of the model's file instead"):
        load(given)


# --- inputs ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "dtype", "shape"),
    [
        pytest.param("float[1, 3, 8, 8]", np.float32, (1, 3, 8, 8), id="fixed"),
        pytest.param("float[N, 3, H, 8]", np.float32, (None, 3, None, 8), id="symbolic"),
        pytest.param("float[?, 4]", np.float32, (None, 4), id="nameless"),
        pytest.param("float[0, 4]", np.float32, (None, 4), id="zero, as some exporters write a dynamic axis"),
        pytest.param("float", np.float32, (), id="scalar"),
        pytest.param("int64[N]", np.int64, (None,), id="int64"),
        pytest.param("bool[N]", np.bool_, (None,), id="bool"),
        pytest.param("float16[N]", np.float16, (None,), id="float16"),
        pytest.param("uint8[2]", np.uint8, (2,), id="uint8"),
    ],
)
def test_input_infos(declared: str, dtype: type[np.generic], shape: tuple[int | None, ...]) -> None:
    model = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({declared} x) => ({declared} y) {{ y = Identity(x) }}')
    assert input_infos(load(model)) == (InputInfo("x", np.dtype(dtype), shape),)


def test_input_infos_skip_initializers_and_keep_order() -> None:
    text = """<ir_version: 3, opset_import: ["" : 11]>
    g (float[2] b, float[2] w = {1, 2}, int32[N] a) => (float[2] y) { y = Add(b, w) }"""
    assert [info.name for info in input_infos(load(parse_model(text)))] == ["b", "a"]


def without_shape(value: onnx.ValueInfoProto) -> None:
    value.type.tensor_type.ClearField("shape")


def without_type(value: onnx.ValueInfoProto) -> None:
    value.ClearField("type")


def sequence(value: onnx.ValueInfoProto) -> None:
    value.type.CopyFrom(helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))


@pytest.mark.parametrize("spoil", [without_shape, without_type, sequence])
def test_refuses_inputs_of_unknown_type_or_rank(spoil: Callable[[onnx.ValueInfoProto], None]) -> None:
    model = network()
    spoil(model.graph.input[0])
    with pytest.raises(ModelError, match=r"^input 'x': found .*; expected a tensor of known type and rank, export it so$"):
        input_infos(load(model))
