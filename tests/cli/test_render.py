from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from rich.console import Console

from zeropoint.cli import render
from zeropoint.errors import DataError
from zeropoint.evaluate.evidence import Coverage, Evidence
from zeropoint.evaluate.fidelity import OutputFidelity
from zeropoint.evaluate.latency import Latency
from zeropoint.graph.load import load
from zeropoint.notes import Note
from zeropoint.plan import Plan, Provenance, Step
from zeropoint.result import Result
from zeropoint.rules import Finding, Lint
from zeropoint.targets import get_target

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
EVIDENCE = Evidence(
    float_bytes=4_000_000,
    quantized_bytes=1_000_000,
    coverage=Coverage(8, 10),
    fidelity=(FIDELITY,),
    latency=Latency(runtime="onnxruntime", float_ms=2.0, quantized_ms=1.0, ratio=0.5, rounds=15),
    evaluation_data="500 of 500 samples of photos",
)
WRITTEN = (Path("m.int8.onnx"), Path("m.int8.onnx.plan.json"))


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """What a terminal of 80 columns without colour shows."""
    shown = io.StringIO()
    for name in ("console", "errors"):
        monkeypatch.setattr(render, name, Console(file=shown, width=80, highlight=False, color_system=None))
    return shown


@pytest.fixture
def colours(monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    shown = io.StringIO()
    monkeypatch.setattr(
        render, "console", Console(file=shown, width=80, highlight=False, force_terminal=True, color_system="standard", no_color=False)
    )
    yield shown


def result(*, notes: tuple[Note, ...] = (), **fields: Any) -> Result:
    network = onnx.parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[1, 4] x) => (float[1, 4] y) { y = MatMul(x, w) }')
    network.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), "w"))
    plan = Plan(target="tensorrt", entries=(), provenance=Provenance(calibration_data="128 of 628 samples of photos"))
    return Result(model=load(network), plan=plan, target=get_target(plan.target), evidence=replace(EVIDENCE, **fields), notes=notes)


def test_result_is_a_verdict_a_table_and_the_next_command(screen: io.StringIO) -> None:
    render.show_result(result(notes=(Note("conv", "stays in float"),)), WRITTEN)
    assert [line.rstrip() for line in screen.getvalue().splitlines()] == [
        "tensorrt: 2.0x faster on onnxruntime; 4.0x smaller; 40.0 dB to the float network, 99.8% agreement",
        "",
        "                           float   quantized",
        " ────────────────────────────────────────────────────────────────────────────",
        " size                    4.00 MB     1.00 MB   0.25 of float",
        " operators in integers                     8   of 10 that could be",
        " SQNR                                40.0 dB   median 41.0, worst sample 33.0",
        " cosine                              0.99990",
        " top-1 agreement                      99.80%",
        " accuracy                 98.60%      98.40%   -0.20 points",
        " latency, onnxruntime    2.00 ms     1.00 ms   0.50 of float",
        "",
        "calibrated on 128 of 628 samples of photos",
        "judged on 500 of 500 samples of photos",
        "",
        "notes",
        "  conv: stays in float",
        "",
        "wrote m.int8.onnx and m.int8.onnx.plan.json",
        "next: trtexec --onnx=m.int8.onnx --stronglyTyped --saveEngine=m.int8.engine",
    ]


def test_refinements_stand_between_what_calibrated_and_what_judged(screen: io.StringIO) -> None:
    plain = result()
    steps = (
        Step(name="smoothing", before_db=15.42, after_db=22.71, samples=32, kept=True, detail="2 tensors scaled"),
        Step(name="[b]rounding", before_db=22.71, after_db=22.5, samples=1, kept=False),
    )
    render.show_result(replace(plain, plan=replace(plain.plan, steps=steps)), WRITTEN)
    lines = screen.getvalue().splitlines()
    start = lines.index("calibrated on 128 of 628 samples of photos")
    assert lines[start + 1 : start + 4] == [
        "smoothing: 15.4 -> 22.7 dB on 32 calibration samples set aside, kept",
        "[b]rounding: 22.7 -> 22.5 dB on 1 calibration sample set aside, not kept",
        "judged on 500 of 500 samples of photos",
    ]


