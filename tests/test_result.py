from __future__ import annotations

import hashlib
import math
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from zeropoint.errors import ModelError, OutputError
from zeropoint.evaluate.evidence import Coverage, Evidence
from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.evaluate.latency import Latency
from zeropoint.graph.load import load
from zeropoint.notes import Note
from zeropoint.plan import Plan, Provenance, Step, load_plan
from zeropoint.result import Result
from zeropoint.rules import Finding
from zeropoint.summary import bad_news, summary_rows, verdict
from zeropoint.targets import get_target

NETWORK = '<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4] x) => (float[1, 4] y) { a = Relu(x) y = MatMul(a, w) }'
FIDELITY = OutputFidelity(
    output="y",
    sqnr_db=40.0,
    sqnr_median_db=41.0,
    sqnr_worst_db=33.0,
    cosine=0.9999,
    max_error=0.1,
    incomparable=0,
    agreement=0.998,
    float_accuracy=0.986,
    accuracy=0.984,
)
LATENCY = Latency(runtime="onnxruntime", float_ms=2.0, quantized_ms=1.0, ratio=0.5, rounds=15)
EVIDENCE = Evidence(
    float_bytes=4_000_000,
    quantized_bytes=1_000_000,
    coverage=Coverage(8, 10),
    fidelity=(FIDELITY,),
    latency=LATENCY,
    evaluation_data="photos",
)
FINDING = Finding("zero-points", "conv", "found 3, expected 0", "quantize symmetrically")


def result(evidence: Evidence = EVIDENCE, *, target: str = "tensorrt", calibrated_on: str = "photos") -> Result:
    network = onnx.parser.parse_model(NETWORK)
    network.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    plan = Plan(target=target, entries=(), provenance=Provenance(calibration_data=calibrated_on))
    return Result(model=load(network), plan=plan, target=get_target(target), evidence=evidence, notes=(Note("conv", "stays in float"),))


def changed(**fields: Any) -> Evidence:
    return replace(EVIDENCE, **fields)


def judged(**fields: Any) -> Evidence:
    return changed(fidelity=(FIDELITY, replace(FIDELITY, output="z", **fields)))


@pytest.mark.parametrize(
    ("evidence", "expected"),
    [
        pytest.param(
            EVIDENCE, "2.0x faster on onnxruntime; 4.0x smaller; 40.0 dB to the float network, 99.8% agreement", id="all-measured"
        ),
        pytest.param(changed(fidelity=(), latency=None), "4.0x smaller", id="nothing-measured"),
        pytest.param(changed(latency=None, quantized_bytes=4_200_000, fidelity=()), "1.05 times the size", id="larger"),
        pytest.param(judged(sqnr_db=12.5), "2.0x faster on onnxruntime; 4.0x smaller; 12.5 dB to", id="worst-of-several-outputs"),
        pytest.param(changed(fidelity=(replace(FIDELITY, agreement=None),)), "4.0x smaller; 40.0 dB to the float network", id="no-logits"),
        pytest.param(changed(fidelity=(replace(FIDELITY, sqnr_db=math.inf),)), "4.0x smaller; no error, 99.8% agreement", id="no-error"),
    ],
)
def test_verdict_says_what_was_measured(evidence: Evidence, expected: str) -> None:
    assert expected in verdict(result(evidence))
    assert bad_news(result(evidence)) == []


