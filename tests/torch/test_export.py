from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from tests.torch.modules import CASES, Branching, Constant, Made, Named, Network, Reshaping, Tokens, TwoInTwoOut, mlp, randn
from torch import nn

import zeropoint as zp
from zeropoint import cli
from zeropoint.torch import verification


def flat(value: Any) -> list[np.ndarray]:
    """All tensors in it as arrays."""
    if isinstance(value, torch.Tensor):
        return [value.detach().numpy()]
    values = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else ()
    return [array for inner in values for array in flat(inner)]


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "model.onnx"


# --- the file is the module ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_file_gives_what_the_module_gives(case: Made, path: Path) -> None:
    make, args, kwargs = case
    module = make()
    found = zp.torch.export(module, args, path, kwargs=kwargs)
    with torch.no_grad():
        expected = flat(module.eval()(*args, **kwargs))
    session = onnxruntime.InferenceSession(path)
    arrays = flat([*args, *(kwargs[name] for name in ("ids", "mask") if name in kwargs)])
    assert [value.name for value in session.get_inputs()] == [tensor.name for tensor in found.inputs]
    outputs = session.run(None, dict(zip([tensor.name for tensor in found.inputs], arrays, strict=True)))
    assert len(outputs) == len(expected)
    for ours, theirs in zip(outputs, expected, strict=True):
        coarse = ours.dtype == np.float16
        np.testing.assert_allclose(ours, theirs, rtol=1e-2 if coarse else 1e-4, atol=1e-3 if coarse else 1e-5)
    assert sorted(os.listdir(path.parent)) == ["model.onnx"]
    assert len(found.checks) == 2 + ("batch" in str(found.inputs))


NAMES: dict[str, tuple[str, list[str], list[str]]] = {
    "one-output": ("convolution", ["image"], ["output"]),
    "tuple": ("two-inputs-two-outputs", ["a", "b"], ["output_0", "output_1"]),
    "dict": ("dict-of-outputs", ["x"], ["same", "exp", "again", "most"]),
    "keywords": ("keywords-in-another-order", ["ids", "mask"], ["output"]),
    "nested": ("nested-arguments", ["pair_0", "pair_1", "named_late", "named_early"], ["output"]),
}


@pytest.mark.parametrize(("case", "inputs", "outputs"), NAMES.values(), ids=NAMES)
def test_names_are_those_of_forward_and_of_a_dict(case: str, inputs: list[str], outputs: list[str], path: Path) -> None:
    make, args, kwargs = CASES[case]
    zp.torch.export(make(), args, path, kwargs=kwargs)
    graph = onnx.load(path).graph
    assert ([value.name for value in graph.input], [value.name for value in graph.output]) == (inputs, outputs)


