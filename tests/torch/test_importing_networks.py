from __future__ import annotations

from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from tests.torch.importing_cases import (
    imported,
    randn,
    reasons,
    scale,
    weight_amax,
)
from torch import nn


class Tokens(nn.Module):
    """A linear layer on three axes, which is exported as a product with a transposed weight, called twice."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.line = nn.Linear(16, 16, bias=False)

    def forward(self, tokens: Any) -> Any:
        return self.line(torch.tanh(self.line(tokens)))


def test_module_that_is_called_twice_has_one_range_for_both_inputs() -> None:
    state = {**Tokens().state_dict(), "line._input_quantizer._amax": torch.tensor(1.27)}
    state["line._weight_quantizer._amax"] = torch.arange(1.0, 17.0).reshape(16, 1)
    plan = imported(state, Tokens(), x=randn(2, 5, 16)).plan
    activations = [entry for entry in plan.entries if entry.role == "activation"]
    assert [entry.scale for entry in activations] == [(0.01,), (0.01,)]
    for entry in plan.entries:
        if entry.role == "weight":
            assert entry.axis == 1  # its channels are columns now
            assert np.array_equal(np.asarray(entry.scale, np.float32), np.float32(np.arange(1.0, 17.0) / 127))


class Dense(nn.Module):
    """What one convolution reads is also a part of what the next one reads."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.third = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(32, 16, 1)

    def forward(self, x: Any) -> Any:
        y = torch.relu(self.first(x))
        return self.third(torch.cat([y, self.second(y)], 1))


@pytest.mark.parametrize(("amaxes", "largest"), [((3.0, 2.5), 3.0), ((2.0, 2.5), 2.5)], ids=["of-the-part", "of-the-whole"])
def test_tensors_that_share_a_scale_have_the_largest(amaxes: tuple[float, float], largest: float) -> None:
    state = dict(Dense().state_dict())
    for module, amax in zip(("first", "second", "third"), (1.0, *amaxes), strict=True):
        state[f"{module}.input_quantizer._amax"] = torch.tensor(amax)
    plan = imported(state, Dense(), x=randn(2, 16, 4, 4)).plan
    group = [entry for entry in plan.entries if entry.group]
    assert [np.float32(entry.scale[0]) for entry in group] == [np.float32(largest / 127)] * 2
    assert "relu and cat share one scale: what covers all of them is taken" in reasons(plan, "relu")


def test_tensor_without_a_range_has_that_of_what_it_shares_a_scale_with() -> None:
    state = dict(Dense().state_dict())
    state["third.input_quantizer._amax"] = torch.tensor(2.0)
    plan = imported(state, Dense(), x=randn(2, 16, 4, 4)).plan
    assert scale(plan, "relu") == scale(plan, "cat") == np.float32(2.0 / 127)
    assert "it has that of 'cat', whose scale it shares" in reasons(plan, "relu")


class Tied(nn.Module):
    """A transposed convolution, and two linear layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.up, self.one, self.two = nn.ConvTranspose2d(16, 32, 2, 2), nn.Linear(32, 32), nn.Linear(32, 32, bias=False)
        self.two.weight = self.one.weight

    def forward(self, x: Any) -> Any:
        return self.two(torch.tanh(self.one(self.up(x).mean((2, 3)))))


def test_channels_of_a_transposed_convolution_and_a_tied_weight_keep_their_scales() -> None:
    state = dict(Tied().state_dict())
    for number, layer in enumerate(("up", "one", "two")):
        state[f"{layer}._input_quantizer._amax"] = torch.tensor(1.0 + number)
    state["up._weight_quantizer._amax"] = torch.arange(1.0, 33.0).reshape(1, 32, 1, 1)
    state["one._weight_quantizer._amax"] = torch.arange(1.0, 33.0).reshape(32, 1)
    state["two._weight_quantizer._amax"] = torch.arange(32.0, 0.0, -1.0).reshape(32, 1)
    plan = imported(state, Tied(), x=randn(2, 16, 3, 3), include=["ConvTranspose"]).plan
    assert [float(np.float32(entry.scale[0]) * 127) for entry in plan.entries if entry.role == "activation"] == pytest.approx(
        [1.0, 2.0, 3.0]
    )
    assert plan.entry("up.weight").axis == 1
    assert np.array_equal(scale(plan, "up.weight"), np.float32(np.arange(1.0, 33.0) / 127))
    largest = np.maximum(np.arange(1.0, 33.0), np.arange(32.0, 0.0, -1.0))
    [tied] = [entry.tensor for entry in plan.entries if entry.role == "weight" and entry.tensor != "up.weight"]
    assert np.array_equal(scale(plan, tied), np.float32(largest / 127))
    assert "2 modules share this weight with other scales for it" in reasons(plan, tied)


class Moved(nn.Module):
    """A convolution that reads what others computed, joined, pooled and reordered."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.left, self.right, self.both = nn.Conv2d(16, 16, 1), nn.Conv2d(16, 16, 1), nn.Conv2d(32, 16, 1)

    def forward(self, x: Any) -> Any:
        y = torch.cat([self.left(x), self.right(x)], 1)
        return self.both(torch.max_pool2d(y, 2)).mean((2, 3))


def test_range_behind_operators_that_move_values_is_that_before_them() -> None:
    state = dict(Moved().state_dict())
    state["left.input_quantizer._amax"], state["both.input_quantizer._amax"] = torch.tensor(1.0), torch.tensor(2.0)
    plan = imported(state, Moved(), x=randn(2, 16, 4, 4), target="onnxruntime").plan  # which wants codes on all the way
    for tensor in ("conv2d", "conv2d_1", "cat", "max_pool2d"):
        assert scale(plan, tensor) == np.float32(2.0 / 127)
    assert "it has the range of what is moved into it or out of it (both.input_quantizer)" in reasons(plan, "conv2d")


class Thin(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 1, bias=False)

    def forward(self, x: Any) -> Any:
        return self.second(self.first(x))


def test_layer_that_the_target_leaves_in_float_says_why() -> None:
    state = dict(Thin().state_dict())
    state["first.input_quantizer._amax"] = state["second.input_quantizer._amax"] = torch.tensor(1.0)
    plan = imported(state, Thin(), x=randn(1, 3, 4, 4)).plan
    assert "not used: nothing reads 'x' in codes" in reasons(plan, "first.input_quantizer")


def test_dead_channel_may_have_an_amax_of_zero() -> None:
    module = Thin()
    with torch.no_grad():
        module.second.weight[5] = 0.0
    state = dict(module.state_dict())
    state["second.input_quantizer._amax"] = torch.tensor(1.0)
    state["second.weight_quantizer._amax"] = weight_amax(module, "second")
    scales = scale(imported(state, module, x=randn(1, 3, 4, 4)).plan, "second.weight")
    assert (scales > 0).all()
    assert scales[4] == np.float32(weight_amax(module, "second")[4].double() / 127)
