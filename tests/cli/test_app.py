from __future__ import annotations

import hashlib
import inspect
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import onnx
import pytest
import typer
from tests.cli.commands import ESTIMATE, QUANTIZE, Place, Reached, Run, Zeropoint, spawn
from typer.testing import CliRunner

from zeropoint import api
from zeropoint.cli.app import app
from zeropoint.cli.commands import view
from zeropoint.demo import load_digits
from zeropoint.evaluate import measure
from zeropoint.graph.store import serialize
from zeropoint.plan import load_plan
from zeropoint.rules import Finding, Lint
from zeropoint.summary import verdict
from zeropoint.targets import TARGETS

COMMANDS = [command.name or command.callback.__name__ for command in app.registered_commands if command.callback]
LOOKS_STYLED = re.compile(r"\x1b\[")


# --- the real command, in its own process ----------------------------------------------------------------------------------


def test_command_quantizes_and_shows_what_it_cost(place: Place) -> None:
    run = spawn(place.folder, *QUANTIZE, "--labels", "labels.npy")
    assert run.code == 0
    assert ESTIMATE.match(run.err)
    assert ESTIMATE.sub("", run.err) == ""  # what refining changed is calibrated again
    assert place.files == {"digits.onnx", "few.npy", "labels.npy", "digits.int8.onnx", "digits.int8.onnx.plan.json"}
    assert not LOOKS_STYLED.search(run.out)
    table = [line.rstrip() for line in run.out.splitlines()]
    assert table[0].startswith("tensorrt: 3.5x smaller; ")
    for row in (
        r" size +0\.45 MB +0\.13 MB +0\.28 of float",
        r" operators in integers +8 +of 10 that could be",
        r" SQNR +\d\d\.\d dB +median .*",
    ):
        assert any(re.fullmatch(row, line) for line in table)
    assert max(map(len, table[1 : table.index("notes")])) <= 80
    assert "  stem.conv: Conv stays in float: 1 input and 48 output channels; below 16 tensorrt has no integer kernel that pays" in table
    assert "calibrated on 8 of 12 samples of few.npy" in table
    assert table[-2:] == [
        "wrote digits.int8.onnx and digits.int8.onnx.plan.json",
        "next: trtexec --onnx=digits.int8.onnx --stronglyTyped --saveEngine=digits.int8.engine",
    ]


def test_users_mistake_is_a_paragraph_on_standard_error(place: Place) -> None:
    run = spawn(place.folder, "quantize", "none.onnx", "--data", "few.npy", "--target", "tensorrt")
    assert (run.code, run.out) == (2, "")
    assert re.fullmatch(r"error: none\.onnx: cannot be read \(No such file or directory\); expected an ONNX file.*\n", run.err)


def test_json_is_all_that_stands_on_standard_output(place: Place) -> None:
    run = spawn(place.folder, *QUANTIZE, "--json")
    assert (run.code, run.err) == (0, "")
    assert json.loads(run.out)["model"] == "digits.int8.onnx"


# --- quantize --------------------------------------------------------------------------------------------------------------


def test_command_and_function_give_the_same(place: Place, zeropoint: Zeropoint) -> None:
    run = zeropoint(*QUANTIZE, "-o", "own.onnx", "--json")
    result = api.quantize("digits.onnx", data="few.npy", target="tensorrt", samples=8)
    assert (place.folder / "own.onnx").read_bytes() == serialize(result.model)
    assert load_plan(place.folder / "own.onnx.plan.json") == result.plan
    document = json.loads(run.out)
    assert list(document) == ["model", "plan", "report", "target", "verdict", "evidence", "provenance", "steps", "notes", "next"]
    assert (document["model"], document["plan"], document["target"]) == ("own.onnx", "own.onnx.plan.json", "tensorrt")
    assert document["verdict"] == verdict(result)
    assert document["evidence"]["fidelity"][0]["sqnr_db"] == pytest.approx(result.evidence.fidelity[0].sqnr_db)
    assert document["provenance"]["model_sha256"] == hashlib.sha256(Path("digits.onnx").read_bytes()).hexdigest()
    assert document["steps"] == [asdict(step) for step in result.plan.steps]
    assert [note["where"] for note in document["notes"]] == [note.where for note in result.notes]
    assert document["next"] == "trtexec --onnx=own.onnx --stronglyTyped --saveEngine=own.engine"