def test_json_tells_what_each_refinement_brought() -> None:
    plain = result()
    step = Step(name="rounding", before_db=-math.inf, after_db=30.5, samples=32, kept=True, detail="7 weights")
    document = render.result_document(replace(plain, plan=replace(plain.plan, steps=(step,))), WRITTEN)
    json.dumps(document, allow_nan=False)
    told = {"name": "rounding", "before_db": "-inf", "after_db": 30.5, "samples": 32, "kept": True, "detail": "7 weights"}
    assert document["steps"] == [told]
    assert render.result_document(plain, WRITTEN)["steps"] == []


@pytest.mark.parametrize(
    ("fields", "colour"),
    [
        pytest.param({}, "\x1b[1;32m", id="well"),
        pytest.param({"findings": (Finding("conv", "zero-points", "found 3", "mend it"),)}, "\x1b[1;31m", id="broken-rules"),
        pytest.param({"coverage": Coverage(0, 3)}, "\x1b[1;31m", id="nothing-quantized"),
        pytest.param({"latency": replace(EVIDENCE.latency, ratio=1.2)}, "\x1b[1;31m", id="slower"),  # type: ignore[type-var]
        pytest.param({"evaluation_data": "random numbers, not real data"}, "\x1b[1;31m", id="random"),
        pytest.param({"fidelity": (replace(FIDELITY, incomparable=1),)}, "\x1b[1;31m", id="incomparable"),
    ],
)
def test_bad_news_are_red(colours: io.StringIO, fields: dict[str, Any], colour: str) -> None:
    render.show_result(result(**fields), WRITTEN)
    assert colours.getvalue().startswith(f"{colour}tensorrt: ")


MARKUP = "[bold]/layer[/bold]<b>&amp;</b>[link=x]"


def test_names_that_look_like_markup_are_shown_as_they_are(screen: io.StringIO) -> None:
    outputs = (replace(FIDELITY, output="[red]a"), replace(FIDELITY, output="b[/]"))
    render.show_result(result(notes=(Note(MARKUP, f"because of {MARKUP}"),), fidelity=outputs), (Path("[i]m.onnx"), Path("[i]m.plan")))
    finding = Finding(MARKUP, "rule", f"message {MARKUP}", f"remedy {MARKUP}")
    for lint in (Lint((finding,), True), Lint((), True), Lint((), False)):
        render.show_lint(lint, model=Path("[i]m.onnx"), target="tensorrt")
    render.show_error(DataError(f"{MARKUP}: found [red]nothing[/red]"))
    shown = screen.getvalue()
    for text in (
        "SQNR of [red]a",
        "SQNR of b[/]",
        f"  {MARKUP}: because of {MARKUP}",
        "wrote [i]m.onnx and [i]m.plan",
        f"  {MARKUP}: message {MARKUP}",
        f"  remedy: remedy {MARKUP}",
        "[i]m.onnx keeps the rules of tensorrt",
        "[i]m.onnx is NOT QUANTIZED",
        f"error: {MARKUP}: found [red]nothing[/red]",
    ):
        assert text in shown


def test_notes_of_one_reason_share_a_line(screen: io.StringIO) -> None:
    render.show_result(result(notes=(Note("a", "one reason"), Note("c", "another reason"), Note("b", "one reason"))), WRITTEN)
    shown = screen.getvalue().splitlines()
    assert shown[shown.index("notes") + 1 : shown.index("notes") + 3] == ["  c: another reason", "  a, b: one reason"]


@pytest.mark.parametrize(
    ("count", "shown"),
    [(1, "a"), (2, "a, b"), (3, "a, b, c"), (4, "a, b and 2 more"), (26, "a, b and 24 more")],
    ids="{0}".format,
)
def test_places_of_a_reason_are_listed_where_they_are_few(screen: io.StringIO, count: int, shown: str) -> None:
    render.show_result(result(notes=tuple(Note(chr(ord("a") + i), "reason") for i in range(count))), WRITTEN)
    assert f"\nnotes\n  {shown}: reason\n" in screen.getvalue()


def test_notes_on_the_run_stand_apart(screen: io.StringIO) -> None:
    run = [("latency", "not measured"), ("calibration", "on random numbers"), ("evaluation", "on random numbers")]
    network = [("b", "z"), ("a", "y")]
    notes = (*(Note(*note, kind="run") for note in run), *(Note(*note) for note in network))
    render.show_result(result(notes=notes), WRITTEN)
    shown = screen.getvalue()
    assert "\nnotes\n  a: y\n  b: z\n\nnotes on this run\n  latency: not measured\n  calibration, evaluation: on random numbers\n" in shown


