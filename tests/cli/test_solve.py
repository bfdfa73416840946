from __future__ import annotations

import inspect
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tests.cli.commands import QUANTIZE, Place, Reached, Zeropoint, spawn
from typer.testing import CliRunner

from zeropoint import api
from zeropoint.cli.app import app
from zeropoint.evaluate import measure
from zeropoint.graph.store import serialize
from zeropoint.plan import load_plan
from zeropoint.rules import Finding, Lint
from zeropoint.targets import TARGETS

SOLVE = ("solve", "digits.stats", "digits.onnx", "--no-report", "--target")


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The statistics of a finished calibration."""
    from zeropoint.demo import load_digits

    digits, path = load_digits(), tmp_path_factory.mktemp("kept") / "digits.stats"
    api.quantize(digits.model, data=digits.calibration[:8], target="tensorrt", evaluate=False, checkpoint=path)
    return path.read_bytes()


@pytest.fixture
def solvable(place: Place, kept: bytes) -> Place:
    (place.folder / "digits.stats").write_bytes(kept)
    return place


def test_command_shows_a_result_as_quantize_does(solvable: Place) -> None:
    run = spawn(solvable.folder, *SOLVE, "openvino")
    assert (run.code, run.err) == (0, "")
    shown = [line.rstrip() for line in run.out.splitlines()]
    assert shown[0] == "openvino: 3.6x smaller"
    assert any(re.fullmatch(r" size +0\.45 MB +0\.1\d MB +0\.2\d of float", line) for line in shown)
    assert "calibrated on 8 of 8 samples of arrays in memory" in shown
    assert shown[-2:] == ["wrote digits.int8.onnx and digits.int8.onnx.plan.json", "next: benchmark_app -m digits.int8.onnx"]
    assert solvable.files == {"digits.onnx", "few.npy", "labels.npy", "digits.stats", "digits.int8.onnx", "digits.int8.onnx.plan.json"}


@pytest.mark.parametrize("target", TARGETS)
def test_command_and_function_give_the_same(solvable: Place, zeropoint: Zeropoint, target: str) -> None:
    run = zeropoint(*SOLVE, target, "--solver", "minmax", "-o", "own.onnx", "--json")
    result = api.solve("digits.stats", "digits.onnx", target=target, solver="minmax")
    assert (run.code, run.err) == (0, "")
    assert Path("own.onnx").read_bytes() == serialize(result.model)
    assert load_plan("own.onnx.plan.json") == result.plan
    document = json.loads(run.out)
    assert list(document) == ["model", "plan", "report", "target", "verdict", "evidence", "provenance", "steps", "notes", "next"]
    assert (document["model"], document["target"], document["provenance"]["solver"]) == ("own.onnx", target, "minmax")


def test_solving_again_gives_what_quantizing_gave(place: Place, zeropoint: Zeropoint) -> None:
    fast = ("--effort", "fast", "--no-evaluate", "--quiet")
    assert zeropoint(*QUANTIZE, *fast, "--checkpoint", "own.stats", "-o", "first.onnx").code == 0
    assert zeropoint("solve", "own.stats", "digits.onnx", "-t", "tensorrt", "-o", "again.onnx", "--quiet").code == 0
    assert Path("again.onnx").read_bytes() == Path("first.onnx").read_bytes()


OPTIONS: dict[str, tuple[Sequence[str], str, Any]] = {
    "statistics": ((), "statistics", Path("digits.stats")),
    "model": ((), "model", Path("digits.onnx")),
    "target": ((), "target", "tensorrt"),
    "defaults": ((), "solver", "auto"),
    "solver": (("--solver", "entropy"), "solver", "entropy"),
    "weight-solver": (("--weight-solver", "minmax"), "weight_solver", "minmax"),
    "include": (("--include", "a*", "--include", "Conv"), "include", ["a*", "Conv"]),
    "exclude": (("--exclude", "b*"), "exclude", ["b*"]),
    "bias": (("--bias", "kept"), "bias", "kept"),
    "weight-format": (("--weight-format", "int4"), "weight_format", "int4"),
    "weight-granularity": (("--weight-granularity", "block:16"), "weight_granularity", "block:16"),
    "weight-storage": (("--weight-storage", "float"), "weight_storage", "float"),
}


@pytest.mark.parametrize(("arguments", "parameter", "value"), OPTIONS.values(), ids=OPTIONS)
def test_option_reaches_the_function(
    place: Place, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], parameter: str, value: Any
) -> None:
    calls: list[dict[str, Any]] = []

    def called(statistics: Path, model: Path, **options: Any) -> None:
        calls.append({"statistics": statistics, "model": model, **options})
        raise Reached

    monkeypatch.setattr(api, "solve", called)
    result = CliRunner().invoke(app, [*SOLVE, "tensorrt", *arguments])
    assert isinstance(result.exception, Reached)
    assert calls[0][parameter] == value


def test_every_parameter_of_the_function_has_its_option() -> None:
    assert {parameter for _, parameter, _ in OPTIONS.values()} == set(inspect.signature(api.solve).parameters)


@pytest.mark.parametrize(
    "parameter", sorted(set(inspect.signature(api.solve).parameters) & set(inspect.signature(api.quantize).parameters))
)
def test_option_means_and_defaults_to_the_same_as_in_quantize(parameter: str) -> None:
    ours, theirs = (inspect.signature(function).parameters[parameter] for function in (api.solve, api.quantize))
    assert ours.default == theirs.default
    assert theirs.annotation in (ours.annotation, f"{ours.annotation} | Module")  # a module alone is no network that statistics are of


def test_quiet_prints_nothing(solvable: Place, zeropoint: Zeropoint) -> None:
    run = zeropoint(*SOLVE, "tensorrt", "--quiet")
    assert (run.code, run.out, run.err) == (0, "", "")
    assert "digits.int8.onnx" in solvable.files


def test_broken_rules_end_with_3_but_leave_the_file(solvable: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch) -> None:
    finding = Finding("conv", "zero-points", "found 3, expected 0", "quantize symmetrically")
    monkeypatch.setattr(measure, "lint_model", lambda model, target: Lint((finding,), quantized=True))
    run = zeropoint(*SOLVE, "tensorrt")
    assert (run.code, run.err) == (3, "")
    assert run.out.startswith("tensorrt: BREAKS RULES of tensorrt in 1 place; ")
    assert "digits.int8.onnx" in solvable.files


MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "no-statistics": (
        ("solve", "none.stats", "digits.onnx", "-t", "tensorrt"),
        r"none\.stats: cannot be read \(No such file or directory\)",
    ),
    "no-such-file": (
        ("solve", "few.npy", "digits.onnx", "-t", "tensorrt"),
        r"few\.npy: cannot be read .* `zeropoint quantize --checkpoint`",
    ),
    "another-model": (("solve", "digits.stats", "other.onnx", "-t", "tensorrt"), r"digits\.stats: found those of a model with SHA-256 "),
    "no-model": (("solve", "digits.stats", "none.onnx", "-t", "tensorrt"), r"none\.onnx: cannot be read"),
    "solver": ((*SOLVE, "tensorrt", "--solver", "mean"), r"^error: --solver: found 'mean'"),
    "exclude": ((*SOLVE, "tensorrt", "--exclude", "none.*"), r"^error: --exclude: found 'none\.\*', which fits no node"),
}


@pytest.mark.parametrize(("arguments", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_one_paragraph_and_exit_code_2(solvable: Place, zeropoint: Zeropoint, arguments: Sequence[str], message: str) -> None:
    Path("other.onnx").write_bytes(Path("digits.onnx").read_bytes() + b"\x1a\x05other")  # of the same network: a name for its model_version
    before = solvable.files
    run = zeropoint(*arguments)
    assert (run.code, run.out) == (2, "")
    [line] = run.err.splitlines()
    assert re.search(message, line)
    assert solvable.files == before