@pytest.mark.parametrize("samples", [1, 3, 7])
def test_batch_axis_is_dynamic_and_takes_other_batches(samples: int, path: Path) -> None:
    module = Network()
    zp.torch.export(module, randn(1, 3, 8, 8), path)
    model = onnx.load(path)
    assert (dims(model.graph.input[0]), dims(model.graph.output[0])) == (["batch", 3, 8, 8], ["batch", 4])
    x = randn(samples, 3, 8, 8, seed=9)
    [found] = onnxruntime.InferenceSession(path).run(None, {"image": x.numpy()})
    np.testing.assert_allclose(found, module.eval()(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_input_without_a_batch_axis_stays_as_it_is(path: Path) -> None:
    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
            return x * by

    found = zp.torch.export(Scaled(), (randn(1, 4), randn(4)), path)
    assert [tensor.shape for tensor in found.inputs] == [("batch", 4), (4,)]


@pytest.mark.parametrize("make", [Reshaping, Constant])
def test_batch_that_the_module_fixes_is_a_note_and_not_an_error(make: type, path: Path) -> None:
    found = zp.torch.export(make(), randn(2, 4), path)
    assert found.inputs[0].shape == (2, 4)
    [note] = found.notes
    assert (note.where, note.reason.startswith("the batch axis is fixed: ")) == ("batch", True)


def test_axis_that_is_asked_for_and_cannot_be_dynamic_is_an_error(path: Path) -> None:
    with pytest.raises(zp.ModelError, match=r"^Constant.*leave that axis out of dynamic_axes"):
        zp.torch.export(Constant(), randn(2, 4), path, dynamic_axes={"x": {0: "n"}})
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize("training", [True, False])
def test_export_is_in_eval_mode_and_each_part_gets_its_mode_back(training: bool, path: Path) -> None:
    module = Network().train(training)
    module.norm.eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    zp.torch.export(module, randn(2, 3, 8, 8), path)
    assert [part.training for part in module.children()] == [training, False, training, training]
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert {node.op_type for node in onnx.load(path).graph.node} == {"Conv", "Relu", "ReduceMean", "Gemm"}


def test_modes_are_given_back_where_the_export_fails(path: Path) -> None:
    module = Branching().train()
    with pytest.raises(zp.ModelError):
        zp.torch.export(module, randn(2, 4), path)
    assert module.training


def test_file_is_the_same_each_time_and_tells_of_no_folder(tmp_path: Path) -> None:
    files = [tmp_path / "a.onnx", tmp_path / "b.onnx"]
    for file in files:
        zp.torch.export(Network(), randn(2, 3, 8, 8), file)
    assert files[0].read_bytes() == files[1].read_bytes()
    assert str(Path(__file__).parent).encode() not in files[0].read_bytes()


# --- each parameter changes what is written --------------------------------------------------------------------------------

PARAMETERS: dict[str, dict[str, Any]] = {
    "input-names": {"input_names": ["picture"]},
    "output-names": {"output_names": ["classes"]},
    "fixed": {"dynamic_axes": "none"},
    "axes": {"dynamic_axes": {"image": {0: "batch", 2: "height"}}},
    "opset": {"opset": 18},
    "no-optimization": {"optimize": False},
    "no-weights": {"export_params": False},
    "weights-as-inputs": {"keep_initializers_as_inputs": True},
}


@pytest.mark.parametrize("options", PARAMETERS.values(), ids=PARAMETERS)
def test_parameter_changes_the_file(options: dict[str, Any], tmp_path: Path) -> None:
    plain, changed = tmp_path / "plain.onnx", tmp_path / "changed.onnx"
    zp.torch.export(Network(), randn(2, 3, 8, 8), plain)
    zp.torch.export(Network(), randn(2, 3, 8, 8), changed, **options)
    a, b = onnx.load(plain), onnx.load(changed)
    weights = ["conv.weight", "norm_bias", "head.weight", "head.bias"]
    match options:
        case {"input_names": _}:
            assert b.graph.input[0].name == "picture"
        case {"output_names": _}:
            assert b.graph.output[0].name == "classes"
        case {"dynamic_axes": "none"}:
            assert (dims(b.graph.input[0]), dims(b.graph.output[0])) == ([2, 3, 8, 8], [2, 4])
        case {"dynamic_axes": _}:
            assert dims(b.graph.input[0]) == ["batch", 3, "height", 8]
        case {"opset": version}:
            assert (a.opset_import[0].version, b.opset_import[0].version) == (20, version)
        case {"optimize": False}:
            assert "BatchNormalization" in {node.op_type for node in b.graph.node} - {node.op_type for node in a.graph.node}
        case {"export_params": False}:
            assert {value.name for value in b.graph.input} > {"head.weight", "head.bias"}
            assert {tensor.name for tensor in b.graph.initializer}.isdisjoint(weights)
        case _:
            assert {value.name for value in b.graph.input} > {"head.weight", "head.bias"}
            assert {tensor.name for tensor in b.graph.initializer} == {tensor.name for tensor in a.graph.initializer}


def test_weights_that_are_fed_give_the_modules_outputs(path: Path) -> None:
    module = mlp()
    zp.torch.export(module, randn(2, 8), path, export_params=False)
    weights = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    [found] = onnxruntime.InferenceSession(path).run(None, {"input": randn(2, 8).numpy(), **weights})
    np.testing.assert_allclose(found, module(randn(2, 8)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_translation_of_an_operator_is_used(path: Path) -> None:
    from onnxscript import opset20

    def relu(x: Any) -> Any:
        return opset20.LeakyRelu(x, alpha=0.0)

    zp.torch.export(nn.ReLU(), randn(2, 4), path, custom_translation_table={torch.ops.aten.relu.default: relu})
    assert [node.op_type for node in onnx.load(path).graph.node] == ["LeakyRelu"]


def test_seed_draws_the_inputs_that_are_checked(path: Path) -> None:
    told = [[check.what for check in zp.torch.export(mlp(), randn(2, 8), path, seed=seed).checks] for seed in (0, 5)]
    assert told[0][1:] == ["random inputs (seed 0)", "random inputs with batch 3 (seed 1)"]
    assert told[1][1:] == ["random inputs (seed 5)", "random inputs with batch 3 (seed 6)"]


@pytest.mark.parametrize("verbose", [True, False])
def test_exporter_is_heard_only_where_that_is_asked_for(verbose: bool, path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    zp.torch.export(mlp(), randn(2, 8), path, verbose=verbose)
    heard = capfd.readouterr()
    assert heard.out == ""
    assert ("Translate the graph into ONNX" in heard.err) is verbose


def test_random_inputs_of_shapes_take_the_place_of_arguments(path: Path) -> None:
    found = zp.torch.export(TwoInTwoOut(), None, path, shapes={"b": (1, 4), "a": (1, 4)})
    assert [tensor.name for tensor in found.inputs] == ["a", "b"]


# --- what is not the module is not written ---------------------------------------------------------------------------------


class Wrong:
    """A session that gives one output a little more."""

    def __init__(self, path: Path) -> None:
        self.session = onnxruntime.InferenceSession(path)

    def run(self, feed: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        names = [value.name for value in self.session.get_outputs()]
        outputs = dict(zip(names, self.session.run(None, dict(feed)), strict=True))
        return {**outputs, "exp": outputs["exp"] * np.float32(1.01)}


def test_output_that_differs_is_named_and_nothing_is_written(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "Session", Wrong)
    path.write_text("what stood here before")
    with pytest.raises(zp.ModelError, match=r"^Named: output 'exp' .* on the given inputs: found a difference of .* Nothing was written"):
        zp.torch.export(Named(), randn(2, 4), path)
    assert (os.listdir(path.parent), path.read_text()) == (["model.onnx"], "what stood here before")
    found = zp.torch.export(Named(), randn(2, 4), path, tolerance=0.02)
    assert found.checks[0].errors["exp"] == pytest.approx(0.01, rel=1e-3)


def test_first_tensor_that_differs_is_named(path: Path) -> None:
    from onnxscript import opset20

    def gelu(x: Any, approximate: str = "none") -> Any:
        return opset20.Relu(x)

    with pytest.raises(zp.ModelError, match=r"output 'output' .*the first of \d+ tensors inside that differs is 'gelu'"):
        zp.torch.export(mlp(), randn(2, 8), path, custom_translation_table={torch.ops.aten.gelu.default: gelu})
    assert os.listdir(path.parent) == []


def test_first_tensor_that_differs_is_found_with_other_arguments_than_tensors(path: Path) -> None:
    from onnxscript import opset20

    def mul(a: Any, b: Any) -> Any:
        return opset20.Add(a, b)

    class Scaled(nn.Module):
        def forward(self, x: torch.Tensor, by: float, *, added: torch.Tensor) -> torch.Tensor:
            return torch.relu(x) * by + added

    table = {torch.ops.aten.mul.Tensor: mul}
    given = {"kwargs": {"added": randn(2, 4)}, "custom_translation_table": table}
    with pytest.raises(zp.ModelError, match=r"the first of \d+ tensors inside that differs is 'mul\w*'"):
        zp.torch.export(Scaled(), (randn(2, 4), 3.0), path, **given)  # type: ignore[arg-type]


@pytest.mark.parametrize("fails", [False, True])
def test_weights_beyond_what_a_file_holds_lie_beside_it(fails: bool, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeropoint.graph.store.LARGEST_MESSAGE", 100)
    if fails:
        monkeypatch.setattr(verification, "compared", lambda *_, **__: ("found it wrong", 1.0))
        with pytest.raises(zp.ModelError, match="found it wrong"):
            zp.torch.export(mlp(), randn(2, 8), path)
        assert os.listdir(path.parent) == []
        return
    found = zp.torch.export(mlp(), randn(2, 8), path)
    assert sorted(os.listdir(path.parent)) == ["model.onnx", "model.onnx.data"]
    assert found.size == sum(file.stat().st_size for file in path.parent.iterdir())
    [output] = onnxruntime.InferenceSession(path).run(None, {"input": randn(2, 8).numpy()})
    np.testing.assert_allclose(output, mlp()(randn(2, 8)).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_written_network_is_quantized_as_any_other(path: Path) -> None:
    zp.torch.export(Network(), randn(1, 3, 8, 8), path)
    result = zp.quantize(path, data=randn(12, 3, 8, 8).numpy(), target="onnxruntime", samples=6, effort="fast")
    assert result.evidence.fidelity[0].sqnr_db > 15


MISTAKES: dict[str, tuple[Any, Any, dict[str, Any], type[zp.ZeropointError], str]] = {
    "branch": (
        Branching(),
        randn(2, 4),
        {},
        zp.ModelError,
        r"^Branching, modules\.py line \d+ \(`if x\.sum\(\) > 0:`\): .* depends on the values",
    ),
    "arguments": (mlp(), (randn(2, 8), 1), {}, zp.DataError, r"^args: Sequential\.forward cannot be called with them"),
    "wrong-shape": (mlp(), randn(2, 9), {}, zp.DataError, r"^Sequential fails on the given inputs \(input \(2, 9\)\) with RuntimeError"),
    "no-tensor": (mlp(), 3, {}, zp.DataError, r"^args: found no tensor"),
    "no-arguments": (mlp(), None, {}, zp.RecipeError, r"^args: found none for Sequential"),
    "no-module": (mlp, randn(2, 8), {}, zp.ModelError, r"^module: found a function, expected a torch\.nn\.Module"),
    "class": (Named, randn(2, 8), {}, zp.ModelError, r"^module: found the class Named"),
    "names": (
        mlp(),
        randn(2, 8),
        {"input_names": ["a", "b"]},
        zp.RecipeError,
        r"^input_names: found \['a', 'b'\], expected a name each for the 1",
    ),
    "output-names": (Named(), randn(2, 8), {"output_names": ["a"]}, zp.RecipeError, r"^output_names: .*same, exp, again, most"),
    "same-name": (mlp(), randn(2, 8), {"output_names": ["input"]}, zp.RecipeError, r"^output_names: found input among the inputs too"),
    "opset": (mlp(), randn(2, 8), {"opset": 17}, zp.RecipeError, r"^opset: found 17, expected 18 or later"),
    "tolerance": (mlp(), randn(2, 8), {"tolerance": 0}, zp.RecipeError, r"^tolerance: found 0"),
    "axes": (mlp(), randn(2, 8), {"dynamic_axes": "all"}, zp.RecipeError, r"^dynamic_axes: found 'all'"),
    "axis-of-no-input": (
        mlp(),
        randn(2, 8),
        {"dynamic_axes": {"y": {0: "n"}}},
        zp.RecipeError,
        r"^dynamic_axes: found input 'y', expected one of input",
    ),
    "no-such-axis": (mlp(), randn(2, 8), {"dynamic_axes": {"input": {2: "n"}}}, zp.RecipeError, r"^dynamic_axes: 'input': found 2: 'n'"),
    "shape-of-no-input": (
        mlp(),
        None,
        {"shapes": {"y": (1, 8)}},
        zp.RecipeError,
        r"^shapes: found 'y', expected parameters of Sequential\.forward: input",
    ),
    "shapes-and-arguments": (mlp(), randn(2, 8), {"shapes": {"input": (1, 8)}}, zp.RecipeError, r"^shapes: found arguments and shapes"),
    "type": (mlp().bfloat16(), randn(2, 8).bfloat16(), {}, zp.DataError, r"found a tensor of torch\.bfloat16"),
    "index-out-of-range": (Tokens(), torch.tensor([[9]]), {}, zp.DataError, r"^Tokens fails on the given inputs .*IndexError"),
}


@pytest.mark.parametrize(("module", "args", "options", "error", "message"), MISTAKES.values(), ids=MISTAKES)
def test_mistake_is_told(module: Any, args: Any, options: dict[str, Any], error: type[Exception], message: str, path: Path) -> None:
    with pytest.raises(error, match=message):
        zp.torch.export(module, args, path, **options)
    assert os.listdir(path.parent) == []


def test_operator_without_a_translation_is_named(path: Path) -> None:
    class Decomposed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.linalg.svd(x)[1]

    with pytest.raises(zp.ModelError, match=r"no translation of aten\._linalg_svd\.default"):
        zp.torch.export(Decomposed(), randn(2, 4), path)


def test_folder_that_is_not_there_is_an_output_error(tmp_path: Path) -> None:
    with pytest.raises(zp.OutputError, match="cannot be written"):
        zp.torch.export(mlp(), randn(2, 8), tmp_path / "none" / "model.onnx")


def test_missing_library_is_told_with_what_installs_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeropoint.torch.capture.LIBRARIES", ("torch", "no_such_library"))
    with pytest.raises(zp.RecipeError, match=r'^no_such_library not found, .*pip install "zeropoint\[torch\]"'):
        zp.torch.export(mlp(), randn(2, 8), path)


def test_zeropoint_and_its_torch_package_are_imported_without_torch() -> None:
    code = "import sys, zeropoint as zp; zp.torch.export; print(sorted({'torch', 'onnxscript'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# --- the command -----------------------------------------------------------------------------------------------------------

MODELS = """
import torch
def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(8, 3)
def with_arguments():
    return linear(), (torch.ones(2, 8),)
def number():
    return 3
def failing():
    raise ValueError("no weights here")
"""


def command(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "models.py").write_text(MODELS)
    environment = {**os.environ, "COLUMNS": "80", "NO_COLOR": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(
        [sys.executable, "-m", "zeropoint", "export", *arguments], cwd=folder, capture_output=True, text=True, check=False, env=environment
    )


def test_command_writes_what_the_function_does(tmp_path: Path) -> None:
    run = command(tmp_path, "models.py:with_arguments", "-o", "m.onnx", "--input-name", "x", "--dynamic", "x:0=n", "--json")
    assert (run.returncode, run.stderr) == (0, "")
    document = json.loads(run.stdout)
    assert (document["inputs"], document["opset"]) == ([{"name": "x", "dtype": "float32", "shape": ["n", 8]}], 20)
    torch.manual_seed(0)
    module = nn.Linear(8, 3)
    zp.torch.export(module, torch.ones(2, 8), tmp_path / "own.onnx", input_names=["x"], dynamic_axes={"x": {0: "n"}})
    assert (tmp_path / "m.onnx").read_bytes() == (tmp_path / "own.onnx").read_bytes()


def in_process(folder: Path, arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command here, and return its exit code."""
    (folder / "models.py").write_text(MODELS)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr(sys, "argv", ["zeropoint", "export", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_command_takes_shapes_and_shows_what_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ("models.py:linear", "-o", "m.onnx", "--shape", "input=1x8", "--dynamic", "none")
    assert in_process(tmp_path, arguments, monkeypatch) == 0
    shown = capfd.readouterr()
    assert shown.err == ""
    assert re.search(r"input +input +float32 +1 × 8", shown.out)
    assert "same as the module on random inputs (seed 0): off by" in shown.out
    assert shown.out.endswith("next: zeropoint inspect m.onnx\n")


COMMAND_MISTAKES: dict[str, tuple[tuple[str, ...], str]] = {
    "no-such-file": (("none.py:linear", "-o", "m.onnx"), r"none\.py:linear: importing none\.py failed"),
    "no-such-module": (("no_such_module:linear", "-o", "m.onnx"), r"importing no_such_module failed with ModuleNotFoundError"),
    "no-such-function": (("models.py:other", "-o", "m.onnx"), r"found no function 'other'"),
    "no-reference": (("models.py", "-o", "m.onnx"), r"expected 'package\.module:function'"),
    "no-module": (("models.py:number", "-o", "m.onnx"), r"models\.py:number: found a int, expected a torch\.nn\.Module"),
    "failing": (("models.py:failing", "-o", "m.onnx"), r"failed with ValueError: no weights here\. .* returns an nn\.Module"),
    "no-arguments": (("models.py:linear", "-o", "m.onnx"), r"--shape x=1x3x224x224"),
    "shapes-twice": (
        ("models.py:with_arguments", "-o", "m.onnx", "--shape", "input=1x8"),
        r"^error: --shape: models\.py:with_arguments returns",
    ),
    "axis": (("models.py:linear", "-o", "m.onnx", "--dynamic", "input"), r"^error: --dynamic: found 'input', expected"),
    "folder": (("models.py:linear", "-o", "none/m.onnx"), r"^error: --output: folder .* does not exist"),
}


@pytest.mark.parametrize(("arguments", "message"), COMMAND_MISTAKES.values(), ids=COMMAND_MISTAKES)
def test_mistake_is_a_paragraph(
    arguments: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    code = in_process(tmp_path, arguments, monkeypatch)
    shown = capfd.readouterr()
    assert (code, shown.out) == (2, "")
    [line] = shown.err.splitlines()
    assert re.search(message, line)
    assert not (tmp_path / "m.onnx").exists()
