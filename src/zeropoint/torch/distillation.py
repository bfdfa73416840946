"""The distance of a quantized module from the float one, as a loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch.nn import functional

from zeropoint.torch import processes
from zeropoint.torch.training_options import Distillation

Tensor = Any  # of PyTorch, which has no types here
MATRIX, IMAGE = 2, 4
TINY = 1e-12  # of a probability


@dataclass(frozen=True, slots=True)
class Yardstick:
    """What distances are measured by, taken from the float module at the first batch.

    measures: by output; "none" for one that is no float. powers: mean square of each output. feature_powers: of each feature.
    """

    measures: tuple[str, ...]
    powers: tuple[float, ...]
    feature_powers: Mapping[str, float]

    @property
    def stored(self) -> dict[str, Any]:
        """The same as plain values."""
        return asdict(self)


def yardstick(outputs: Sequence[Tensor], features: Mapping[str, Tensor], asked: Distillation) -> Yardstick:
    """Choose how each output is compared, and take the mean squares, over the first batch of all processes."""
    measures = tuple(_measure(output, asked) for output in outputs)
    powers = [_power(tensor) for tensor in (*outputs, *features.values())]
    all_measures, all_powers = zip(*processes.gathered((measures, powers)), strict=True)
    means = [sum(column) / len(column) or 1.0 for column in zip(*all_powers, strict=True)]
    agreed = tuple(_agreed(column) for column in zip(*all_measures, strict=True))
    return Yardstick(agreed, tuple(means[: len(outputs)]), dict(zip(features, means[len(outputs) :], strict=True)))


def output_distance(outputs: Sequence[Tensor], float_outputs: Sequence[Tensor], by: Yardstick, *, temperature: float) -> Tensor:
    """Return the distance of all outputs, summed; a scalar."""
    total = torch.zeros((), device=outputs[0].device)
    for output, expected, measure, power in zip(outputs, float_outputs, by.measures, by.powers, strict=True):
        if measure == "values":
            total = total + _error(output, expected) / power
        elif measure != "none":
            total = total + _divergence(output.float(), expected.float(), measure, temperature=temperature)
    return total


def feature_distance(features: Mapping[str, Tensor], float_features: Mapping[str, Tensor], by: Yardstick) -> Tensor:
    """Return the mean over all features of their squared error over the float one's mean square; a scalar."""
    return torch.stack([_error(features[name], float_features[name]) / power for name, power in by.feature_powers.items()]).mean()


def _measure(output: Tensor, asked: Distillation) -> str:
    if not output.is_floating_point():
        return "none"
    if asked.measure != "auto":
        return asked.measure
    if output.dim() != MATRIX or output.shape[1] < MATRIX:
        return "values"
    rows = output.float()
    sums_to_one = bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() < 1e-2).all())
    return "probabilities" if sums_to_one else "logits"


def _agreed(measures: Sequence[str]) -> str:
    return measures[0] if len(set(measures)) == 1 else "logits"


def _power(tensor: Tensor) -> float:
    return float(tensor.float().square().mean()) if tensor.is_floating_point() else 1.0


def _error(found: Tensor, expected: Tensor) -> Tensor:
    return functional.mse_loss(found.float(), expected.float())


def _divergence(output: Tensor, expected: Tensor, measure: str, *, temperature: float) -> Tensor:
    axis = 1 if output.dim() >= IMAGE else -1
    if measure == "probabilities":
        output, expected = output.clamp_min(TINY).log(), expected.clamp_min(TINY).log()
    log_found, log_expected = ((x / temperature).log_softmax(axis) for x in (output, expected))
    return (log_expected.exp() * (log_expected - log_found)).sum(axis).mean() * temperature**2
