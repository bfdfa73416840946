"""How much of an operator's error comes from its rounded weights, and how much from its rounded inputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model
from zeropoint.numerics.affine import dequantize_array, qparams_from_range, quantize_array
from zeropoint.numerics.spec import PerBlock, PerChannel, PerTensor, Spec
from zeropoint.plan import Entry, Plan, Tied
from zeropoint.refine.linear import linear

Array = npt.NDArray[Any]
Array64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """A weighted operator that reads a site: rows (outputs, K) of weights, the channel of each column (groups, K), and what rounds them."""

    tensor: str
    weight: Array64  # (groups, outputs, K)
    channels: npt.NDArray[np.intp]
    spec: Spec

    def noise(self, factors: Array64, power: Array64, rounding: Array64) -> tuple[float, float]:
        """Return the noise of rounded weights, and that of rounded inputs, in the outputs, relative to their power.

        power, rounding: mean squares of the channels of the input, and of their errors; channels are taken as uncorrelated.
        """
        by = factors[self.channels][:, None, :]
        error = (_rounded(self.weight * by, self.spec) / by) - self.weight
        columns = np.square(self.weight).sum(axis=1)
        whole = max(float((columns * power[self.channels]).sum()), float(np.finfo(np.float64).tiny))
        of_weights = float((np.square(error).sum(axis=1) * power[self.channels]).sum())
        return of_weights / whole, float((columns * rounding[self.channels]).sum()) / whole


def products(network: Model, plan: Plan, ties: Mapping[Entry, Tied]) -> list[Product]:
    """Return the weighted readers of some sites whose columns each belong to a channel."""
    specs = {reader.node: entry.spec for entry in plan.entries if entry.role == "weight" for reader in entry.readers}
    nodes = {str(node.name): node for node in network.graph}
    found: list[Product] = []
    for entry, tied in ties.items():
        for node in [nodes[reader.node] for reader in entry.readers if reader.node in specs and reader.input == 0]:
            how = linear(node)
            if how is None or tied.axis is None:
                continue
            numbers = tied.numbers().reshape(-1)
            weight = how.matrix(constant_array(node.inputs[1])).astype(np.float64)
            groups, _, width = weight.shape
            if groups * width % len(numbers) == 0:
                channels = np.repeat(numbers, groups * width // len(numbers)).reshape(groups, width)
                found.append(Product(entry.tensor, weight, channels, specs[str(node.name)]))
    return found


def _rounded(weights: Array64, spec: Spec) -> Array64:
    """Return what the codes of weights (groups, outputs, K) stand for, each row or all of them on one scale."""
    flat = weights.reshape(-1, weights.shape[-1])
    match spec.granularity:
        case PerTensor():
            granularity, peak = spec.granularity, np.abs(flat).max()
        case PerChannel():
            granularity, peak = PerChannel(0), np.abs(flat).max(axis=1)  # type: ignore[assignment]
        case PerBlock():
            return weights  # blocks follow the channels: scaling them is no burden
    qparams = qparams_from_range(-peak, peak, spec=spec.with_granularity(granularity))
    return dequantize_array(quantize_array(flat, qparams), qparams).astype(np.float64).reshape(weights.shape)


def mean_squares(tied: Tied, arrays: Sequence[Array], count: int) -> Array64:
    """Return the mean square of each channel (channels + 1,), the last one of what stays."""
    sums, elements = np.zeros(count + 1), np.zeros(count + 1)
    numbers = tied.numbers()
    for x in arrays:
        by_channel = np.square(x, dtype=np.float64).mean(axis=other_axes(tied, x)).reshape(-1)
        np.add.at(sums, numbers.reshape(-1), by_channel)
        np.add.at(elements, numbers.reshape(-1), 1.0)
    return sums / np.maximum(1.0, elements)


def other_axes(tied: Tied, x: Array) -> tuple[int, ...]:
    """Return the axes of `x` along which the channel stays the same."""
    shape = tied.shape
    return tuple(axis for axis in range(x.ndim) if axis - x.ndim < -len(shape) or shape[axis - x.ndim] == 1)
