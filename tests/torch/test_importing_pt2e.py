from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")
pytest.importorskip("torch.ao.quantization.fx._decomposed")  # it registers the operators

import torch
from tests.torch.importing_cases import Residual, X, assert_within_a_step, computed, trained, weight_amax
from torch import nn

import zeropoint as zp
from zeropoint.torch.importing import Imported

# scale, zero point and least code of what each traced node computes
GRIDS = {
    "x": (0.031, 5, -128),
    "relu": (0.019, -128, -128),
    "conv2d_1": (0.027, -9, -128),
    "relu_1": (0.029, -128, -128),
    "mean": (0.0085, -128, -128),
}
SITES = {"x": "x", "relu": "relu", "mean": "mean"}


def folded(network: Any) -> Any:
    """The network with its batch normalization in the convolution before it, as PT2E leaves it."""
    made = copy.deepcopy(network).eval()
    fused = nn.utils.fusion.fuse_conv_bn_eval(made.stem, made.norm)
    made.stem, made.norm = fused, nn.Identity()
    return made


@cache
def exported(*, keeps_norm: bool) -> Any:
    network = trained()
    return torch.export.export(network if keeps_norm else folded(network), (X,)).module()


def traced(*, keeps_norm: bool = False) -> Any:
    return copy.deepcopy(exported(keeps_norm=keeps_norm))


def converted() -> Any:
    """What convert_pt2e returns: codes of weights, and pairs of nodes behind activations."""
    graph = traced()
    ops = torch.ops.quantized_decomposed
    for number, node in enumerate([n for n in graph.graph.nodes if n.op == "get_attr" and str(n.target).endswith(".weight")]):
        weight = graph.get_parameter(str(node.target)).detach()
        scale = weight.abs().amax(tuple(range(1, weight.dim()))) / 127
        graph.register_buffer(f"_scale_{number}", scale)
        graph.register_buffer(f"_zero_point_{number}", torch.zeros_like(scale, dtype=torch.int64))
        rounded = torch.round(weight / scale.reshape(-1, *[1] * (weight.dim() - 1)))
        graph.register_buffer(f"_frozen_param{number}", rounded.clamp(-127, 127).to(torch.int8))
        with graph.graph.inserting_after(node):
            read = [graph.graph.get_attr(f"{name}{number}") for name in ("_frozen_param", "_scale_", "_zero_point_")]
        with graph.graph.inserting_after(read[0]):
            real = graph.graph.call_function(ops.dequantize_per_channel.default, (*read, 0, -127, 127, torch.int8))
        node.replace_all_uses_with(real)
        graph.graph.erase_node(node)
    for node in [n for n in graph.graph.nodes if n.name in GRIDS]:
        scale, zero_point, low = GRIDS[node.name]
        told = (scale, zero_point, low, low + 255, torch.int8)
        with graph.graph.inserting_after(node):
            code = graph.graph.call_function(ops.quantize_per_tensor.default, (node, *told))
        with graph.graph.inserting_after(code):
            real = graph.graph.call_function(ops.dequantize_per_tensor.default, (code, *told))
        node.replace_all_uses_with(real, delete_user_cb=lambda user, code=code: user is not code)
    return sound(graph)


def sound(graph: Any) -> Any:
    """The graph recompiled, where each node stands behind what it reads."""
    graph.graph.eliminate_dead_code()
    moved = True
    while moved:
        order = {node: number for number, node in enumerate(graph.graph.nodes)}
        moved = False
        for node in list(graph.graph.nodes):
            last = max(node.all_input_nodes, key=order.__getitem__, default=None)
            if last is not None and order[last] > order[node]:
                last.append(node)
                moved = True
                break
    graph.graph.lint()
    graph.recompile()
    return graph


