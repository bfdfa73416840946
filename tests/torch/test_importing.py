from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from tests.torch.importing_cases import (
    AMAX,
    LAYERS,
    Residual,
    X,
    assert_within_a_step,
    computed,
    imported,
    reasons,
    scale,
    simulated,
    state_of,
    trained,
    weight_amax,
)

import zeropoint as zp

STYLES = ("pytorch-quantization", "modelopt")
SITES = {"stem": "x", "conv": "relu", "head": "mean"}  # what the exporter calls the tensors that meet the weights


# --- what is imported ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tensorrt", "openvino", "onnxruntime", "onnxruntime-arm"])
@pytest.mark.parametrize("style", STYLES)
def test_scale_of_an_activation_is_amax_over_127(style: str, target: str) -> None:
    plan = imported(state_of(trained(), style), target=target).plan
    for layer, tensor in SITES.items():
        assert plan.entry(tensor).solver == "imported"
        assert scale(plan, tensor) == np.float32(AMAX[layer] / 127)
        is_unsigned = plan.entry(tensor).format == "uint8"
        assert plan.entry(tensor).zero_point == ((128,) if is_unsigned else (0,))


@pytest.mark.parametrize("style", STYLES)
def test_scales_of_a_weight_are_those_of_its_channels(style: str) -> None:
    network = trained()
    plan = imported(state_of(network, style)).plan
    for layer in ("conv", "head"):
        assert np.array_equal(scale(plan, f"{layer}.weight"), np.float32(weight_amax(network, layer).double().numpy().reshape(-1) / 127))
    norm: Any = network.norm
    gain = (norm.weight.abs() / torch.sqrt(norm.running_var + norm.eps)).detach().numpy()
    expected = weight_amax(network, "stem").numpy().reshape(-1) * gain / 127
    np.testing.assert_allclose(scale(plan, "stem.weight"), expected, rtol=1e-6)


@pytest.mark.parametrize("target", ["tensorrt", "openvino", "onnxruntime"])
@pytest.mark.parametrize("style", STYLES)
def test_quantized_network_computes_what_the_fake_quantized_module_computes(style: str, target: str, tmp_path: Path) -> None:
    network = trained()
    found = imported(state_of(network, style), target=target)
    result = zp.quantize(found.network, plan=found.plan, target=target, evaluate=False)
    is_skip_quantized = any("add" in reader.node for reader in found.plan.entry("relu").readers)
    expected = simulated(network, X, skip=AMAX["conv"] if is_skip_quantized else None)
    seen = computed(result, SITES, X, tmp_path)
    for layer in LAYERS:
        assert_within_a_step(seen[layer], expected[layer], AMAX[layer] / 127)
    step = AMAX["head"] / 127 * np.abs(network.head.weight.detach().numpy()).sum(axis=1).max()  # of all features at once
    assert np.abs(seen["output"] - expected["output"].numpy()).max() < step


def test_weights_are_those_of_the_checkpoint_and_the_module_is_left_alone() -> None:
    module, network = Residual(), trained()
    before = copy.deepcopy(module.state_dict())
    found = imported(state_of(network, "modelopt"), module)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in found.model.state_dict().items())
    assert module.training and not found.model.training


def test_module_and_network_are_the_same_to_the_plan() -> None:
    found = imported(state_of(trained(), "modelopt"))
    for model in (found.model, found.network):
        result = zp.quantize(model, plan=found.plan, target="tensorrt", data=X.numpy(), samples=1)
        assert [note for note in result.notes if note.kind == "warning"] == []
        assert result.plan.entries == found.plan.entries


def test_notes_tell_how_much_was_imported() -> None:
    found = imported(state_of(trained(), "modelopt"))
    assert str(found.plan.notes[0]) == "modelopt: imported 3 of 3 activations and 3 of 3 weights that the target quantizes"
    assert found.notes == found.plan.notes


def per_tensor(state: dict[str, Any]) -> None:
    for key in [key for key in state if key.endswith("weight_quantizer._amax")]:
        state[key] = state[key].max()


def test_one_amax_of_a_weight_is_each_channels() -> None:
    network = trained()
    state = state_of(network, "pytorch-quantization")
    per_tensor(state)
    plan = imported(state).plan
    assert set(scale(plan, "conv.weight")) == {np.float32(weight_amax(network, "conv").max().double() / 127)}
    assert len(set(scale(plan, "stem.weight"))) == 16  # batch normalization has scaled each channel by a factor of its own


def test_learned_amax_counts_more_than_the_calibrated_one() -> None:
    state = state_of(trained(), "pytorch-quantization")
    state["conv._input_quantizer.clip.clip_value_min"], state["conv._input_quantizer.clip.clip_value_max"] = torch.tensor([-5.0, 4.0])
    assert scale(imported(state).plan, "relu") == np.float32(5.0 / 127)


