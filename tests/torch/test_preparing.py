"""From a float network to a module that trains with its rounding in it, and back to a plan and a file."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import onnxruntime
import torch
from tests.torch.modules import Network, randn

from zeropoint.api import lint, quantize
from zeropoint.autograd.fake_quantize import Learning
from zeropoint.demo import load_digits
from zeropoint.errors import DataError, ModelError, PlanError, RecipeError
from zeropoint.graph.store import serialize
from zeropoint.numerics.formats import FORMATS
from zeropoint.recipe import Recipe
from zeropoint.result import Result
from zeropoint.targets import TARGETS
from zeropoint.torch.finishing import finish
from zeropoint.torch.preparing import prepare
from zeropoint.torch.quantized import QuantizedModule

DIGITS = load_digits()
IMAGES = torch.from_numpy(np.asarray(DIGITS.test[:32]))
QUICK = Recipe(effort="fast")
MODULE_DATA = [randn(4, 3, 16, 16, seed=seed) for seed in range(3)]


def prepared(target: str = "tensorrt", *, learning: Learning = "scale", recipe: Recipe = QUICK) -> QuantizedModule:
    return prepare(DIGITS.model, DIGITS.calibration, target=target, recipe=recipe, learning=learning)


def trained(module: QuantizedModule, *, steps: int = 3) -> QuantizedModule:
    optimizer = torch.optim.SGD(module.parameters(), lr=1e-3)
    for _ in range(steps):
        loss = (module(IMAGES) - module.teacher(IMAGES)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return module


def run(result: Result, images: torch.Tensor = IMAGES) -> Any:
    session = onnxruntime.InferenceSession(serialize(result.model), providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]


def run_module(module: QuantizedModule, images: torch.Tensor = IMAGES) -> Any:
    with torch.no_grad():
        return module(images).numpy()


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_before_training_the_result_is_that_of_quantize(target: str, effort: Any) -> None:
    plain = quantize(DIGITS.model, data=DIGITS.calibration, target=target, effort=effort, evaluate=False)
    result = finish(prepared(target, recipe=Recipe(effort=effort)))
    assert [entry.scale for entry in result.plan.entries if entry.role != "bias"] == [
        entry.scale for entry in plain.plan.entries if entry.role != "bias"
    ]
    np.testing.assert_allclose(run(result), run(plain), atol=0.02)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("learning", ["fixed", "scale", "scale and zero point"])
def test_what_is_trained_is_what_is_deployed(target: str, learning: Learning) -> None:
    module = trained(prepared(target, learning=learning))
    result = finish(module)
    step = np.abs(run(result)).max() / 127
    assert np.abs(run(result) - run_module(module)).max() <= step
    assert lint(serialize(result.model), target=target).findings == ()


def test_the_result_is_compared_with_the_float_network() -> None:
    result = finish(trained(prepared()), eval_data=DIGITS.test[:100], labels=DIGITS.test_labels[:100])
    [found] = result.evidence.fidelity
    assert found.accuracy > 0.9  # type: ignore[operator]
    assert 20.0 < found.sqnr_db < 60.0
    assert "quantization-aware" in " ".join(note.reason for note in result.notes)


def test_loaders_with_labels_judge() -> None:
    from torch.utils.data import DataLoader, TensorDataset

    images, labels = torch.from_numpy(np.asarray(DIGITS.test[:60])), torch.from_numpy(np.asarray(DIGITS.test_labels[:60]))
    module = prepare(DIGITS.model, DataLoader(TensorDataset(images, labels), batch_size=20), target="tensorrt", recipe=QUICK)
    [found] = finish(module, eval_data=DataLoader(TensorDataset(images, labels), batch_size=16), labels="data").evidence.fidelity
    [expected] = finish(module, eval_data=DIGITS.test[:60], labels=DIGITS.test_labels[:60]).evidence.fidelity
    assert found.accuracy == expected.accuracy is not None
    assert found.sqnr_db == expected.sqnr_db


def test_the_plan_of_a_trained_network_and_that_network_are_enough() -> None:
    module = trained(prepared("onnxruntime"))
    result = finish(module)
    again = quantize(module.float_model(), plan=result.plan, target="onnxruntime", evaluate=False)
    assert serialize(again.model) == serialize(result.model)
    assert not any("made from another file" in note.reason for note in again.notes)


def test_training_may_go_on_afterwards() -> None:
    module = trained(prepared())
    first = finish(module)
    second = finish(trained(module))
    assert first.plan != second.plan
    assert serialize(finish(module).model) == serialize(second.model)


@pytest.mark.parametrize(
    ("learning", "scales", "zero_points"),
    [("fixed", False, False), ("scale", True, False), ("scale and zero point", True, True)],
    ids=["fixed", "scale", "scale and zero point"],
)
def test_what_learns(learning: Learning, scales: bool, zero_points: bool) -> None:
    module = prepared("onnxruntime", learning=learning)
    names = {name.rpartition(".")[2] for name, _ in module.network.quantizers.named_parameters()}
    assert names == {name for name, learns in (("scale", scales), ("zero_point", zero_points)) if learns}
    assert {id(p) for p in module.parameters()} == {id(p) for p in (*module.weight_parameters(), *module.scale_parameters())}
    before = finish(module).plan.entries
    after = finish(trained(module)).plan.entries
    assert ([e.scale for e in before if e.role == "activation"] != [e.scale for e in after if e.role == "activation"]) == scales
    assert all(e.solver == "learned" or e.role == "bias" for b, e in zip(before, after, strict=True) if b.scale != e.scale)


def test_the_teacher_is_the_float_network_and_stays_it() -> None:
    module = prepared()
    before = [tensor.clone() for tensor in module.teacher.parameters()]
    trained(module)
    assert all(torch.equal(a, b) for a, b in zip(before, module.teacher.parameters(), strict=True))
    assert not any("teacher" in name or "hidden" in name for name in module.state_dict())
    session = onnxruntime.InferenceSession(DIGITS.model, providers=["CPUExecutionProvider"])
    [expected] = session.run(None, {session.get_inputs()[0].name: IMAGES.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(module.teacher(IMAGES), expected, rtol=1e-4, atol=1e-4)
    _, inside = module.features([IMAGES], module.feature_names)
    _, expected_inside = module.teacher.features([IMAGES], module.feature_names)
    assert inside.keys() == expected_inside.keys() == {*module.feature_names}
    assert module.double().teacher.places is not None
    assert next(module.teacher.parameters()).dtype == torch.float64  # it moves along


def test_a_state_dict_brings_a_training_back() -> None:
    module, other = trained(prepared()), prepared()
    other.load_state_dict(copy.deepcopy(module.state_dict()))
    np.testing.assert_array_equal(run_module(other), run_module(module))
    assert serialize(finish(other).model) == serialize(finish(module).model)


def test_a_copy_trains_by_itself() -> None:
    module = prepared()
    before = run_module(module)
    trained(copy.deepcopy(module))
    np.testing.assert_array_equal(run_module(module), before)


@cache
def of_module() -> tuple[Network, QuantizedModule]:
    module = Network()
    return module, prepare(module, MODULE_DATA, target="onnxruntime", recipe=QUICK)


def test_a_module_is_prepared_like_the_network_that_it_exports_to() -> None:
    module, found = of_module()
    assert module.training  # it is left as it was
    with torch.no_grad():
        expected = module.eval()(MODULE_DATA[0])
        error = (found(MODULE_DATA[0]) - expected).norm() / expected.norm()
    module.train()
    assert error < 0.1
    assert finish(found).plan.provenance.model == "Network"
    with torch.no_grad():
        assert torch.equal(found(image=MODULE_DATA[0]), found(MODULE_DATA[0]))
    assert np.abs(run(finish(found), MODULE_DATA[0]) - run_module(found, MODULE_DATA[0])).max() < 0.05


def test_outputs_come_back_in_the_structure_of_the_module() -> None:
    class Dict(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(16, 16)

        def forward(self, x: Any, y: Any) -> dict[str, Any]:
            found = self.head(x)
            return {"logits": found, "both": (found + y, y * 2.0)}

    data = [{"x": randn(4, 16), "y": randn(4, 16, seed=1)}] * 3
    found = prepare(Dict(), data, target="openvino", recipe=QUICK)(**data[0])
    assert found.keys() == {"logits", "both"}
    assert isinstance(found["both"], tuple)
    assert torch.equal(found["both"][1], data[0]["y"] * 2.0)


def test_a_plan_is_where_training_starts() -> None:
    plan = quantize(DIGITS.model, data=DIGITS.calibration, target="tensorrt", effort="balanced", evaluate=False).plan
    module = prepare(DIGITS.model, plan=plan)
    assert module.origin.target.name == "tensorrt"
    assert [entry.scale for entry in finish(module).plan.entries] == [entry.scale for entry in plan.entries]


@pytest.mark.parametrize("provider", ["torch", "torch:cpu"])
def test_calibration_in_pytorch_gives_the_same_scales(provider: str) -> None:
    plain, found = (
        quantize(DIGITS.model, data=DIGITS.calibration, target="tensorrt", effort="fast", evaluate=False, provider=name).plan
        for name in ("cpu", provider)
    )
    for one, other in zip(plain.entries, found.entries, strict=True):
        np.testing.assert_allclose(other.scale, one.scale, rtol=1e-4)
    for mine, theirs in zip(plain.corrections, found.corrections, strict=True):
        np.testing.assert_allclose(theirs.added, mine.added, atol=1e-4)


WRONG: list[Any] = [
    pytest.param(lambda: prepare(DIGITS.model, DIGITS.calibration), RecipeError, "neither a target nor a plan", id="no target"),
    pytest.param(lambda: prepare(DIGITS.model, target="tensorrt"), DataError, "data", id="no data"),
    pytest.param(lambda: prepared(learning="everything"), RecipeError, "learning: found 'everything'", id="learning"),  # type: ignore[arg-type]
    pytest.param(
        lambda: prepare(DIGITS.model, plan=prepared().origin.plan, target="openvino"), PlanError, "target 'tensorrt'", id="another target"
    ),
    pytest.param(lambda: finish(torch.nn.Linear(2, 2)), ModelError, "prepared: found Linear, expected the module that", id="not prepared"),
    pytest.param(
        lambda: finish(prepared(), labels=DIGITS.test_labels), RecipeError, "labels: found them without eval_data", id="labels alone"
    ),
    pytest.param(lambda: prepared().forward(), TypeError, "a tensor for each of the inputs", id="called without input"),
    pytest.param(
        lambda: quantize(DIGITS.model, data=DIGITS.calibration, target="tensorrt", provider="torch:nowhere"),
        RecipeError,
        "provider: found 'torch:nowhere', which PyTorch cannot use here",
        id="no such device",
    ),
    pytest.param(
        lambda: quantize(DIGITS.model, data=DIGITS.calibration, target="tensorrt", provider="torch", workers=2),
        RecipeError,
        "workers: found 2 with provider 'torch'",
        id="processes",
    ),
    pytest.param(
        lambda: quantize(DIGITS.model, data=DIGITS.calibration, target="tensorrt", provider="torch", memory_budget="1GB"),
        RecipeError,
        "memory_budget: found it with provider 'torch'",
        id="a budget",
    ),
]


@pytest.mark.parametrize(("action", "error", "message"), WRONG)
def test_mistakes(action: Callable[[], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        action()


class Scaled(torch.nn.Module):
    """A module with arguments that are no tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(16, 16)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None = None, *, factor: float = 1.0) -> torch.Tensor:
        y = self.linear(x) * factor
        return y if mask is None else y * mask