class FakeQuantize(nn.Module):
    """The buffers and attributes of PT2E's fake quantization."""

    def __init__(self, scale: Any, zero_point: Any, *, axis: int | None = None) -> None:
        super().__init__()
        self.register_buffer("scale", torch.as_tensor(scale).float().reshape(-1))
        self.register_buffer("zero_point", torch.as_tensor(zero_point).reshape(-1))
        self.dtype, self.quant_min, self.quant_max = torch.int8, -127 if axis == 0 else -128, 127
        self.qscheme, self.ch_axis = torch.per_tensor_affine if axis is None else torch.per_channel_symmetric, axis

    def forward(self, x: Any) -> Any:
        return x


class Observer(nn.Module):
    """An observer that knows the scale when it is asked."""

    def __init__(self, scale: Any, zero_point: Any, *, axis: int | None = None) -> None:
        super().__init__()
        self.found = torch.as_tensor(scale).float().reshape(-1), torch.as_tensor(zero_point).reshape(-1)
        self.dtype, self.quant_min, self.quant_max = torch.int8, None, None
        self.qscheme, self.ch_axis = torch.per_tensor_affine if axis is None else torch.per_channel_symmetric, axis

    def calculate_qparams(self) -> Any:
        return self.found

    def forward(self, x: Any) -> Any:
        return x


def prepared(kind: Callable[..., nn.Module], *, keeps_norm: bool = False) -> Any:
    """What prepare_pt2e returns, with modules of `kind` behind activations and weights."""
    graph = traced(keeps_norm=keeps_norm)
    weights = [n for n in graph.graph.nodes if n.op == "get_attr" and str(n.target).endswith(".weight") and "norm" not in str(n.target)]
    for number, node in enumerate([*weights, *(n for n in graph.graph.nodes if n.name in GRIDS)]):
        if node.op == "get_attr":
            weight = graph.get_parameter(str(node.target)).detach()
            scale = weight.abs().amax(tuple(range(1, weight.dim()))) / 127
            module = kind(scale, torch.zeros(len(scale), dtype=torch.int64), axis=0)
        else:
            module = kind(*GRIDS[node.name][:2])
        name = f"activation_post_process_{number}"
        graph.add_submodule(name, module)
        with graph.graph.inserting_after(node):
            observed = graph.graph.call_module(name, (node,))
        node.replace_all_uses_with(observed, delete_user_cb=lambda user, observed=observed: user is not observed)
    return sound(graph)


@cache
def imported(what: str, target: str) -> Imported:
    graph = converted() if what == "converted" else prepared({"observers": Observer, "fake-quantization": FakeQuantize}[what])
    return zp.torch.import_checkpoint(Residual(), graph, X, target=target)


def reasons(found: Imported, where: str) -> str:
    return "; ".join(note.reason for note in found.notes if where in note.where)


@pytest.mark.parametrize("what", ["converted", "observers", "fake-quantization"])
def test_scales_and_zero_points_are_the_graphs(what: str) -> None:
    plan = imported(what, "onnxruntime").plan
    tensors = {**SITES, "conv2d_1": "conv2d_1"}
    for name, tensor in tensors.items():
        scale, zero_point, low = GRIDS[name]
        entry = plan.entry(tensor)
        assert (np.float32(entry.scale[0]), entry.zero_point) == (np.float32(scale), (zero_point - low,))
    network = folded(trained())
    for layer in ("stem", "conv", "head"):
        expected = weight_amax(network, layer).reshape(-1) / 127
        np.testing.assert_allclose(plan.entry(f"{layer}.weight").scale, expected, rtol=1e-6)


def test_network_computes_what_the_converted_graph_computes(tmp_path: Path) -> None:
    found = imported("converted", "onnxruntime")
    result = zp.quantize(found.network, plan=found.plan, target="onnxruntime", evaluate=False)
    seen = computed(result, SITES, X, tmp_path)
    values: dict[str, Any] = {}

    class Recording(torch.fx.Interpreter):
        def run_node(self, n: Any) -> Any:
            values[n.name] = super().run_node(n)
            return values[n.name]

    graph = converted()
    with torch.no_grad():
        Recording(graph).run(X)
    for node in graph.graph.nodes:
        source = node.args[0].args[0].name if str(node.target).startswith("quantized_decomposed.dequantize_per_tensor") else ""
        if source in SITES:
            assert_within_a_step(seen[source], values[node.name].numpy(), GRIDS[source][0])


