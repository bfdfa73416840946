from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from tests.benching.benches import FIRST, MACHINE, SECOND, bench

from zeropoint import runtime
from zeropoint.benching import comparison as module
from zeropoint.benching.bench import Bench, Machine, Ratio, Timing
from zeropoint.benching.comparison import Guard
from zeropoint.benching.entries import Entry, Request
from zeropoint.benching.saved import load_bench
from zeropoint.errors import DataError, ModelError, OutputError, RecipeError
from zeropoint.notes import Note

OPENVINO = replace(FIRST, runtime="openvino")
REQUEST = Request(models=("net.onnx", "net.int8.onnx"), runtimes=("onnxruntime",), threads=1, batch=2, seconds=1, shapes={})


def guard(before: Bench, **changed: Any) -> Guard:
    return replace(Guard(before=before, source="old.json", tolerance=0.1, by=("latency", "ratio")), **changed)


def entries(*timings: Timing) -> list[Entry]:
    return [
        cast(
            "Entry",
            SimpleNamespace(
                subject=SimpleNamespace(file=told.file, feed={name: np.zeros(shape) for name, shape in told.shapes.items()}),
                runtime=told.runtime,
            ),
        )
        for told in timings
    ]


@pytest.fixture(autouse=True)
def version(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "version", lambda name: "1.0")
    assert runtime.version("onnxruntime") != "1.0"


# --- files -----------------------------------------------------------------------------------------------------------------


def test_what_is_saved_is_what_is_read(tmp_path: Path) -> None:
    notes = (Note("a", "b"), Note("noise", "c", kind="warning"))
    saved = bench(FIRST, SECOND, replace(FIRST, peak_bytes=None, joules=0.25, profile=None), notes=notes)
    saved = replace(saved, against="x.json", regressions=guard(saved).regressions([replace(FIRST, median_ms=9.0)]))
    saved.save(tmp_path / "b.json")
    found = load_bench(tmp_path / "b.json")
    assert found == saved
    assert [note.kind for note in found.notes] == ["network", "warning"]
    assert len(found.regressions) == 1


def test_a_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        bench().save(tmp_path / "no" / "b.json")


