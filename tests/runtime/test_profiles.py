"""What the runtimes tell of their nodes, and what a network takes of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.parser import parse_model

from zeropoint.errors import ModelError
from zeropoint.runtime import onnxruntime as ort
from zeropoint.runtime import open_runtime, openvino, time_nodes, version
from zeropoint.runtime.node_time import NodeTime
from zeropoint.runtime.openvino import is_installed
from zeropoint.runtime.peak_memory import peak_bytes

RUNTIMES = [
    "onnxruntime",
    pytest.param("openvino", marks=pytest.mark.skipif(not is_installed(), reason="openvino is not installed")),
]
every_runtime = pytest.mark.parametrize("runtime", RUNTIMES)
X = np.ones((4, 64), np.float32)
CODED = """
    q = QuantizeLinear(x, s, z) d = DequantizeLinear(q, s, z) e = DequantizeLinear(w, t, n)
    m = MatMul(d, e) o = QuantizeLinear(m, s, z) y = DequantizeLinear(o, s, z)
"""


def written(folder: Path, nodes: str, **weights: Any) -> Path:
    model = parse_model(f'<ir_version: 8, opset_import: ["" : 17]> net (float[4, 64] x) => (float[4, 64] y) {{ {nodes} }}')
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    path = folder / "net.onnx"
    onnx.save(model, path)
    return path


def weight(size: int = 64) -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).normal(size=(size, size)).astype(np.float32)


@every_runtime
def test_float_nodes_take_time_and_none_is_in_integers(tmp_path: Path, runtime: str) -> None:
    found = time_nodes(runtime, written(tmp_path, "y = MatMul(x, w)", w=weight()), {"x": X}, runs=3)
    assert {"onnxruntime": "MatMul", "openvino": "FullyConnected"}[runtime] in {node.operator for node in found}
    assert all(node.seconds >= 0 for node in found)
    assert not any(node.in_integers for node in found)


@every_runtime
def test_integer_kernels_are_told_from_what_quantizes_for_them(tmp_path: Path, runtime: str) -> None:
    scales = {"s": np.float32(0.05), "t": np.float32(0.01)}
    constants = {"z": np.uint8(128), "n": np.int8(0), "w": np.clip(weight() * 40, -127, 127).astype(np.int8)}
    path = written(tmp_path, CODED, **{name: np.asarray(value) for name, value in (scales | constants).items()})
    found = {node.operator: node.in_integers for node in time_nodes(runtime, path, {"x": X}, runs=3)}
    if runtime == "onnxruntime":
        assert found == {"QuantizeLinear": False, "QLinearMatMul": True, "DequantizeLinear": False}
    else:
        assert any(found.values())
        assert not any(found.get(name, False) for name in ("FakeQuantize", "Reorder", "Convert"))


def event(name: str, started: int, took: int, op: str = "", index: int = 0, first: str = "float", category: str = "Node") -> dict[str, Any]:
    told = {"op_name": op, "node_index": str(index), "input_type_shape": [{first: [1]}]}
    return {"cat": category, "name": name, "ts": started, "dur": took, "args": told if op else {}}


def test_a_profile_is_the_mean_of_the_last_runs() -> None:
    runs = [event("model_run", start, 90, category="Session") for start in (0, 100, 200)]
    kernels = [
        event("c_kernel_time", 10, 70_000, "Conv"),
        event("c_kernel_time", 110, 2_000, "Conv"),
        event("c_kernel_time", 210, 4_000, "Conv"),
    ]
    others = [event("c_fence_before", 205, 1_000, "Conv"), event("session_initialization", 0, 9_000, category="Session")]
    assert ort._node_times([*kernels, *runs, *others], runs=2) == (NodeTime(node="c", operator="Conv", seconds=0.003, in_integers=False),)


def test_nodes_without_a_name_are_told_apart_and_bodies_are_not_counted_twice() -> None:
    events = [event("model_run", 0, 90, category="Session")]
    events += [event("_kernel_time", 1, 10, "Relu", 1), event("_kernel_time", 2, 20, "Relu", 2)]
    events += [
        event("loop_kernel_time", 3, 900, "Loop", 3),
        event("body_kernel_time", 4, 100, "Add", 1),
        event("body_kernel_time", 5, 100, "Add", 1),
    ]
    found = {node.node: round(1e6 * node.seconds) for node in ort._node_times(events, runs=1)}
    assert found == {"node 1": 10, "node 2": 20, "body": 200}


@pytest.mark.parametrize(
    ("op", "first", "in_integers"),
    [
        ("QLinearConv", "uint8", True),
        ("MatMulInteger", "int8", True),
        ("MaxPool", "uint8", True),
        ("Conv", "float", False),
        ("DequantizeLinear", "uint8", False),
        ("QuantizeLinear", "float", False),
        ("Cast", "uint8", False),
        ("DynamicQuantizeMatMul", "float", True),
        ("DynamicQuantizeLinear", "float", False),
    ],
)
def test_an_integer_kernel_reads_codes(op: str, first: str, in_integers: bool) -> None:
    events = [event("model_run", 0, 90, category="Session"), event("n_kernel_time", 1, 10, op, first=first)]
    assert [node.in_integers for node in ort._node_times(events, runs=1)] == [in_integers]


def test_what_runs_in_a_loop_is_told_by_itself(tmp_path: Path) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["c"], ["c2"]), helper.make_node("MatMul", ["a", "w"], ["a2"], name="inside")],
        "body",
        [
            helper.make_tensor_value_info("i", TensorProto.INT64, []),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
            helper.make_tensor_value_info("a", TensorProto.FLOAT, [4, 64]),
        ],
        [helper.make_tensor_value_info("c2", TensorProto.BOOL, []), helper.make_tensor_value_info("a2", TensorProto.FLOAT, [4, 64])],
    )
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], name="around", body=body)
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [4, 64]) for name in "xy")
    constants = [numpy_helper.from_array(np.array(3, np.int64), "times"), numpy_helper.from_array(weight(), "w")]
    model = helper.make_model(
        helper.make_graph([loop], "net", [x], [y], constants), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "net.onnx")
    found = {node.node: node.operator for node in time_nodes("onnxruntime", tmp_path / "net.onnx", {"x": X}, runs=2)}
    assert found["inside"] == "MatMul"
    assert "around" not in found


@every_runtime
@pytest.mark.parametrize("feed", [{}, {"x": X[:, :3]}], ids=["nothing", "another-shape"])
def test_a_feed_that_does_not_fit_is_an_error(tmp_path: Path, runtime: str, feed: dict[str, Any]) -> None:
    path = written(tmp_path, "y = MatMul(x, w)", w=weight())
    if runtime == "openvino" and not feed:
        pytest.skip("OpenVINO fills in what is missing; its session refuses")
    with pytest.raises(ModelError, match="cannot run the model"):
        time_nodes(runtime, path, feed, runs=1)


def test_profiling_leaves_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = written(tmp_path, "y = Relu(x)")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    time_nodes("onnxruntime", path, {"x": X}, runs=1)
    with pytest.raises(ModelError):
        time_nodes("onnxruntime", path, {"x": X[:2]}, runs=1)
    assert list((tmp_path / "here").iterdir()) == []


@every_runtime
def test_a_session_takes_the_threads_that_it_is_given(tmp_path: Path, runtime: str) -> None:
    path = written(tmp_path, "y = MatMul(x, w)", w=weight())
    session: Any = open_runtime(runtime, path, threads=1)
    if runtime == "onnxruntime":
        assert session._session.get_session_options().intra_op_num_threads == 1
    else:
        assert session._compiled.get_property("INFERENCE_NUM_THREADS") == 1


@every_runtime
def test_a_profile_takes_the_threads_that_it_is_given(tmp_path: Path, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    part, name = (ort, "_options") if runtime == "onnxruntime" else (openvino, "_compile")
    real = getattr(part, name)

    def told(*arguments: Any, threads: int, **options: Any) -> Any:
        asked.append(threads)
        return real(*arguments, threads=threads, **options)

    monkeypatch.setattr(part, name, told)
    time_nodes(runtime, written(tmp_path, "y = Relu(x)"), {"x": X}, runs=1, threads=1)
    assert asked == [1]


@every_runtime
def test_a_runtime_has_a_version(runtime: str) -> None:
    assert version(runtime)[0].isdigit()


@every_runtime
def test_peak_memory_is_at_least_that_of_the_weights(tmp_path: Path, runtime: str) -> None:
    large = np.zeros((64, 250_000), np.float32)  # 64 MB
    path = written(tmp_path, "a = MatMul(x, w) r = ReduceMax<keepdims = 1>(a) y = Add(x, r)", w=large)
    with_model, without = peak_bytes(path, runtime, {"x": X}, threads=1), peak_bytes(None, runtime, {"x": X})
    assert large.nbytes < with_model - without < 10 * large.nbytes


def test_a_process_that_fails_is_an_error_with_its_last_words(tmp_path: Path) -> None:
    path = written(tmp_path, "y = Relu(x)")
    with pytest.raises(ModelError, match=r"peak memory: the process that measures it failed: .*cannot run the model"):
        peak_bytes(path, "onnxruntime", {"x": X[:1]})


def test_inputs_of_any_name_reach_the_process(tmp_path: Path) -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["a/b 'c'", '"<d>".npy'], ["y"])],
            "net",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [4]) for name in ("a/b 'c'", '"<d>".npy')],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [4])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    onnx.save(model, tmp_path / "net.onnx")
    feed = {name: np.ones(4, np.float32) for name in ("a/b 'c'", '"<d>".npy')}
    assert peak_bytes(tmp_path / "net.onnx", "onnxruntime", feed) > 0