@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        pytest.param(result(changed(findings=(FINDING, FINDING))), "BREAKS RULES of tensorrt in 2 places", id="broken-rules"),
        pytest.param(result(changed(findings=(FINDING,))), "BREAKS RULES of tensorrt in 1 place; ", id="one-broken-rule"),
        pytest.param(
            result(changed(coverage=Coverage(0, 0))),
            "NOTHING QUANTIZED: no operator found that tensorrt could compute in integers",
            id="none",
        ),
        pytest.param(
            result(changed(coverage=Coverage(0, 3))), "NOTHING QUANTIZED: none of 3 operators that tensorrt could", id="none-of-some"
        ),
        pytest.param(
            result(calibrated_on="9 of random numbers, not real data"),
            "ONLY A TRIAL: on random numbers, not real data",
            id="calibrated-on-random",
        ),
        pytest.param(result(changed(evaluation_data="random numbers, not real data")), "ONLY A TRIAL", id="judged-on-random"),
        pytest.param(result(judged(sqnr_db=9.9)), "FAR FROM FLOAT: the error is a third of the output or more", id="low-fidelity"),
        pytest.param(
            replace(result(), notes=(Note("held-out", "reason", kind="warning"),)),
            "JUDGED BY THE SAMPLES THAT CALIBRATED",
            id="not-held-out",
        ),
        pytest.param(
            replace(result(changed(coverage=Coverage(0, 3))), notes=(Note("weights", "reason", kind="warning"),)),
            "NO INTEGER KERNEL of tensorrt takes these weights",
            id="weights-of-no-kernel",
        ),
        pytest.param(replace(result(), notes=(Note("plan", "reason", kind="warning"),)), "PLAN OF ANOTHER FILE", id="another-file"),
        pytest.param(result(judged(incomparable=3)), "3 samples of z CANNOT BE COMPARED with float", id="incomparable"),
        pytest.param(result(judged(incomparable=1)), "1 sample of z CANNOT BE COMPARED with float", id="one-incomparable"),
        pytest.param(
            result(changed(latency=replace(LATENCY, ratio=1.25))), "SLOWER than float on onnxruntime: 1.25 times its latency", id="slower"
        ),
    ],
)
def test_verdict_begins_with_the_bad_news(bad: Result, expected: str) -> None:
    assert verdict(bad).startswith(f"tensorrt: {expected}")
    assert len(bad_news(bad)) == 1
    assert verdict(bad) == bad.summary.splitlines()[0]


def test_summary_is_a_table_of_what_was_measured() -> None:
    lines = [line.rstrip() for line in result().summary.splitlines()]
    assert lines[1:] == [
        "",
        "                       float    quantized",
        "size                   4.00 MB  1.00 MB    0.25 of float",
        "operators in integers           8          of 10 that could be",
        "SQNR                            40.0 dB    median 41.0, worst sample 33.0",
        "cosine                          0.99990",
        "top-1 agreement                 99.80%",
        "accuracy               98.60%   98.40%     -0.20 points",
        "latency, onnxruntime   2.00 ms  1.00 ms    0.50 of float",
        "",
        "1 note on what stayed in float and what to know: see .notes",
    ]


def test_summary_tells_what_each_refinement_brought() -> None:
    plain = result()
    smoothing = Step(name="smoothing", before_db=15.42, after_db=22.71, samples=32, kept=True)
    rounding = Step(name="rounding", before_db=22.71, after_db=22.69, samples=32, kept=False)
    lines = replace(plain, plan=replace(plain.plan, steps=(smoothing, rounding))).summary.splitlines()
    assert lines[-4:] == [
        "smoothing: 15.4 -> 22.7 dB on 32 calibration samples set aside, kept",
        "rounding: 22.7 -> 22.7 dB on 32 calibration samples set aside, not kept",
        "",
        "1 note on what stayed in float and what to know: see .notes",
    ]
    assert lines[:-3] == [*plain.summary.splitlines()[:-1], lines[-4]]


def test_summary_names_outputs_where_there_are_several() -> None:
    summary = result(judged(sqnr_db=12.5, agreement=None, accuracy=None)).summary
    assert [line.split("  ")[0] for line in summary.splitlines() if line.startswith(("SQNR", "top-1", "acc"))] == [
        "SQNR of y",
        "top-1 agreement of y",
        "accuracy of y",
        "SQNR of z",
    ]


def test_summary_leaves_out_what_was_not_measured() -> None:
    lines = result(changed(fidelity=(), latency=None)).summary.splitlines()
    assert [line.split("  ")[0] for line in lines[3:5]] == ["size", "operators in integers"]
    assert lines[5] == ""


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        (999, "1.00 kB"),
        (4_321, "4.32 kB"),
        (99_990, "99.99 kB"),
        (100_000, "0.10 MB"),
        (4_000_000, "4.00 MB"),
        (2_345_678_901, "2345.68 MB"),
    ],
    ids="{0}".format,
)
def test_sizes_are_in_the_unit_that_shows_them(size: int, expected: str) -> None:
    [row, *_] = summary_rows(changed(float_bytes=size, quantized_bytes=size))
    assert (row.float_value, row.quantized_value) == (expected, expected)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("tensorrt", "trtexec --onnx=out/m.int8.onnx --stronglyTyped --saveEngine=out/m.int8.engine"),
        ("onnxruntime", "python -m onnxruntime.tools.onnxruntime_test out/m.int8.onnx 100"),
        ("onnxruntime-arm", "python -m onnxruntime.tools.onnxruntime_test out/m.int8.onnx 100"),
        ("openvino", "benchmark_app -m out/m.int8.onnx"),
    ],
)
def test_next_command_runs_the_file_on_the_target(target: str, expected: str) -> None:
    assert result(target=target).next_command(Path("out/m.int8.onnx")) == expected