def test_what_is_no_tensor_is_what_it_was_exported_with() -> None:
    x = randn(8, 16, seed=0)
    module = prepare(Scaled(), x, target="openvino", recipe=QUICK)
    assert module(x, None, factor=1.0).equal(module(x))
    with pytest.raises(ModelError, match=r"Scaled: found a call with a tensor, None, 2.0, expected a tensor, None, 1.0"):
        module(x, factor=2.0)
    with pytest.raises(ModelError, match=r"found a call with a tensor, a tensor, 1.0, expected"):
        module(x, x)


def test_a_plan_of_another_file_is_told() -> None:
    plan = prepared().origin.plan
    assert prepare(DIGITS.model, plan=plan).origin.notes == ()
    moved = trained(prepared())
    [note] = prepare(moved.float_model(), plan=plan).origin.notes
    assert "made from another file" in note.reason
    assert prepare(moved.float_model(), plan=finish(moved).plan).origin.notes == ()


def test_a_network_of_half_precision_keeps_its_types() -> None:
    module = prepare(Scaled().half(), randn(8, 16, seed=0).half(), target="openvino", recipe=QUICK)
    result = finish(module)
    session = onnxruntime.InferenceSession(serialize(result.model), providers=["CPUExecutionProvider"])
    x = randn(8, 16, seed=1).half()
    np.testing.assert_allclose(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0], run_module(module, x), atol=1e-2)


def test_training_that_diverged_is_not_handed_over() -> None:
    module = prepared()
    with torch.no_grad():
        module.weight_parameters()[0].fill_(float("nan"))
    with pytest.raises(ModelError, match="found NaN or infinity"):
        finish(module)


def test_four_bits_for_activations_train_too() -> None:
    from dataclasses import replace

    from zeropoint.numerics.spec import Spec

    four = Spec(FORMATS["uint4"], symmetric=False)
    target = replace(TARGETS["openvino"], activation=four, nonnegative_activation=four, min_opset=21)
    module = prepare(DIGITS.model, DIGITS.calibration, target=target, recipe=Recipe(effort="fast", weight_format="int4"))
    result = finish(trained(module))
    assert {entry.format for entry in result.plan.entries} == {"uint4", "int4"}
    step = np.abs(run(result)).max() / 15
    assert np.abs(run(result) - run_module(module)).max() <= step
