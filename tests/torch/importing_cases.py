"""A small network, what other quantizers store of it, and a slow simulation of what they compute."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from torch import nn

import zeropoint as zp
from zeropoint.plan import Plan
from zeropoint.result import Result
from zeropoint.runtime.onnxruntime import Session
from zeropoint.torch import importing

AMAX = {"stem": 3.0, "conv": 2.375, "head": 1.1875}  # of what each module is fed
LAYERS = ("stem", "conv", "head")


def randn(*shape: int, seed: int = 0) -> Any:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


X = randn(3, 16, 6, 6, seed=7)


class Residual(nn.Module):
    """Convolution with batch normalization, a skip connection, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv, self.head = nn.Conv2d(16, 16, 3, padding=1), nn.Linear(16, 20)
        with torch.no_grad():
            self.norm.running_mean += 0.1 * randn(16)
            self.norm.running_var += randn(16, seed=1).abs()
            self.norm.weight += 0.5 * randn(16, seed=2)
            self.norm.weight[3] *= -1

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.norm(self.stem(x)))
        y = torch.relu(self.conv(y) + y)
        return self.head(y.mean((2, 3)))


def trained() -> nn.Module:
    """The network with weights that training changed."""
    network = Residual().eval()
    with torch.no_grad():
        for number, parameter in enumerate(network.parameters()):
            parameter.add_(0.05 * randn(*parameter.shape, seed=number))
    return network


def weight_amax(network: nn.Module, layer: str) -> Any:
    """The largest magnitude of each output channel, with the other axes kept."""
    weight = getattr(network, layer).weight.detach()
    return weight.abs().amax(tuple(range(1, weight.dim())), keepdim=True)


def state_of(network: nn.Module, style: str) -> dict[str, Any]:
    """The state dict of the quantized network, its keys in the order of the modules."""
    prefix = {"pytorch-quantization": "_", "modelopt": ""}[style]
    state = {}
    for key, value in network.state_dict().items():
        state[key] = value
        layer, _, parameter = key.partition(".")
        if layer in LAYERS and parameter == "weight":
            state[f"{layer}.{prefix}input_quantizer._amax"] = torch.tensor(AMAX[layer])
            state[f"{layer}.{prefix}weight_quantizer._amax"] = weight_amax(network, layer)
    return state


def rounded(x: Any, amax: Any) -> Any:
    """What a TensorQuantizer of 8 bits makes of x."""
    scale = torch.as_tensor(amax) / 127
    return torch.clamp(torch.round(x / scale), -128, 127) * scale


def simulated(network: Any, x: Any, *, skip: float | None = AMAX["conv"]) -> dict[str, Any]:
    """What the fake-quantized module computes: what meets each weight, and the output. skip: amax of the skip connection, if quantized."""

    def weight(layer: str) -> Any:
        return rounded(getattr(network, layer).weight, weight_amax(network, layer))

    with torch.no_grad():
        fed = {"stem": rounded(x, AMAX["stem"])}
        y = torch.relu(network.norm(nn.functional.conv2d(fed["stem"], weight("stem"), padding=1)))
        fed["conv"] = rounded(y, AMAX["conv"])
        skipped = y if skip is None else rounded(y, skip)
        y = torch.relu(nn.functional.conv2d(fed["conv"], weight("conv"), network.conv.bias, padding=1) + skipped)
        fed["head"] = rounded(y.mean((2, 3)), AMAX["head"])
        return fed | {"output": nn.functional.linear(fed["head"], weight("head"), network.head.bias)}


def computed(result: Result, tensors: Mapping[str, str], x: Any, folder: Path) -> dict[str, Any]:
    """What ONNX Runtime makes of the quantized network: the dequantized `tensors`, by the names that they have there, and the output."""
    path = folder / "model.onnx"
    result.save(path)
    model = onnx.load(path)
    model.graph.output.extend(onnx.ValueInfoProto(name=f"{tensor}/dequantized") for tensor in tensors.values())
    onnx.save(model, path)
    name = model.graph.input[0].name
    found = Session(path).run({name: x.numpy()})
    return {what: found[f"{tensor}/dequantized"] for what, tensor in tensors.items()} | {"output": found[model.graph.output[0].name]}


def assert_within_a_step(found: Any, expected: Any, scale: float) -> None:
    """Assert that almost all elements are equal, and the rest one code apart."""
    apart = np.abs(found - np.asarray(expected))
    assert apart.max() <= scale * 1.001
    assert (apart > scale * 0.01).mean() < 0.01


_kept: dict[Any, Any] = {}
_export = importing._exported


def _exported_once(model: Any, *others: Any, **options: Any) -> Any:
    tensors = [(key, value.cpu().numpy().tobytes()) for key, value in model.state_dict().items()]
    hooks = sum(len(part._forward_pre_hooks) for part in model.modules())
    key = (repr(model), hooks, next(model.parameters()).device, *tensors)
    if key not in _kept:
        _kept[key] = _export(model, *others, **options)
    return _kept[key]


def imported(state: Any, module: Any = None, *, target: str = "tensorrt", x: Any = X, **options: Any) -> importing.Imported:
    """What is imported, where equal modules are exported once only: the exporter takes a second each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importing, "_exported", _exported_once)
        return zp.torch.import_checkpoint(Residual() if module is None else module, state, x, target=target, **options)


def scale(plan: Plan, tensor: str) -> Any:
    return np.asarray(plan.entry(tensor).scale, np.float32)


def reasons(plan: Plan, where: str) -> str:
    return "; ".join(note.reason for note in plan.notes if note.where == where)