@pytest.mark.parametrize("what", ["converted", "observers"])
def test_folded_batch_normalization_becomes_an_identity(what: str) -> None:
    found = imported(what, "onnxruntime")
    assert isinstance(found.model.norm, nn.Identity)
    assert "the weights of the checkpoint hold it already" in reasons(found, "norm")
    with torch.no_grad():
        expected, got = folded(trained())(X), found.model(X)
    assert (got - expected).abs().max() < (0.05 if what == "converted" else 1e-5) * expected.abs().max()


def test_batch_normalization_that_the_graph_computes_stays() -> None:
    found = zp.torch.import_checkpoint(Residual(), prepared(FakeQuantize, keeps_norm=True), X, target="onnxruntime")
    assert isinstance(found.model.norm, nn.BatchNorm2d)
    network: Any = trained()
    gain = (network.norm.weight.abs() / torch.sqrt(network.norm.running_var + network.norm.eps)).detach().numpy()
    expected = weight_amax(network, "stem").reshape(-1).numpy() * gain / 127
    np.testing.assert_allclose(found.plan.entry("stem.weight").scale, expected, rtol=1e-6)


def test_zero_point_that_the_target_lacks_becomes_zero_with_a_note() -> None:
    found = imported("converted", "tensorrt")
    entry = found.plan.entry("relu")
    assert entry.zero_point == (0,)
    assert np.float32(entry.scale[0]) == np.float32(255 * np.float64(0.019) / 127)
    assert "found zero point -128, which becomes 0 on this target" in reasons(found, "of relu")


def test_graph_without_quantizers_is_refused() -> None:
    with pytest.raises(zp.DataError, match="the GraphModule: found no quantizer"):
        zp.torch.import_checkpoint(Residual(), traced(), X, target="tensorrt")


@pytest.mark.parametrize(("value", "match"), [(float("nan"), "nan"), (0.0, r"0\.0"), (-1.0, r"-1\.0")], ids=["nan", "zero", "negative"])
def test_scale_that_is_no_scale_is_refused(value: float, match: str) -> None:
    graph = prepared(FakeQuantize)
    for name, module in graph.named_children():
        if name.startswith("activation_post_process") and module.scale.numel() == 1:
            module.scale.fill_(value)
    with pytest.raises(zp.DataError, match=rf"of \w+: found {match} among its amax or scales"):
        zp.torch.import_checkpoint(Residual(), graph, X, target="tensorrt")


def test_four_bits_are_refused() -> None:
    graph = prepared(FakeQuantize)
    for name, module in graph.named_children():
        if name.startswith("activation_post_process"):
            module.quant_min, module.quant_max = -8, 7
    with pytest.raises(zp.DataError, match="found codes from -8 to 7, expected 8 bits"):
        zp.torch.import_checkpoint(Residual(), graph, X, target="tensorrt")


def test_seven_bits_cover_the_same_range_with_a_note() -> None:
    graph = prepared(FakeQuantize)
    for name, module in graph.named_children():
        if name.startswith("activation_post_process") and module.scale.numel() == 1:
            module.dtype, module.quant_min, module.quant_max = torch.uint8, 0, 127
            module.zero_point.fill_(0)
    found = zp.torch.import_checkpoint(Residual(), graph, X, target="onnxruntime")
    entry = found.plan.entry("relu")
    assert entry.zero_point == (0,)
    assert entry.scale[0] == pytest.approx(0.019 * 127 / 255, rel=1e-6)
    assert "8 bits cover the same range in finer steps" in reasons(found, "of relu")
