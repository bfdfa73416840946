"""Who takes part, and the whole of `bench` on small networks."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx.parser import parse_model

import zeropoint as zp
from zeropoint.benching import entries as module
from zeropoint.benching import measure
from zeropoint.benching.entries import Request, open_entries, read_subjects
from zeropoint.benching.measure import this_machine
from zeropoint.benching.saved import load_bench
from zeropoint.errors import ModelError, RecipeError
from zeropoint.runtime.cpu import read_cpu
from zeropoint.runtime.openvino import is_installed

REQUEST = Request(models=("n.onnx",), runtimes=("onnxruntime",), threads=1, batch=None, seconds=0.01, shapes={})


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write("n.onnx", "y = Relu(x)")
    return tmp_path


@pytest.fixture(autouse=True)
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Peak memory takes a process for each model, which would take most of the time here; tests/runtime/test_profiles.py has them."""
    monkeypatch.setattr(measure, "peak_bytes", lambda model, runtime, feed, **how: 1000 if model is None else 1500)


def write(name: str, nodes: str, inputs: str = "float[N, 8] x", output: str = "float[N, 8] y", opset: int = 17) -> None:
    onnx.save(
        parse_model(f'<ir_version: 8, opset_import: ["" : {opset}, "com.other" : 1]> net ({inputs}) => ({output}) {{ {nodes} }}'), name
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": ()}, "models: found no model"),
        ({"runtimes": ()}, "found no model or no runtime"),
        ({"runtimes": ("tflite",)}, "runtimes: found 'tflite', expected one of onnxruntime, openvino, tensorrt"),
        ({"threads": -1}, "threads: found -1"),
        ({"batch": 0}, "batch: found 0"),
        ({"seconds": 0.0}, "seconds: found 0.0"),
        ({"seconds": float("nan")}, "seconds: found nan"),
        ({"seconds": float("inf")}, "seconds: found inf"),
        ({"provider": "CUDAExecutionProvider", "runtimes": ("onnxruntime", "openvino")}, "provider: found one of ONNX Runtime's beside"),
    ],
)
def test_impossible_options_are_errors(change: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        replace(REQUEST, **change)


def test_what_does_not_run_has_a_note_with_the_reason_and_the_way_by_hand(folder: Path) -> None:
    write("o'dd.onnx", "y = com.other.Strange(x)")
    request = replace(REQUEST, models=("n.onnx", "o'dd.onnx"), runtimes=("onnxruntime", "tensorrt"))
    found, notes = open_entries(request, read_subjects(request))
    assert [(entry.subject.file, entry.runtime, entry.is_first) for entry in found] == [("n.onnx", "onnxruntime", True)]
    tensorrt, odd = notes
    assert tensorrt.where == "tensorrt"
    assert "trtexec --onnx=n.onnx --stronglyTyped --saveEngine=n.engine" in tensorrt.reason
    assert """trtexec --onnx='o'"'"'dd.onnx'""" in tensorrt.reason
    assert odd.where == "o'dd.onnx on onnxruntime"
    assert "Strange" in odd.reason
    assert {note.kind for note in notes} == {"warning"}


def test_a_runtime_that_is_not_installed_has_a_note(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_installed", lambda name: name == "onnxruntime")
    request = replace(REQUEST, runtimes=("openvino", "onnxruntime"))
    found, [note] = open_entries(request, read_subjects(request))
    assert [entry.runtime for entry in found] == ["onnxruntime"]
    assert str(note) == "openvino: not measured: it is not here; pip install zeropoint[openvino]"


def test_where_the_first_model_does_not_run_there_is_no_ratio_and_a_note(folder: Path) -> None:
    write("odd.onnx", "y = com.other.Strange(x)")
    request = replace(REQUEST, models=("odd.onnx", "n.onnx"))
    _, notes = open_entries(request, read_subjects(request))
    assert str(notes[-1]) == "onnxruntime: there is no ratio: the first model, odd.onnx, does not run there"


def test_where_nothing_runs_it_is_an_error_with_all_reasons(folder: Path) -> None:
    write("fixed.onnx", "s = Constant<value = int64[2] {3, 8}>() y = Reshape(x, s)")  # does not run with one sample
    with pytest.raises(
        ModelError, match=r"no model runs on any of the runtimes: tensorrt: .*fixed\.onnx on onnxruntime: .*fed x \(1, 8\): give"
    ):
        zp.bench("fixed.onnx", runtimes=("tensorrt", "onnxruntime"), seconds=0.01)
    assert zp.bench("fixed.onnx", shapes={"x": (3, 8)}, seconds=0.01).timings[0].batch == 3


def test_a_guess_at_a_shape_is_said(folder: Path) -> None:
    write("wide.onnx", "y = Relu(x)", "float[N, 3, H, W] x", "float[N, 3, H, W] y")
    [note] = [note for note in zp.bench("wide.onnx", seconds=0.01).notes if note.where == "wide.onnx"]
    assert note.kind == "warning"
    assert "it was fed x (1, 3, 1, 1)" in note.reason
    found = zp.bench("wide.onnx", seconds=0.01, shapes={"x": (1, 3, 4, 4)})
    assert "wide.onnx" not in {note.where for note in found.notes}


def test_the_bytes_of_weights_in_files_of_their_own_count(folder: Path) -> None:
    model = parse_model('<ir_version: 8, opset_import: ["" : 17]> n (float[N, 64] x) => (float[N, 64] y) { y = MatMul(x, w) }')
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((64, 64), np.float32), "w"))
    onnx.save(model, "apart.onnx", save_as_external_data=True, location="apart.data", size_threshold=0)
    [subject] = read_subjects(replace(REQUEST, models=("apart.onnx",)))
    assert subject.bytes == Path("apart.onnx").stat().st_size + Path("apart.data").stat().st_size
    assert zp.bench("apart.onnx", seconds=0.01).timings[0].bytes == subject.bytes


