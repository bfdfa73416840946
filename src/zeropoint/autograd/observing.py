"""Statistics of PyTorch tensors, wherever they are: bit for bit those that calibration takes of arrays."""

from __future__ import annotations

from typing import Any

import torch

from zeropoint.autograd.kernels.dispatch import no_tally, observe
from zeropoint.autograd.kernels.layout import flat
from zeropoint.autograd.kernels.plain import ordered
from zeropoint.errors import DataError
from zeropoint.statistics.channel_sums import (
    LIMB_BITS,
    LIMBS,
    MANTISSA_BITS,
    SMALLEST_EXPONENT,
    ChannelObservation,
    ChannelSums,
    sums_of,
)
from zeropoint.statistics.tensor import Observation, TensorStatistic, from_counts

Tensor = Any  # of PyTorch, which has no types here


def add_rows(rows: Tensor, limbs: Tensor) -> Tensor:
    """Add the finite ones of `rows`, float32 (rows, channels), to `limbs`, int64 (19, channels), and return how many they are.

    What `statistics.channel_sums` does in numpy, on any device: the digits are integers, whose sum no order changes.
    """
    finite = rows.isfinite().all(1, keepdim=True)
    fraction, exponent = torch.frexp(torch.where(finite, rows, 0.0))
    position = exponent.long() - (MANTISSA_BITS + SMALLEST_EXPONENT)
    mantissa = (fraction * 2.0**MANTISSA_BITS).long()
    digits = mantissa * torch.bitwise_left_shift(torch.ones_like(mantissa), position % LIMB_BITS)
    limbs.scatter_add_(0, torch.where(digits == 0, 0, position // LIMB_BITS), digits)
    return finite.sum()


class RowsObservation:
    """Sums of channels in the making, on a device: `add` rows, then take the `sums` of all of them."""

    def __init__(self, channels: int, device: Any = "cpu") -> None:
        """Begin with nothing seen."""
        self._on_host = ChannelObservation(channels)
        self._limbs = torch.zeros(LIMBS, channels, dtype=torch.int64, device=device)
        self._rows = torch.zeros((), dtype=torch.int64, device=device)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def add(self, rows: Tensor) -> None:
        """Take in `rows` (rows, channels) of any float dtype; those that hold NaN or infinity are left out."""
        if self._limbs.device.type == "cpu":  # for which there is compiled code
            self._on_host.add(rows.float().numpy())
        else:
            self._rows += add_rows(rows.float(), self._limbs)

    def sums(self) -> ChannelSums:
        """Return the sums of what was added so far."""
        return self._on_host.sums() if self._limbs.device.type == "cpu" else sums_of(int(self._rows), self._limbs.cpu().numpy())


class TensorObservation:
    """A statistic in the making, on a device: `add` tensors, then take the `statistic` of all of them.

    Nothing leaves a GPU and nothing waits for it before `statistic`: half a megabyte of counts stands there.

    Example:
        >>> observation = TensorObservation()
        >>> observation.add(torch.tensor([-1.0, 2.5]))
        >>> observation.statistic().maximum
        2.5
    """

    def __init__(self, device: Any = "cpu") -> None:
        """Begin with nothing seen. device: a torch.device or its name; tensors from elsewhere are moved there."""
        self._device = torch.device(device)
        self._on_host = Observation()
        self._tally = None if self._device.type == "cpu" else no_tally(self._device)

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def add(self, tensor: Tensor) -> None:
        """Take in `tensor`, of any shape and any real dtype, as float32; what overflows that counts as infinite.

        Raises:
            DataError: it holds complex numbers or truth values.
        """
        if tensor.dtype == torch.bool or tensor.is_complex():
            raise DataError(f"statistic: found a tensor of {tensor.dtype}, expected real numbers; convert it to float32 first")
        x = tensor.detach().to(self._device)
        if self._tally is None:
            self._on_host.add(flat(x).float().numpy())
        else:
            observe(x if x.is_floating_point() else x.float(), *self._tally)

    def statistic(self) -> TensorStatistic:
        """Return the statistic of what was added so far."""
        if self._tally is None:
            return self._on_host.statistic()
        counts, bounds, others = self._tally
        lo, hi = ordered(bounds).view(torch.float32).tolist()
        nan_count, inf_count = others.tolist()
        return from_counts(counts.cpu().numpy(), (lo, hi), (nan_count, inf_count))