def test_weight_with_the_lowest_code_keeps_it(tmp_path: Path) -> None:
    network: Any = trained()
    state = state_of(network, "modelopt")
    state["conv.weight_quantizer._amax"] = amax = network.conv.weight.detach().abs().max() / 2
    found = imported(state)
    assert [found.plan.entry(f"{layer}.weight").narrow for layer in ("conv", "head")] == [False, True]
    zp.quantize(found.network, plan=found.plan, target="tensorrt", evaluate=False).save(tmp_path / "model.onnx")
    stored = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(tmp_path / "model.onnx").graph.initializer}
    expected = torch.clamp(torch.round(network.conv.weight.double() / (amax.double() / 127).float()), -128, 127).detach().numpy()
    assert expected.min() == -128
    assert np.array_equal(stored["conv.weight/quantized"], expected)


# --- what has no range ---------------------------------------------------------------------------------------------------------


def test_site_without_a_range_stays_in_float_with_a_note(tmp_path: Path) -> None:
    state = state_of(trained(), "modelopt")
    del state["head.input_quantizer._amax"]
    found = imported(state)
    assert {"mean", "head.weight"}.isdisjoint(found.plan.tensors)
    assert "2 of 3 activations and 2 of 3 weights" in found.notes[0].reason
    assert "mean without a range" in found.notes[0].reason
    assert "the checkpoint has no range for it" in reasons(found.plan, "mean")
    assert not any("calibration" in note.reason for note in found.notes)
    zp.quantize(found.network, plan=found.plan, target="tensorrt", evaluate=False).save(tmp_path / "model.onnx")


@pytest.mark.parametrize("data", [X.numpy(), X, [(X[:2], 1), (X[2:], 0)]], ids=["array", "tensor", "batches-with-labels"])
def test_data_gives_the_ranges_that_the_checkpoint_lacks(data: Any) -> None:
    state = state_of(trained(), "modelopt")
    del state["head.input_quantizer._amax"]
    found = imported(state, data=data, solver="minmax")
    with torch.no_grad():
        network: Any = found.model
        y = torch.relu(network.norm(network.stem(X)))
        highest = torch.relu(network.conv(y) + y).mean((2, 3)).max()
    assert scale(found.plan, "mean") == pytest.approx(float(highest) / 127, rel=1e-6)
    assert found.plan.entry("mean").solver == "minmax"
    assert scale(found.plan, "relu") == np.float32(AMAX["conv"] / 127)


def test_weight_without_an_amax_gets_a_scale_with_a_note() -> None:
    state = state_of(trained(), "modelopt")
    del state["conv.weight_quantizer._amax"]
    found = imported(state)
    assert found.plan.entry("conv.weight").solver == "mse"
    assert "no scale for this weight" in reasons(found.plan, "conv.weight")


def test_quantizer_that_the_target_has_no_use_for_is_noted() -> None:
    state = state_of(trained(), "modelopt")
    state["norm.output_quantizer._amax"] = torch.tensor(9.0)
    found = imported(state, exclude=["node_linear"])
    assert "not used: nothing reads 'mean' in codes on this target" in reasons(found.plan, "head.input_quantizer")
    assert "its weight stays in float" in reasons(found.plan, "head.weight_quantizer")
    assert "not used" in reasons(found.plan, "norm.output_quantizer")


# --- quantizers with names of their own ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])  # whose Adds read one side in codes, and both
def test_own_quantizer_is_taken_for_the_skip_connection_and_the_largest_range_counts(target: str) -> None:
    state = state_of(trained(), "pytorch-quantization")
    state["residual_quantizer._amax"] = torch.tensor(4.0)
    found = imported(state, target=target)
    assert found.format == "pytorch-quantization"
    assert scale(found.plan, "relu") == np.float32(4.0 / 127)
    assert "taken for 'relu', the skip connection there" in reasons(found.plan, "residual_quantizer")
    assert "conv._input_quantizer amax 2.375, residual_quantizer amax 4" in reasons(found.plan, "relu")
    assert found.plan.entry("relu").reason == "residual_quantizer: amax 4"


def test_own_module_for_a_skip_connection_counts_as_a_quantizer_of_the_module_around_it() -> None:
    state = state_of(trained(), "pytorch-quantization")
    state["quant_add._input_quantizer._amax"] = torch.tensor(4.0)
    assert scale(imported(state).plan, "relu") == np.float32(4.0 / 127)


def test_own_quantizers_that_nothing_tells_apart_are_not_used_until_the_user_says_which() -> None:
    state = state_of(trained(), "pytorch-quantization")
    state["one._amax"], state["other._amax"] = torch.tensor(4.0), torch.tensor(5.0)
    plan = imported(state).plan
    assert scale(plan, "relu") == np.float32(AMAX["conv"] / 127)
    for name in ("one", "other"):
        assert "nothing tells which of the tensors there it is for (x, relu, mean)" in reasons(plan, name)
    said = imported(state, tensors={"one": "mean", "other": "relu"}).plan
    assert [scale(said, tensor) for tensor in ("mean", "relu")] == [np.float32(4.0 / 127), np.float32(5.0 / 127)]


@pytest.mark.parametrize("named", [{"skop": "mean"}, {"conv._input_quantizer": "reli"}], ids=["quantizer", "tensor"])
def test_unknown_name_in_tensors_is_refused_with_the_like(named: dict[str, str]) -> None:
    state = state_of(trained(), "pytorch-quantization")
    with pytest.raises(zp.RecipeError, match=r"tensors: found (quantizer 'skop'|tensor 'reli').*as '(head|relu|stem|conv)"):
        imported(state, tensors=named)
