from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from tests.cli.commands import Place, Zeropoint

import zeropoint as zp
from zeropoint.demo import load_digits
from zeropoint.graph.store import serialize

DATA = ("--data", "few.npy")


@pytest.fixture(scope="module")
def quantized() -> bytes:
    digits = load_digits()
    return serialize(zp.quantize(digits.model, data=digits.calibration[:16], target="onnxruntime", effort="fast", evaluate=False).model)


@pytest.fixture
def int8(place: Place, quantized: bytes) -> str:
    (place.folder / "digits.int8.onnx").write_bytes(quantized)
    return "digits.int8.onnx"


def test_the_verdict_comes_first_and_the_worst_layer_leads_the_table(place: Place, zeropoint: Zeropoint, int8: str) -> None:
    model = onnx.load(place.folder / int8)
    scale = next(
        tensor for tensor in model.graph.initializer if tensor.name.startswith("stage2.first.conv.weight") and "scale" in tensor.name
    )
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(1.5), scale.name))
    onnx.save(model, place.folder / "broken.onnx")
    run = zeropoint("compare", "digits.onnx", "broken.onnx", *DATA)
    assert (run.code, run.err) == (0, "")
    first = run.out.splitlines()[0]
    assert first.startswith("the error enters at stage2.first.conv (Conv): ")
    rows = run.out.split("by itself    so far")[1].splitlines()
    assert rows[2].split()[:2] == ["stage2.first.conv", "Conv"]


def test_it_fits_80_columns(place: Place, zeropoint: Zeropoint, int8: str) -> None:
    out = zeropoint("compare", int8, "digits.onnx", *DATA).out
    tables = [line for line in out.splitlines() if line.startswith(" ")]
    assert max(map(len, tables)) <= 80
    assert "only a codes" in out


def test_codes_that_reach_too_far_are_told_in_80_columns(place: Place, zeropoint: Zeropoint, int8: str) -> None:
    plain = zeropoint("compare", "digits.onnx", int8, *DATA).out
    assert "reach" not in plain
    assert "\nlayers that add the most error\n" in plain
    model = onnx.load(place.folder / int8)
    scale = next(tensor for tensor in model.graph.initializer if tensor.name == "stage2.first.relu/scale")
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * np.float32(8), scale.name))
    onnx.save(model, place.folder / "wide.onnx")
    out = zeropoint("compare", "digits.onnx", "wide.onnx", *DATA).out
    assert "\nlayers whose codes reach too far, then those that add the most error\n" in out
    rows = out.split("by itself    so far   reach")[1].splitlines()
    assert rows[2].split()[0] == "stage2.first.relu"
    assert float(rows[2].split()[-1].removesuffix("x")) > 3
    assert max(len(row) for row in rows[: rows.index("")]) <= 80


@pytest.mark.parametrize(("flag", "rows"), [((), 15), (("--all",), 17)], ids=["the worst", "all"])
def test_rows(place: Place, zeropoint: Zeropoint, int8: str, flag: tuple[str, ...], rows: int) -> None:
    out = zeropoint("compare", "digits.onnx", int8, *DATA, *flag).out
    table = out.split("by itself    so far")[1].split("\n\n")[0]
    assert sum(" dB" in line for line in table.splitlines()) == rows
    assert ("--all lists them" in out) == (not flag)


def test_json_holds_all(place: Place, zeropoint: Zeropoint, int8: str) -> None:
    run = zeropoint("compare", "digits.onnx", int8, *DATA, "--labels", "labels.npy", "--json")
    found = json.loads(run.out)
    assert found["verdict"].startswith("the error enters at ")
    assert (found["a"]["quantized"], found["b"]["quantized"]) == (False, True)
    assert len(found["layers"]) == 17
    assert found["enters"] in found["layers"]
    assert found["fidelity"][0]["accuracy"] is not None
    assert run.err == ""


def test_a_report_is_written_on_request(place: Place, zeropoint: Zeropoint, int8: str) -> None:
    pytest.importorskip("jinja2")
    run = zeropoint("compare", "digits.onnx", int8, *DATA, "--report", "compared.html")
    assert run.out.rstrip().endswith("wrote compared.html")
    assert "stage2.second.conv" in (place.folder / "compared.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["digits.onnx", "digits.int8.onnx", "none/compared.html"], ids=["a", "b", "no such folder"])
def test_a_report_goes_nowhere_else(place: Place, zeropoint: Zeropoint, int8: str, file: str) -> None:
    before = {path.name: path.read_bytes() for path in place.folder.iterdir()}
    run = zeropoint("compare", "digits.onnx", int8, *DATA, "--report", file)
    assert run.code == 2
    assert run.err.startswith("error: --report: ")
    assert {path.name: path.read_bytes() for path in place.folder.iterdir()} == before


def test_two_of_the_same(place: Place, zeropoint: Zeropoint) -> None:
    out = zeropoint("compare", "digits.onnx", "digits.onnx", *DATA).out
    assert out.splitlines()[0] == "no difference"
    assert "operators that differ" not in out
    assert "codes that differ" not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        pytest.param(("digits.onnx", "digits.onnx"), "error: --data: found none", id="no data"),
        pytest.param(("digits.onnx", "none.onnx", *DATA), "error: none.onnx: cannot be read", id="no file"),
        pytest.param(("digits.onnx", "digits.onnx", *DATA, "--samples", "0"), "error: --samples: found 0", id="no samples"),
        pytest.param(("digits.onnx", "digits.onnx", *DATA, "--layer-samples", "0"), "--layer-samples: found 0", id="no layer samples"),
    ],
)
def test_mistakes_are_one_paragraph(place: Place, zeropoint: Zeropoint, arguments: tuple[str, ...], message: str) -> None:
    run = zeropoint("compare", *arguments)
    assert run.code == 2
    assert message in run.err.replace("_", "-")
    assert "Traceback" not in run.err


def test_markup_in_names_is_text(place: Place, zeropoint: Zeropoint) -> None:
    model = onnx.load(place.folder / "digits.onnx")
    for node in model.graph.node:
        node.name = f"[red]{node.name}'\"<script>[/]"
    onnx.save(model, place.folder / "odd.onnx")
    run = zeropoint("compare", "odd.onnx", "digits.onnx", *DATA, "--all")
    assert run.code == 0
    assert "[red]" in run.out