OPTIONS: dict[str, tuple[Sequence[str], str, Any]] = {
    "defaults": ((), "solver", "auto"),
    "no-data": ((), "eval_data", None),
    "data": ((), "data", "few.npy"),
    "target": ((), "target", "tensorrt"),
    "preprocess": (("--preprocess", "imagenet", "--preprocess", "crop=[9, 9]"), "preprocess", ["imagenet", "crop=[9, 9]"]),
    "no-preprocess": ((), "preprocess", None),
    "solver": (("--solver", "percentile:99"), "solver", "percentile:99"),
    "weight-solver": (("--weight-solver", "minmax"), "weight_solver", "minmax"),
    "samples": (("--samples", "3"), "samples", 3),
    "batch-size": (("--batch-size", "7"), "batch_size", 7),
    "eval-data": (("--eval-data", "few.npy"), "eval_data", "few.npy"),
    "labels": (("--labels", "stem"), "labels", "stem"),
    "plan": (("--plan", "some.json"), "plan", Path("some.json")),
    "include": (("--include", "a*", "--include", "Conv"), "include", ["a*", "Conv"]),
    "exclude": (("--exclude", "b*"), "exclude", ["b*"]),
    "workers": (("--workers", "2"), "workers", 2),
    "memory-budget": (("--memory-budget", "2GB"), "memory_budget", "2GB"),
    "no-memory-budget": ((), "memory_budget", None),
    "provider": (("--provider", "cuda"), "provider", "cuda"),
    "checkpoint": (("--checkpoint", "some.stats"), "checkpoint", Path("some.stats")),
    "weight-storage": (("--weight-storage", "float"), "weight_storage", "float"),
    "bias": (("--bias", "kept"), "bias", "kept"),
    "weight-format": (("--weight-format", "int4"), "weight_format", "int4"),
    "weight-granularity": (("--weight-granularity", "block:16"), "weight_granularity", "block:16"),
    "effort": (("--effort", "best"), "effort", "best"),
    "without": (("--without", "smoothing", "--without", "rounding"), "without", ["smoothing", "rounding"]),
    "seed": (("--seed", "5"), "seed", 5),
    "no-evaluate": (("--no-evaluate",), "evaluate", False),
}


@pytest.mark.parametrize(("arguments", "parameter", "value"), OPTIONS.values(), ids=OPTIONS)
def test_option_reaches_the_function(
    place: Place, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], parameter: str, value: Any
) -> None:
    calls: list[dict[str, Any]] = []

    def called(model: Path, **options: Any) -> None:
        calls.append(options)
        raise Reached

    monkeypatch.setattr(api, "quantize", called)
    result = CliRunner().invoke(app, ["quantize", "digits.onnx", "--data", "few.npy", "--target", "tensorrt", *arguments])
    assert isinstance(result.exception, Reached)
    assert calls[0][parameter] == value


def test_every_parameter_of_the_function_has_its_option() -> None:
    parameters = set(inspect.signature(api.quantize).parameters) - {"model", "progress"}
    assert {parameter for _, parameter, _ in OPTIONS.values()} == parameters


def test_quiet_prints_nothing(place: Place, zeropoint: Zeropoint) -> None:
    assert zeropoint(*QUANTIZE, "--quiet", "--no-evaluate") == Run(0, "", "")
    assert "digits.int8.onnx" in place.files


