"""The report that quantize and solve write beside a model. Slow: each report takes a second or two to draw."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.commands import QUANTIZE, Place, Zeropoint, interrupt

from zeropoint.report import page

WITH_REPORT = (*QUANTIZE[:-1], "--effort", "fast")
REPORT = "digits.int8.onnx.report.html"


def test_report_lies_beside_the_model_and_is_told(place: Place, zeropoint: Zeropoint) -> None:
    pytest.importorskip("vl_convert")
    run = zeropoint(*WITH_REPORT)
    assert run.code == 0
    assert f"wrote digits.int8.onnx, digits.int8.onnx.plan.json and {REPORT}" in run.out
    assert "stage1.first.conv" in Path(REPORT).read_text(encoding="utf-8")
    document = json.loads(zeropoint(*WITH_REPORT, "--json").out)
    assert document["report"] == REPORT
    assert "sample_db" not in document["evidence"]["fidelity"][0]


def test_no_report_is_made_where_none_is_wanted(place: Place, zeropoint: Zeropoint) -> None:
    run = zeropoint(*QUANTIZE, "--no-evaluate", "--json")
    assert json.loads(run.out)["report"] is None
    assert REPORT not in place.files


def test_solve_writes_a_report_too(place: Place, zeropoint: Zeropoint) -> None:
    pytest.importorskip("vl_convert")
    assert zeropoint(*QUANTIZE, "--effort", "fast", "--no-evaluate", "-q", "--checkpoint", "d.stats").code == 0
    run = zeropoint("solve", "d.stats", "digits.onnx", "-t", "openvino", "-o", "again.onnx")
    assert "wrote again.onnx, again.onnx.plan.json and again.onnx.report.html" in run.out
    assert "The networks were not compared on samples" in Path("again.onnx.report.html").read_text(encoding="utf-8")


def test_without_its_libraries_a_line_says_so_and_nothing_else_changes(
    place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page, "LIBRARIES", ("jinja2", "no_such_library"))
    run = zeropoint(*WITH_REPORT, "--no-evaluate")
    assert run.code == 0
    line = 'no report: no_such_library not found, expected what draws it; pip install "zeropoint[report]"\n'
    assert run.err.endswith(line)
    assert "wrote digits.int8.onnx and digits.int8.onnx.plan.json" in run.out
    assert REPORT not in place.files
    assert zeropoint(*WITH_REPORT, "--no-evaluate", "--quiet").err == ""
    assert json.loads(zeropoint(*WITH_REPORT, "--no-evaluate", "--json").out)["report"] is None


def test_report_that_cannot_be_written_leaves_the_model(place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vl_convert")
    Path(REPORT).mkdir()
    run = zeropoint(*WITH_REPORT, "--no-evaluate")
    assert run.code == 0
    assert f"no report: found the folder {REPORT}" in run.err
    assert "digits.int8.onnx" in place.files


def test_interruption_of_the_report_says_what_is_there(place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeropoint.result.quantization_page", interrupt)
    run = zeropoint(*WITH_REPORT, "--no-evaluate", "--quiet")
    assert (run.code, run.err) == (130, "interrupted: wrote digits.int8.onnx and digits.int8.onnx.plan.json\n")
    assert REPORT not in place.files


def test_report_takes_the_place_of_no_file_that_was_given(place: Place, zeropoint: Zeropoint) -> None:
    Path("m.onnx.report.html").write_text("{}")
    run = zeropoint("quantize", "digits.onnx", "-t", "tensorrt", "--plan", "m.onnx.report.html", "-o", "m.onnx", "--no-evaluate")
    assert run.code == 2
    assert run.err.startswith("error: --output: the report of m.onnx would be written over m.onnx.report.html, which --plan reads")


def test_a_report_of_an_earlier_file_is_told(place: Place, zeropoint: Zeropoint) -> None:
    pytest.importorskip("vl_convert")
    assert zeropoint(*WITH_REPORT, "--no-evaluate").code == 0
    run = zeropoint(*QUANTIZE, "--effort", "fast", "--no-evaluate")
    assert f"{REPORT} is of an earlier file" in run.err
    assert "earlier" not in zeropoint(*WITH_REPORT, "--no-evaluate").err


@pytest.mark.parametrize(
    "command",
    [
        ("inspect", "digits.onnx", "--report", "few.npy"),
        ("compare", "digits.onnx", "digits.onnx", "--data", "few.npy", "--report", "few.npy"),
        ("bench", "digits.onnx", "--time", "0.05", "--report", "few.npy"),
    ],
    ids=lambda command: command[0],
)
def test_a_report_takes_the_place_of_nothing_else(command: tuple[str, ...], place: Place, zeropoint: Zeropoint) -> None:
    pytest.importorskip("vl_convert")
    before = Path("few.npy").read_bytes()
    run = zeropoint(*command)
    assert run.code == 2
    assert "few.npy is there and is no report" in run.err
    assert Path("few.npy").read_bytes() == before