@pytest.mark.parametrize(
    ("kind", "heading"),
    [("run", "notes on this run"), ("warning", "notes on this run"), ("network", "notes"), ("float", "notes")],
)
def test_notes_of_one_kind_have_one_heading(screen: io.StringIO, kind: Literal["network", "float", "run", "warning"], heading: str) -> None:
    render.show_result(result(notes=(Note("conv", "reason", kind=kind),)), WRITTEN)
    assert [line for line in screen.getvalue().splitlines() if line.startswith("notes")] == [heading]


def test_many_reasons_are_cut_short_with_the_place_of_the_others(screen: io.StringIO) -> None:
    render.show_result(result(notes=tuple(Note("a", f"reason {i:02}") for i in range(render.MOST_NOTES + 3))), WRITTEN)
    assert f"  a: reason {render.MOST_NOTES - 1}\n  and 3 other reasons: see m.int8.onnx.plan.json\n" in screen.getvalue()


def test_many_findings_are_cut_short(screen: io.StringIO) -> None:
    findings = tuple(Finding(f"node{i:02}", "rule", "message", "remedy") for i in range(render.MOST_NOTES + 3))
    render.show_lint(Lint(findings, True), model=Path("m.onnx"), target="tensorrt")
    assert "breaks rules of tensorrt in 15 places" in screen.getvalue()
    assert "  and 3 more; --json lists all\n" in screen.getvalue()
    assert "node12" not in screen.getvalue()


FOUND = Finding("conv", "opset", "message", "mend it")
LINTS: dict[str, tuple[Lint, list[str]]] = {
    "kept": (Lint((), True), ["m.onnx keeps the rules of tensorrt"]),
    "broken": (Lint((FOUND,), True), ["m.onnx breaks rules of tensorrt in 1 place", ""]),
    "float": (Lint((), False), ["m.onnx is NOT QUANTIZED: there is no QuantizeLinear and", "m.onnx breaks no rule of tensorrt"]),
    "float-and-broken": (
        Lint((FOUND, FOUND), False),
        ["m.onnx is NOT QUANTIZED: there is no QuantizeLinear and", "m.onnx breaks rules of tensorrt in 2 places", ""],
    ),
}


@pytest.mark.parametrize(("lint", "expected"), LINTS.values(), ids=LINTS)
def test_lint_says_first_whether_there_was_anything_to_check(screen: io.StringIO, lint: Lint, expected: list[str]) -> None:
    render.show_lint(lint, model=Path("m.onnx"), target="tensorrt")
    shown = screen.getvalue().splitlines()
    assert all(line.startswith(beginning) for line, beginning in zip(shown, expected, strict=False))
    assert len(shown) >= len(expected)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("data: found none", "--data: found none"),
        ("batch_size: found 0", "--batch-size: found 0"),
        ("preprocess: found 'x'", "--preprocess: found 'x'"),
        ("memory_budget: found 'x'", "--memory-budget: found 'x'"),
        ("workers: found 0", "--workers: found 0"),
        ("provider: found 'x'", "--provider: found 'x'"),
        ("checkpoint: found x", "--checkpoint: found x"),
        ("statistics: found none", "statistics: found none"),
        ("--output: found x", "--output: found x"),
        ("preprocess p.toml: cannot be read", "preprocess p.toml: cannot be read"),
        ("model: found no nodes", "model: found no nodes"),
        ("m.onnx: found no nodes", "m.onnx: found no nodes"),
        ("plain", "plain"),
    ],
    ids=lambda text: text.partition(" found")[0],
)
def test_error_names_the_option_as_it_is_typed(screen: io.StringIO, message: str, shown: str) -> None:
    render.show_error(DataError(message))
    assert screen.getvalue() == f"error: {shown}\n"


def test_long_error_is_not_broken_into_lines(screen: io.StringIO) -> None:
    render.show_error(DataError("word " * 100))
    assert screen.getvalue().count("\n") == 1


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan], ids=str)
def test_json_has_no_numbers_that_json_lacks(value: float) -> None:
    document = render.result_document(result(fidelity=(replace(FIDELITY, sqnr_db=value),)), WRITTEN)
    json.dumps(document, allow_nan=False)
    assert document["evidence"]["fidelity"][0]["sqnr_db"] == str(value)