def _change(*path: Any, to: Any) -> Any:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = to

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_change("version", to=3), "version: found 3, expected 2"),
        (
            lambda told: told.update(version=1) or [timing.pop("provider") for timing in told["timings"]],
            "version: found 1, expected 2; measure",
        ),
        (_change("timings", 0, "median_ms", to="fast"), r"timings.0.median_ms: .*'fast'"),
        (_change("timings", 1, "speed", to=1), r"timings.1.speed: "),
        (_change("machine", to={}), r"machine.system: Field required"),
        (_change("timings", to=None), "timings: "),
        (_change("timings", 0, "median_ms", to=float("nan")), r"timings\.0\.median_ms: .*finite"),
        (_change("timings", 1, "ratio", "high", to=float("inf")), r"timings\.1\.ratio\.high: .*finite"),
        (_change("timings", 0, "profile", "integer_share", to=float("-inf")), r"timings\.0\.profile\.integer_share: .*finite"),
        (_change("timings", 1, "median_ms", to=0.0), r"timings\.1\.median_ms: found 0\.0, expected more than 0"),
        (_change("timings", 1, "ratio", "value", to=-0.5), r"timings\.1\.ratio\.value: found -0\.5, expected more than 0"),
    ],
    ids=["version", "older", "type", "unknown", "missing", "null", "nan", "inf", "minus-inf", "zero", "negative"],
)
def test_a_file_that_is_no_benchmark_is_an_error_that_names_the_field(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "b.json"
    bench().save(path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(DataError, match=rf"benchmark .*b\.json: {message}"):
        load_bench(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]"], ids=["empty", "cut-off", "binary", "list"])
def test_other_files_are_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "b.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"b\.json: "):
        load_bench(path)


# --- what may be compared --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "there"),
    [
        (replace(MACHINE, processor="A slow one"), "processor A fast one"),
        (replace(MACHINE, cores=2), "cores 4"),
        (replace(MACHINE, architecture="aarch64"), "architecture x86_64"),
        (replace(MACHINE, instruction_sets=()), "instruction_sets"),
    ],
    ids=["processor", "cores", "architecture", "instructions"],
)
def test_milliseconds_of_another_machine_do_not_compare_and_ratios_come_with_a_note(now: Machine, there: str) -> None:
    with pytest.raises(RecipeError, match=rf"against: found a benchmark of another machine \({there}"):
        guard(bench()).check_machine(now)
    [note] = guard(bench(), by=("ratio",)).check_machine(now)
    assert (note.where, note.kind) == ("against", "warning")
    assert there in note.reason
    assert guard(bench()).check_machine(MACHINE) == ()


def test_all_alike_has_no_note() -> None:
    assert guard(bench()).check_entries(entries(FIRST, SECOND), REQUEST) == ()


@pytest.mark.parametrize(
    ("before", "request_", "message"),
    [
        (bench(FIRST), replace(REQUEST, threads=2), "against: net.onnx on onnxruntime: found threads 1 there and 2 here"),
        (bench(replace(FIRST, shapes={"x": (1, 3)})), REQUEST, "found shapes {'x': \\(1, 3\\)} there and {'x': \\(2, 3\\)} here"),
        (bench(replace(FIRST, runtime_version="0.9")), REQUEST, "found onnxruntime 0.9 there and 1.0 here"),
        (bench(replace(FIRST, provider="cuda")), REQUEST, "net.onnx on onnxruntime: found provider cuda there and cpu here"),
        (bench(replace(FIRST, file="old.onnx")), REQUEST, "found old.onnx on onnxruntime in old.json, expected one of the models"),
    ],
    ids=["threads", "shapes", "version", "provider", "no-model"],
)
def test_what_was_measured_otherwise_does_not_compare(before: Bench, request_: Request, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        guard(before).check_entries(entries(FIRST), request_)


@pytest.mark.parametrize(
    ("change", "found"),
    [({"runtime_version": "0.9"}, "onnxruntime 0.9 there and 1.0 here"), ({"provider": "cuda"}, "provider cuda there and cpu here")],
    ids=["version", "provider"],
)
def test_ratios_of_another_version_or_provider_compare_with_one_note(change: dict[str, Any], found: str) -> None:
    before = bench(replace(FIRST, **change), replace(SECOND, **change))
    [note] = guard(before, by=("ratio",)).check_entries(entries(FIRST, SECOND), REQUEST)
    assert note.reason == f"{found}: only ratios are compared"


OTHER = replace(SECOND, file="other.onnx")


@pytest.mark.parametrize("by", [("ratio",), ("latency", "ratio")])
@pytest.mark.parametrize("now", [("net.int8.onnx", "net.onnx"), ("net.int8.onnx",), ("new.onnx", "net.onnx", "net.int8.onnx")])
def test_ratios_to_another_first_model_do_not_compare(by: Any, now: tuple[str, ...]) -> None:
    here = entries(*(replace(FIRST, file=file) for file in now))
    with pytest.raises(
        RecipeError, match=rf"against: found ratios to net.onnx on onnxruntime in old.json, expected ratios to {now[0]}, .*give"
    ):
        guard(bench(), by=by).check_entries(here, replace(REQUEST, models=now))
    guard(bench(), by=("latency",)).check_entries(here, replace(REQUEST, models=now))


def test_the_first_model_is_that_of_each_runtime_which_has_ratios() -> None:
    request = replace(REQUEST, runtimes=("onnxruntime", "openvino"))
    here = entries(FIRST, SECOND, replace(SECOND, runtime="openvino"))
    alone = bench(FIRST, SECOND, replace(SECOND, runtime="openvino", ratio=None))  # the first one does not run there
    assert guard(alone).check_entries(here, request) == ()
    swapped = bench(FIRST, SECOND, replace(SECOND, runtime="openvino", ratio=None), replace(OTHER, runtime="openvino"))
    with pytest.raises(RecipeError, match=r"found ratios to net.int8.onnx on openvino in old.json, expected ratios to net.onnx"):
        guard(swapped).check_entries(here, request)


@pytest.mark.parametrize(
    ("before", "now"),
    [(bench(), (FIRST,)), (bench(FIRST), (FIRST, SECOND)), (bench(FIRST, OTHER), (FIRST, SECOND))],
    ids=["alone-now", "alone-before", "others"],
)
def test_where_no_ratio_compares_it_is_an_error(before: Bench, now: tuple[Timing, ...]) -> None:
    request = replace(REQUEST, models=tuple(timing.file for timing in now))
    with pytest.raises(RecipeError, match=r"against: found no ratio in old.json of a model that runs here, expected at least one"):
        guard(before, by=("ratio",)).check_entries(entries(*now), request)
    guard(before, by=("latency", "ratio")).check_entries(entries(*now), request)


def test_a_new_model_is_told_and_a_lost_one_is_an_error() -> None:
    [note] = guard(bench(FIRST)).check_entries(entries(FIRST, SECOND), REQUEST)
    assert note.reason.startswith("net.int8.onnx on onnxruntime is new")
    with pytest.raises(ModelError, match=r"against: net.int8.onnx ran on onnxruntime in old.json, but does not now"):
        guard(bench()).check_entries(entries(FIRST), REQUEST)


def test_what_was_not_asked_for_is_not_missed() -> None:
    before = bench(FIRST, SECOND, OPENVINO)
    assert guard(before).check_entries(entries(FIRST, SECOND), REQUEST) == ()
    assert guard(before).check_entries(entries(FIRST), replace(REQUEST, models=("net.onnx",))) == ()


# --- what became slower ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("median", "ratio", "by", "figures"),
    [
        (2.0, 0.5, ("latency", "ratio"), []),
        (2.2, 0.55, ("latency", "ratio"), []),
        (2.201, 0.55, ("latency", "ratio"), ["latency"]),
        (2.0, 0.5501, ("latency", "ratio"), ["ratio"]),
        (3.0, 0.8, ("latency", "ratio"), ["latency", "ratio"]),
        (3.0, 0.8, ("ratio",), ["ratio"]),
        (3.0, 0.8, ("latency",), ["latency"]),
        (0.5, 0.1, ("latency", "ratio"), []),
    ],
)
def test_a_figure_that_grew_by_more_than_the_tolerance_is_a_regression(median: float, ratio: float, by: Any, figures: list[str]) -> None:
    now = replace(SECOND, median_ms=median, ratio=Ratio(value=ratio, low=ratio, high=ratio))
    found = guard(bench(), by=by).regressions([FIRST, now, OPENVINO])
    assert [regression.figure for regression in found] == figures
    assert {regression.file for regression in found} <= {"net.int8.onnx"}


def test_a_regression_says_all_in_a_line() -> None:
    now = replace(SECOND, median_ms=3.0, ratio=Ratio(value=0.8, low=0.7, high=0.9))
    assert [str(found) for found in guard(bench()).regressions([now])] == [
        "net.int8.onnx on onnxruntime: latency 2 ms -> 3 ms, +50.0%, more than the 10% allowed",
        "net.int8.onnx on onnxruntime: ratio 0.5 -> 0.8, +60.0%, more than the 10% allowed",
    ]


@pytest.mark.parametrize(
    ("tolerance", "by", "message"),
    [
        (-0.1, ("latency",), "tolerance: found -0.1"),
        (float("nan"), ("latency",), "tolerance: found nan"),
        (0.1, ("speed",), "by: found 'speed', expected latency or ratio, or both"),
        (0.1, (), "by: found 'nothing'"),
    ],
)
def test_impossible_options_are_errors_also_where_nothing_is_compared(tolerance: float, by: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        Guard.of(None, tolerance=tolerance, by=by)


def test_a_benchmark_or_its_file_is_read(tmp_path: Path) -> None:
    bench().save(tmp_path / "b.json")
    of_file = Guard.of(tmp_path / "b.json", tolerance=0.1, by=("ratio",))
    of_value = Guard.of(bench(), tolerance=0.1, by=("ratio",))
    assert of_file is not None
    assert of_value is not None
    assert of_file.before == of_value.before == bench()
    assert of_file.source.endswith("b.json")
    assert Guard.of(None, tolerance=0.1, by=("ratio",)) is None
