"""What `inspect` draws: the table of layers in any width, and the lines about it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from tests.cli.commands import Place, Zeropoint

import zeropoint as zp
from zeropoint.cli.inspection import _dtypes, layer_table
from zeropoint.demo import load_digits
from zeropoint.inspection import Inspection

COLUMNS = ["operator", "weight", "output", "in·w→out", "params", "MACs", "share", "moved"]


def chain(names: list[str], path: Path) -> Path:
    """A chain of products, one called as each of `names`."""
    edges = ["x", *(f"t{place}" for place in range(len(names) - 1)), "y"]
    nodes = [helper.make_node("MatMul", [edges[place], "w"], [edges[place + 1]], name) for place, name in enumerate(names)]
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 8]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ports[:1], ports[1:], [numpy_helper.from_array(np.ones((8, 8), np.float32), "w")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture(scope="module")
def digits() -> Inspection:
    return zp.inspect(load_digits().model)


def drawn(found: Inspection, width: int) -> list[str]:
    console = Console(width=width, no_color=True, force_terminal=False)
    with console.capture() as capture:
        console.print(layer_table(found.layers, width=width))
    return capture.get().splitlines()


@pytest.mark.parametrize(
    ("width", "left_out"),
    [
        pytest.param(200, ["in·w→out"], id="wide"),
        pytest.param(80, ["output", "in·w→out"], id="80-columns"),
        pytest.param(60, ["output", "in·w→out", "params", "moved"], id="60-columns"),
        pytest.param(34, ["output", "in·w→out", "params", "moved", "share", "weight", "operator"], id="34-columns"),
    ],
)
def test_columns_that_do_not_fit_are_left_out_and_named(digits: Inspection, width: int, left_out: list[str]) -> None:
    lines = drawn(digits, width)
    header = next(line for line in lines if "layer" in line).split()
    assert header == ["layer", *(column for column in COLUMNS if column not in left_out)]
    assert max(map(len, lines)) <= width
    caption = " ".join(" ".join(lines).split()).rpartition("in each")[2]
    assert all((column in caption) == (column in left_out) for column in COLUMNS if column != "in·w→out")
    assert sum("conv" in line for line in lines) == 6, "a layer has a line"


def test_what_is_known_of_no_layer_has_no_column(digits: Inspection) -> None:
    layers = tuple(replace(layer, macs=None, mac_share=None, bytes_moved=None, output_shape=None) for layer in digits.layers)
    header = next(line for line in drawn(replace(digits, layers=layers), 120) if "layer" in line).split()
    assert header == ["layer", "operator", "weight", "params"]


def test_dtypes_have_a_column_where_they_differ(tmp_path: Path) -> None:
    path = tmp_path / "digits.onnx"
    samples = load_digits().calibration[:8]
    zp.quantize(load_digits().model, data=samples, target="tensorrt", effort="fast", evaluate=False).save(path)
    lines = drawn(zp.inspect(path), 100)
    assert any("stem.conv" in line and "f32·f32→" in line for line in lines)
    assert any("stage2.first.conv" in line and "i8·i8→" in line for line in lines)


@pytest.mark.parametrize(
    ("names", "cut"),
    [
        pytest.param([f"/encoder/blocks.{i}/attention/MatMul" for i in range(3)], "…", id="ends-differ"),
        pytest.param([f"/{i}/branch/branch.0/branch.0.0/MatMul" for i in range(3)], "/0/br", id="beginnings-differ"),
    ],
)
def test_long_names_are_cut_where_they_stay_different(tmp_path: Path, names: list[str], cut: str) -> None:
    lines = drawn(zp.inspect(chain(names, tmp_path / "chain.onnx")), 80)
    shown = [line.split()[0] for line in lines if "MatMul" in line]
    assert len(set(shown)) == len(names)
    assert shown[0].startswith(cut) and all("…" in name for name in shown)


def test_names_are_no_markup(zeropoint: Zeropoint, tmp_path: Path) -> None:
    run = zeropoint("inspect", str(chain(["[red]a[/red]", "b'\"</b>"], tmp_path / "chain.onnx")))
    assert "[red]a[/red]" in run.out and "b'\"</b>" in run.out


def test_long_network_is_cut_and_all_lists_it(zeropoint: Zeropoint, tmp_path: Path) -> None:
    path = chain([f"layer{place}" for place in range(30)], tmp_path / "chain.onnx")
    short, full = zeropoint("inspect", str(path)).out, zeropoint("inspect", str(path), "--all").out
    assert "and 10 more layers: --all lists them, --json too" in short
    assert "layer29" in full and "layer29" not in short


def test_dtypes_of_the_first_convolution_are_told(zeropoint: Zeropoint, place: Place) -> None:
    first = zeropoint("inspect", "digits.onnx").out
    assert "first Conv, stem.conv: input float32, weight float32 48×1×5×5, bias -, output float32" in first
    assert "codes multiply codes" not in first
    arguments = ("digits.onnx", "--data", "few.npy", "--target", "onnxruntime", "--samples", "8", "--effort", "fast", "--no-evaluate")
    assert zeropoint("quantize", *arguments, "--quiet").code == 0
    run = zeropoint("inspect", "digits.int8.onnx")
    assert "first Conv, stem.conv: input uint8, weight int8 48×1×5×5, bias int32 48, output uint8" in run.out
    assert "codes multiply codes in 7 of 7 weighted operators, 100 % of the multiply-accumulates" in run.out


def test_totals_are_at_least_what_was_counted(zeropoint: Zeropoint, tmp_path: Path) -> None:
    path = chain(["a", "b"], tmp_path / "chain.onnx")
    assert "multiply-accumulates: 128 for x" in zeropoint("inspect", str(path)).out
    model = onnx.load(path)
    model.graph.node.append(helper.make_node("Einsum", ["x", "w"], ["e"], equation="ij,jk->ik"))
    onnx.save(model, path)
    run = zeropoint("inspect", str(path))
    assert "multiply-accumulates: at least 128 for x 1×8; shares are of these" in run.out
    assert "1 Einsum: the multiply-accumulates of these are not counted" in run.out
    assert json.loads(zeropoint("inspect", str(path), "--json").out)["uncounted"] == {"Einsum": 1}


def test_share_is_that_of_what_was_counted(digits: Inspection) -> None:
    coded = replace(digits, quantized=True, layers=tuple(replace(layer, integer=True) for layer in digits.layers))
    lines = [str(line) for line in _dtypes(replace(coded, uncounted={"LSTM": 1}))]
    assert lines[0].endswith("100 % of the multiply-accumulates that are counted")


def test_json_keeps_what_it_had(zeropoint: Zeropoint, place: Place) -> None:
    found = json.loads(zeropoint("inspect", "digits.onnx", "--json").out)
    assert {"opset", "inputs", "outputs", "operators", "layers", "parameters", "macs", "bytes_by_dtype", "quantized"} <= found.keys()
    assert {"node", "operator", "input_dtype", "output_dtype", "weight", "bias", "macs"} <= found["layers"][0].keys()
    assert found["layers"][0]["mac_share"] == pytest.approx(235200 / found["macs"], rel=0.2)


def test_report_is_written_and_told(zeropoint: Zeropoint, place: Place) -> None:
    pytest.importorskip("jinja2")
    run = zeropoint("inspect", "digits.onnx", "--report", "page.html")
    assert run.code == 0
    assert run.out.rstrip().endswith("wrote page.html")
    assert "page.html" in place.files


@pytest.mark.parametrize(
    ("report", "message"),
    [
        pytest.param("digits.onnx", "which is the model itself", id="model-itself"),
        pytest.param(".", "found the folder", id="folder"),
        pytest.param("nowhere/page.html", "does not exist", id="no-folder"),
    ],
)
def test_report_that_cannot_be_written_is_refused_at_once(zeropoint: Zeropoint, place: Place, report: str, message: str) -> None:
    before = (place.folder / "digits.onnx").read_bytes()
    run = zeropoint("inspect", "digits.onnx", "--report", report)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith("error: --report: ") and message in run.err
    assert (place.folder / "digits.onnx").read_bytes() == before