def test_plan_is_started_from(place: Place, zeropoint: Zeropoint) -> None:
    assert zeropoint(*QUANTIZE, "--no-evaluate", "-q").code == 0
    again = zeropoint(
        "quantize",
        "digits.onnx",
        "-t",
        "tensorrt",
        "--plan",
        "digits.int8.onnx.plan.json",
        "--no-evaluate",
        "--no-report",
        "-o",
        "again.onnx",
        "-q",
    )
    assert again == Run(0, "", "")
    assert (place.folder / "again.onnx").read_bytes() == (place.folder / "digits.int8.onnx").read_bytes()


def test_nothing_is_calibrated_beside_a_plan(place: Place, zeropoint: Zeropoint) -> None:
    assert zeropoint(*QUANTIZE, "--no-evaluate", "-q", "-o", "m.onnx").code == 0
    run = zeropoint("quantize", "digits.onnx", "-t", "tensorrt", "--plan", "m.onnx.plan.json", "--checkpoint", "new.stats")
    assert run.code == 2
    assert run.err.startswith("error: --checkpoint: found new.stats beside a plan, with which nothing is calibrated")


def test_random_data_is_the_first_thing_said(place: Place, zeropoint: Zeropoint) -> None:
    run = zeropoint("quantize", "digits.onnx", "--data", "random", "-t", "tensorrt", "--samples", "4", "--no-evaluate", "--no-report")
    assert run.out.startswith("tensorrt: ONLY A TRIAL: on random numbers, not real data; ")
    assert "calibrated on 4 of 4 samples of random numbers, not real data" in run.out


