from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.cli.commands import QUANTIZE, Place
from typer.testing import CliRunner

from zeropoint import api
from zeropoint.cli.app import app
from zeropoint.cli.destination import destination
from zeropoint.errors import RecipeError

SOLVE = ("solve", "digits.stats", "digits.onnx", "--target", "tensorrt")
REFUSED: dict[str, tuple[Sequence[str], str]] = {
    "the-model": ((*QUANTIZE, "-o", "digits.onnx"), r"--output: found digits\.onnx, which is the float model itself"),
    "the-model-by-another-path": ((*QUANTIZE, "-o", "../{here}/digits.onnx"), r"--output: .* which is the float model itself"),
    "the-model-by-a-link": ((*QUANTIZE, "-o", "link.onnx"), r"--output: found link\.onnx, which is the float model itself"),
    "no-folder": ((*QUANTIZE, "-o", "none/m.onnx"), r"--output: folder .*/none does not exist; make it first"),
    "a-folder": ((*QUANTIZE, "-o", "."), r"--output: found the folder \., expected the name of the file to write"),
    "the-plan": (
        (*QUANTIZE, "-o", "m.onnx.plan.json", "--plan", "m.onnx.plan.json"),
        r"--output: m\.onnx\.plan\.json would be written over",
    ),
    "over-the-plan": (
        (*QUANTIZE, "-o", "m.onnx", "--plan", "m.onnx.plan.json"),
        r"--output: the plan of m\.onnx would be written over m\.onnx\.plan\.json, which --plan reads; name another file",
    ),
    "the-checkpoint": (
        (*QUANTIZE, "-o", "m.onnx", "--checkpoint", "./m.onnx"),
        r"--output: m\.onnx would be written over m\.onnx, which --checkpoint names; name another file",
    ),
    "over-the-checkpoint": (
        (*QUANTIZE, "--checkpoint", "digits.int8.onnx.plan.json"),
        r"--output: the plan of digits\.int8\.onnx would be written over .*, which --checkpoint names",
    ),
    "checkpoint-in-no-folder": ((*QUANTIZE, "--checkpoint", "none/x.stats"), r"--checkpoint: folder .*/none does not exist; make it first"),
    "solve-the-model": ((*SOLVE, "-o", "digits.onnx"), r"--output: found digits\.onnx, which is the float model itself"),
    "solve-no-folder": ((*SOLVE, "-o", "none/m.onnx"), r"--output: folder .*/none does not exist"),
    "solve-the-statistics": (
        (*SOLVE, "-o", "digits.stats"),
        r"--output: digits\.stats would be written over digits\.stats, which is STATS; name another file",
    ),
    "solve-over-the-statistics": (
        ("solve", "m.onnx.plan.json", "digits.onnx", "-t", "tensorrt", "-o", "m.onnx"),
        r"--output: the plan of m\.onnx would be written over m\.onnx\.plan\.json, which is STATS; name another file",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), REFUSED.values(), ids=REFUSED)
def test_output_is_refused_before_any_work(place: Place, monkeypatch: pytest.MonkeyPatch, arguments: Sequence[str], message: str) -> None:
    for name in ("digits.stats", "m.onnx.plan.json"):
        Path(name).touch()
    os.link("digits.onnx", "link.onnx")
    monkeypatch.setattr(api, "quantize", None)
    monkeypatch.setattr(api, "solve", None)
    before = place.files
    result = CliRunner().invoke(app, [argument.format(here=place.folder.name) for argument in arguments])
    assert isinstance(result.exception, RecipeError)
    assert re.match(message, str(result.exception))
    assert place.files == before


def test_name_is_that_of_the_model_where_none_is_given(place: Place) -> None:
    assert destination(Path("some/where/net.onnx"), None, spared={"which --plan reads": None}) == Path("net.int8.onnx")


def test_earlier_result_may_be_written_over(place: Place) -> None:
    for name in ("m.onnx", "m.onnx.plan.json"):
        Path(name).touch()
    assert destination(Path("digits.onnx"), Path("m.onnx"), spared={}) == Path("m.onnx")


def test_folder_must_take_files(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(RecipeError, match=r"--output: folder .* cannot be written to; choose another one, so that no work is lost"):
        destination(Path("digits.onnx"), Path("m.onnx"), spared={})
