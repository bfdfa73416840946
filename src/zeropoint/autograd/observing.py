"""Statistics of PyTorch tensors, wherever they are: bit for bit those that calibration takes of arrays."""

from __future__ import annotations

from typing import Any

import torch

from zeropoint.autograd.kernels.dispatch import no_tally, observe
from zeropoint.autograd.kernels.layout import flat
from zeropoint.autograd.kernels.plain import ordered
from zeropoint.errors import DataError
from zeropoint.statistics.tensor import Observation, TensorStatistic, from_counts

Tensor = Any  # of PyTorch, which has no types here


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