NAMES = ["plain.onnx", "with a space.onnx", "it's.onnx", "$HOME & more;.onnx", "a {brace}.onnx"]


@pytest.mark.parametrize("name", NAMES)
def test_next_command_is_quoted_for_a_shell(name: str) -> None:
    commands = [result(target=target).next_command(Path("my out", name)) for target in ("tensorrt", "onnxruntime", "openvino")]
    path = f"my out/{name}"
    assert [shlex.split(command)[1:] for command in commands] == [
        [f"--onnx={path}", "--stronglyTyped", f"--saveEngine={path.removesuffix('.onnx')}.engine"],
        ["-m", "onnxruntime.tools.onnxruntime_test", path, "100"],
        ["-m", path],
    ]


def test_next_command_for_onnxruntime_tells_the_latency(tmp_path: Path) -> None:
    path, _ = result(target="onnxruntime").save(tmp_path / "a model.onnx")
    program, *arguments = shlex.split(result(target="onnxruntime").next_command(path))
    done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=True)
    assert program == "python"
    assert re.search(r"avg latency: \d+\.\d+ ms", done.stdout)


@pytest.mark.parametrize("as_path", [str, Path], ids=["str", "path"])
def test_save_writes_the_model_and_its_plan(tmp_path: Path, as_path: Callable[[Path], str | Path]) -> None:
    written = result().save(as_path(tmp_path / "m.int8.onnx"))
    assert written == (tmp_path / "m.int8.onnx", tmp_path / "m.int8.onnx.plan.json")
    assert set(tmp_path.iterdir()) == set(written)
    session = onnxruntime.InferenceSession(written[0], providers=["CPUExecutionProvider"])
    assert session.run(None, {"x": np.array([[1, -2, 3, -4]], np.float32)})[0].tolist() == [[1, 0, 3, 0]]
    assert load_plan(written[1]) == result().plan


@pytest.mark.parametrize("folder", ["missing", "a-file"])
def test_save_into_no_folder_is_an_error(tmp_path: Path, folder: str) -> None:
    (tmp_path / "a-file").write_text("")
    with pytest.raises(OutputError, match=rf"{folder}/m\.onnx: cannot be written \(.*directory.*\); nothing was changed there"):
        result().save(tmp_path / folder / "m.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["a-file"]


def no_space(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def unloadable(*_: object, **__: object) -> None:
    raise ModelError("ONNX Runtime cannot load the model")


@pytest.mark.parametrize(
    ("place", "failure", "error"),
    [
        pytest.param("os.fsync", no_space, OutputError, id="disk-full"),
        pytest.param("os.replace", no_space, OutputError, id="cannot-be-renamed"),
        pytest.param("os.fsync", interrupted, KeyboardInterrupt, id="interrupted"),
        pytest.param("zeropoint.result.Session", unloadable, ModelError, id="does-not-load"),
        pytest.param("zeropoint.result.Session", interrupted, KeyboardInterrupt, id="interrupted-while-it-is-checked"),
    ],
)
def test_failed_save_leaves_what_stood_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str, failure: Callable[..., None], error: type[BaseException]
) -> None:
    result().save(tmp_path / "m.onnx")
    before = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()}
    monkeypatch.setattr(place, failure)
    with pytest.raises(error):
        result(target="openvino").save(tmp_path / "m.onnx")
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in tmp_path.iterdir()} == before


@pytest.mark.skipif(os.name != "posix", reason="limits of file size are POSIX's")
def test_save_to_a_disk_that_takes_no_more_is_an_error(tmp_path: Path) -> None:
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        with pytest.raises(OutputError, match=r"m\.onnx: cannot be written \(File too large\); nothing was changed there"):
            result().save(tmp_path / "m.onnx")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []
