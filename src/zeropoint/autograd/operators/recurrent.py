"""RNN, GRU and LSTM with ONNX's standard activations, each as torch's fused one.

A GRU that multiplies by the reset gate before the linear transformation has none, and runs step by step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, ints, on_one_device
from zeropoint.errors import ModelError

# Where torch's gates stand among ONNX's: of iofc, ifco; of zrh, rzh.
LSTM_GATES, GRU_GATES, RNN_GATES = (0, 2, 3, 1), (1, 0, 2), (0,)
Layer = Callable[[Tensor, list[Tensor], list[Tensor], bool], tuple[Tensor, ...]]


@dataclass(frozen=True, slots=True)
class Recurrence:
    """A layer's attributes, and its gates in torch's order."""

    gates: tuple[int, ...]
    direction: str
    layout: int

    def run(self, layer: Layer, x: Tensor, weights: Sequence[Tensor | None], states: Sequence[Tensor | None]) -> tuple[Tensor, ...]:
        """Return the output of each step and direction, and the last states, as ONNX lays them out."""
        w, r, b = weights
        assert w is not None and r is not None
        b = w.new_zeros(w.shape[0], 2 * w.shape[1]) if b is None else b
        x = x.transpose(0, 1) if self.layout else x
        x = x.flip(0) if self.direction == "reverse" else x
        count, size = w.shape[0], r.shape[-1]
        zeros = x.new_zeros(count, x.shape[1], size)
        begin = [zeros if state is None else state.transpose(0, 1).contiguous() if self.layout else state for state in states]
        of_input, of_state = b.chunk(2, -1)
        flat = [self._in_order(part[i]) for i in range(count) for part in (w, r, of_input, of_state)]
        y, *last = layer(x, begin, flat, count == 2)
        y = y.unflatten(-1, (count, size)).transpose(1, 2)
        y = y.flip(0) if self.direction == "reverse" else y
        return (y.permute(2, 0, 1, 3), *(state.transpose(0, 1) for state in last)) if self.layout else (y, *last)

    def _in_order(self, part: Tensor) -> Tensor:
        gates = part.chunk(len(self.gates))
        return torch.cat([gates[gate] for gate in self.gates]) if len(gates) > 1 else part


def _fused(function: Operator) -> Layer:
    def layer(x: Tensor, begin: list[Tensor], flat: list[Tensor], both: bool) -> tuple[Tensor, ...]:
        states = tuple(begin) if len(begin) > 1 else begin[0]
        # cuDNN records what gradients need only in training; it copies the weights together, and warns that it does.
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")
            result: tuple[Tensor, ...] = function(x, states, flat, True, 1, 0.0, torch.is_grad_enabled(), both, False)
        return result

    return layer


def _check_lengths(lengths: Tensor | None, steps: int, operator: str) -> None:
    if lengths is not None and any(length != steps for length in ints(lengths)):
        raise ModelError(f"{operator}: found sequence_lens {ints(lengths)}, expected {steps} for all, the length of the input")


def lstm(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    cell: Tensor | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    input_forget: int = 0,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Return every step's output, the last output and the last cell."""
    _check_lengths(lengths, x.shape[layout], "LSTM")
    return Recurrence(LSTM_GATES, direction, layout).run(_fused(torch.lstm), x, (weight, recurrent, bias), (hidden, cell))


def gru(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    *,
    activations: Sequence[str] | None = None,
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
    linear_before_reset: int = 0,
) -> tuple[Tensor, ...]:
    """Return every step's output and the last one."""
    _check_lengths(lengths, x.shape[layout], "GRU")
    layer = _fused(torch.gru) if linear_before_reset else _stepwise_gru
    return Recurrence(GRU_GATES, direction, layout).run(layer, x, (weight, recurrent, bias), (hidden,))


def rnn(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    bias: Tensor | None = None,
    lengths: Tensor | None = None,
    hidden: Tensor | None = None,
    *,
    activations: Sequence[str] = ("Tanh",),
    direction: str = "forward",
    hidden_size: int | None = None,
    layout: int = 0,
) -> tuple[Tensor, ...]:
    """Return every step's output and the last one."""
    _check_lengths(lengths, x.shape[layout], "RNN")
    layer = _fused(torch.rnn_relu if activations[0] == "Relu" else torch.rnn_tanh)
    return Recurrence(RNN_GATES, direction, layout).run(layer, x, (weight, recurrent, bias), (hidden,))


def _stepwise_gru(x: Tensor, begin: list[Tensor], flat: list[Tensor], both: bool) -> tuple[Tensor, ...]:
    outputs, last = [], []
    for way in range(1 + both):
        w, r, of_input, of_state = flat[4 * way : 4 * way + 4]
        inputs = torch.nn.functional.linear(x.flip(0) if way else x, w, of_input)
        size = r.shape[-1]
        h, steps = begin[0][way], []
        for step in inputs.unbind(0):
            gates = torch.sigmoid(step[:, : 2 * size] + torch.nn.functional.linear(h, r[: 2 * size], of_state[: 2 * size]))
            reset, update = gates.chunk(2, -1)
            new = torch.tanh(step[:, 2 * size :] + torch.nn.functional.linear(reset * h, r[2 * size :], of_state[2 * size :]))
            h = new + update * (h - new)
            steps.append(h)
        y = torch.stack(steps)
        outputs.append(y.flip(0) if way else y)
        last.append(h)
    return torch.cat(outputs, -1), torch.stack(last)


RECURRENT: Mapping[str, Operator] = {"GRU": on_one_device(gru), "LSTM": on_one_device(lstm), "RNN": on_one_device(rnn)}