def test_broken_rules_end_with_3_but_leave_the_file(place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("conv", "zero-points", "found 3, expected 0", "quantize symmetrically")
    monkeypatch.setattr(measure, "lint_model", lambda model, target: Lint((finding,), quantized=True))
    run = zeropoint(*QUANTIZE, "--no-evaluate")
    assert run.code == 3
    assert run.out.startswith("tensorrt: BREAKS RULES of tensorrt in 1 place; ")
    assert "conv: breaks zero-points: found 3, expected 0; quantize symmetrically" in run.out
    assert "digits.int8.onnx" in place.files


# --- mistakes --------------------------------------------------------------------------------------------------------------

MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "no-data": (("quantize", "digits.onnx", "-t", "tensorrt"), r"^error: --data: found none to calibrate with.*; 'random' makes a trial"),
    "labels-without-evaluation": (
        (*QUANTIZE, "--labels", "stem", "--no-evaluate"),
        r"--labels: found 'stem', but evaluation is turned off",
    ),
    "preprocess": ((*QUANTIZE, "--preprocess", "imagenet", "--preprocess", "crop=x"), r"--preprocess: found 'crop=x', expected key=value"),
    "exclude": ((*QUANTIZE, "--exclude", "none.*"), r"--exclude: found 'none\.\*', which fits no node"),
    "without": ((*QUANTIZE, "--without", "bias"), r"^error: --without: found 'bias', expected names of refinements, which are"),
    "missing-data": (("quantize", "digits.onnx", "-t", "tensorrt", "--data", "none/"), r"data: found 'none/'.*check the path"),
    "solver": ((*QUANTIZE, "--solver", "mean"), r"mean"),
    "workers": ((*QUANTIZE, "--workers", "0"), r"^error: --workers: found 0, expected at least 1 process"),
    "memory-budget": ((*QUANTIZE, "--memory-budget", "much"), r"^error: --memory-budget: found 'much', expected .* such as 500MB or 2GB"),
    "provider": ((*QUANTIZE, "--provider", "abacus"), r"^error: --provider: found 'abacus', expected one of .*cpu.*"),
    "checkpoint-is-something-else": ((*QUANTIZE, "--checkpoint", "few.npy"), r"few\.npy: cannot be read .* that `zeropoint quantize"),
    "plan": ((*QUANTIZE, "--plan", "digits.onnx"), r"plan digits\.onnx: cannot be read"),
    "not-a-model": (("lint", "few.npy", "-t", "tensorrt"), r"few\.npy: found \d+ bytes that are not an ONNX model"),
    "no-model": (("lint", "none.onnx", "-t", "tensorrt"), r"none\.onnx: cannot be read"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_paragraph_and_exit_code_2(place: Place, zeropoint: Zeropoint, arguments: Sequence[str], message: str) -> None:
    before = place.files
    run = zeropoint(*(argument.format(here=place.folder.name) for argument in arguments))
    assert (run.code, run.out) == (2, "")
    [line] = ESTIMATE.sub("", run.err).splitlines()
    assert line.startswith("error: ")
    assert re.search(message, line)
    assert place.files == before


@pytest.mark.parametrize("json_too", [False, True], ids=["plain", "json"])
def test_json_is_not_begun_where_there_is_a_mistake(place: Place, zeropoint: Zeropoint, json_too: bool) -> None:
    run = zeropoint("lint", "none.onnx", "-t", "tensorrt", *(["--json"] if json_too else []))
    assert (run.code, run.out) == (2, "")


WRONG_USE: dict[str, tuple[Sequence[str], str]] = {
    "unknown-option": ((*QUANTIZE, "--bits", "4"), "No such option: --bits"),
    "misspelt-option": ((*QUANTIZE, "--exclud", "x"), "--exclude"),
    "unknown-command": (("quantise", "digits.onnx"), "No such command 'quantise'"),
    "unknown-target": (("lint", "digits.onnx", "-t", "cuda"), "'tensorrt'"),
    "no-choice-of-bias": ((*QUANTIZE, "--bias", "none"), "--bias"),
    "no-target": (("lint", "digits.onnx"), "Missing option '--target'"),
    "no-model": (("quantize", "-t", "tensorrt"), "Missing argument"),
    "no-number": ((*QUANTIZE, "--samples", "many"), "--samples"),
    "unknown-choice": ((*QUANTIZE, "--weight-storage", "int4"), "--weight-storage"),
}


@pytest.mark.parametrize(("arguments", "message"), WRONG_USE.values(), ids=WRONG_USE)
def test_wrong_use_is_explained_and_ends_with_2(place: Place, arguments: Sequence[str], message: str) -> None:
    result = CliRunner().invoke(app, arguments, env={"COLUMNS": "80"})
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr
    assert "Traceback" not in result.stderr


# --- lint ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def for_tensorrt() -> bytes:
    digits = load_digits()
    return serialize(api.quantize(digits.model, data=digits.calibration[:4], target="tensorrt", evaluate=False).model)


@pytest.fixture
def linted(place: Place, for_tensorrt: bytes) -> Place:
    (place.folder / "int8.onnx").write_bytes(for_tensorrt)
    return place


def test_lint_says_that_rules_are_kept(linted: Place, zeropoint: Zeropoint) -> None:
    assert zeropoint("lint", "int8.onnx", "-t", "tensorrt") == Run(0, "int8.onnx keeps the rules of tensorrt\n", "")


def test_lint_groups_findings_by_rule_and_ends_with_3(linted: Place, zeropoint: Zeropoint) -> None:
    run = zeropoint("lint", "int8.onnx", "-t", "onnxruntime")
    assert (run.code, run.err) == (3, "")
    lines = run.out.splitlines()
    assert (
        lines[0]
        == f"int8.onnx breaks rules of onnxruntime in {sum(line.startswith('  ') and 'remedy' not in line for line in lines)} places"
    )
    assert lines[2:4] == ["activation-format (6)", "  remedy: quantize for ONNX Runtime on an x86 CPU"]
    assert "  stem.relu/QuantizeLinear: the activation 'stem.relu' has int8 codes, expected uint8" in lines


@pytest.mark.parametrize(("target", "code"), [("tensorrt", 0), ("onnxruntime", 3)])
def test_lint_prints_json_alone(linted: Place, zeropoint: Zeropoint, target: str, code: int) -> None:
    run = zeropoint("lint", "int8.onnx", "-t", target, "--json")
    document = json.loads(run.out)
    assert (run.code, run.err, document["model"], document["target"]) == (code, "", "int8.onnx", target)
    found = api.lint("int8.onnx", target=target)
    assert [finding["node"] for finding in document["findings"]] == [finding.node for finding in found.findings]
    assert document["quantized"] is found.quantized is True


def test_lint_says_that_a_float_network_is_not_quantized(place: Place, zeropoint: Zeropoint) -> None:
    run = zeropoint("lint", "digits.onnx", "-t", "tensorrt")
    assert (run.code, run.err) == (0, "")
    assert run.out.splitlines() == [
        "digits.onnx is NOT QUANTIZED: there is no QuantizeLinear and no DequantizeLinear in it, so that most rules have nothing to check",
        "digits.onnx breaks no rule of tensorrt",
    ]
    document = json.loads(zeropoint("lint", "digits.onnx", "-t", "tensorrt", "--json").out)
    assert document == {"model": "digits.onnx", "target": "tensorrt", "findings": [], "quantized": False}


# --- help ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", COMMANDS)
def test_help_says_what_the_command_does_and_shows_an_example(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"})
    text = " ".join(result.stdout.split())
    assert result.exit_code == 0
    assert f"Example: zeropoint {command} " in text
    assert ("--json" in text) == (command != "view")  # which shows nothing in the terminal
    assert max(map(len, result.stdout.splitlines())) <= 80


@pytest.mark.parametrize("command", COMMANDS)
def test_example_of_the_help_can_be_parsed(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def called(*_: Any, **__: Any) -> None:
        raise Reached

    monkeypatch.setattr(*((view, "serve_graph") if command == "view" else (api, command)), called)
    text = " ".join(CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "80"}).stdout.split())
    arguments = text.partition("Example: zeropoint ")[2].split()
    assert isinstance(CliRunner().invoke(app, arguments).exception, Reached)


@pytest.mark.parametrize("width", [80, 100])
@pytest.mark.parametrize("command", COMMANDS)
def test_help_leaves_room_for_what_an_option_does(command: str, width: int) -> None:
    shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": str(width), "NO_COLOR": "1"}).stdout
    lines = shown.splitlines()
    options = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    for option in options:
        first_words = " ".join(option.help.split()[:3])
        assert any(first_words in line for line in lines)
    assert max(map(len, lines)) <= width
    assert "…" not in shown
    if any(option.name == "target" for option in options):
        assert set(TARGETS) <= set(re.findall(r"[\w-]+", shown))  # no name is broken over two lines


def test_version_is_that_of_the_package(zeropoint: Zeropoint) -> None:
    assert zeropoint("--version") == Run(0, f"zeropoint {version('zeropoint')}\n", "")


def test_command_alone_lists_the_commands() -> None:
    result = CliRunner().invoke(app, [], env={"COLUMNS": "80"})
    assert all(f" {command} " in result.output for command in COMMANDS)


# --- names that look like something else -----------------------------------------------------------------------------------


def test_names_are_printed_as_they_are(place: Place, zeropoint: Zeropoint) -> None:
    model = onnx.load("digits.onnx")
    for node in model.graph.node:
        if node.name == "head":
            node.name = "[bold]/head<b>&amp;[/]"
    file = "m [red]x[b].onnx"
    onnx.save(model, file)
    run = zeropoint("quantize", file, "--data", "few.npy", "-t", "tensorrt", "--samples", "8", "--no-evaluate", "--no-report")
    assert run.code == 0
    assert "  [bold]/head<b>&amp;[/]: Gemm stays in float" in run.out
    assert "wrote m [red]x[b].int8.onnx and m [red]x[b].int8.onnx.plan.json" in run.out
    assert zeropoint("lint", file, "-t", "tensorrt").out.endswith(f"{file} breaks no rule of tensorrt\n")
    assert "error: [bold]none.onnx: cannot be read" in zeropoint("lint", "[bold]none.onnx", "-t", "tensorrt").err