OTHERS = {
    "an old opset": ("y = Relu(x)", "float[N, 8] x", "float[N, 8] y", 11),
    "integers out": ("y = ArgMax<axis = 1>(x)", "float[N, 8] x", "int64[N, 1] y", 17),
    "tokens in": ("t = Constant<value = float[3] {1, 2, 3}>() y = Gather(t, x)", "int64[N, 8] x", "float[N, 8] y", 17),
    "empty out": ("n = IsNaN(x) c = Cast<to = 7>(n) y = NonZero(c)", "float[N, 8] x", "int64[2, M] y", 17),
    "a scalar in": ("y = Relu(x)", "float x", "float y", 17),
    "many axes": ("y = Relu(x)", "float[A, B, C, D, E] x", "float[A, B, C, D, E] y", 17),
}


@pytest.mark.parametrize(("nodes", "inputs", "output", "opset"), OTHERS.values(), ids=OTHERS)
def test_networks_of_all_kinds_are_measured(folder: Path, nodes: str, inputs: str, output: str, opset: int) -> None:
    write("other.onnx", nodes, inputs, output, opset)
    [timing] = zp.bench("other.onnx", seconds=0.01, threads=1).timings
    assert 0 < timing.median_ms <= timing.p90_ms <= timing.p99_ms
    assert timing.throughput == pytest.approx(1e3 / timing.median_ms)
    assert timing.profile is not None


def test_the_whole_of_it(folder: Path) -> None:
    write("m.onnx", "a = Relu(x) y = Neg(a)")
    runtimes = ("onnxruntime", "openvino") if is_installed() else ("onnxruntime",)
    stages: list[str] = []
    found = zp.bench(
        ["n.onnx", Path("m.onnx")], runtimes=runtimes, batch=3, seconds=0.01, progress=lambda stage, done, total: stages.append(stage)
    )
    assert [(timing.file, timing.runtime, timing.batch) for timing in found.timings] == [
        (file, runtime, 3) for runtime in runtimes for file in ("n.onnx", "m.onnx")
    ]
    assert [timing.ratio is None for timing in found.timings] == [True, False] * len(runtimes)
    assert all(timing.peak_bytes == 500 and timing.shapes == {"x": (3, 8)} for timing in found.timings)
    assert {timing.provider for timing in found.timings} == {"cpu"}
    assert found.machine == this_machine()
    assert found.machine.processor == read_cpu().name
    assert found.zeropoint
    assert set(stages) >= {"measuring memory", "timing"}
    found.save("b.json")
    assert load_bench("b.json") == found
    again = zp.bench(["n.onnx", "m.onnx"], batch=3, seconds=0.01, against="b.json", tolerance=1e6)
    assert (again.against, again.regressions) == ("b.json", ())
    slower = replace(found, timings=tuple(replace(timing, median_ms=1e-9) for timing in found.timings))
    regressed = zp.bench(["n.onnx", "m.onnx"], batch=3, seconds=0.01, against=slower, by=("latency",)).regressions
    assert [(regression.file, regression.figure) for regression in regressed] == [("n.onnx", "latency"), ("m.onnx", "latency")]
    with pytest.raises(RecipeError, match="found shapes"):
        zp.bench(["n.onnx", "m.onnx"], seconds=0.01, against="b.json")


def test_a_provider_that_is_not_here_is_an_error(folder: Path) -> None:
    with pytest.raises(RecipeError, match="provider: found 'abacus'"):
        zp.bench("n.onnx", provider="abacus")


def test_a_file_that_is_no_network_is_an_error(folder: Path) -> None:
    Path("text.onnx").write_text("hello, world")
    with pytest.raises(ModelError, match=r"text\.onnx"):
        zp.bench(["n.onnx", "text.onnx"])
    with pytest.raises(ModelError, match=r"missing\.onnx"):
        zp.bench("missing.onnx")
