"""Run batches on one of PyTorch's devices, and count there what the tensors hold: no tensor leaves a GPU, only its statistic does."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import nullcontext
from itertools import islice
from typing import TYPE_CHECKING, Any

from zeropoint.data import Batches
from zeropoint.graph.model import Model
from zeropoint.graph.taps import Channels, Taps
from zeropoint.numerics.affine import checked_axis
from zeropoint.runtime.machine import cores
from zeropoint.statistics.network import Statistics

if TYPE_CHECKING:
    from zeropoint.autograd.observing import RowsObservation

MOST_ROWS = 1 << 14  # of channel means, that wait on the device
# Blocks that are read while others run: few at first, since threads that share Python's lock finish together, and all wait for the first.
FIRST, MOST = 2, 8
QUICK = 0.1  # seconds: where a block takes longer, reading is the work, and is for all threads


class DeviceRun:
    """A prepared network on a device, with what was seen of its taps so far."""

    def __init__(self, network: Model, taps: Taps, device: str) -> None:
        import torch

        from zeropoint.autograd.lift import lift

        self._module = lift(network, trainable=(), device=device).eval()
        self._taps, self._device = taps, device
        self._axes: dict[str, list[int]] = defaultdict(list)
        for tensor, axis in taps.channels:
            self._axes[tensor].append(axis)
        self._names = frozenset((*taps.tensors, *self._axes))
        self._copies = torch.cuda.Stream(device) if torch.device(device).type == "cuda" else None
        self._begin()

    def observe(self, batches: Batches, blocks: Iterable[int]) -> Iterator[int]:
        """Add what is seen in `blocks` of the data, and yield each of them once it is under way; some are read while others run.

        Raises:
            DataError: a sample cannot be read or does not fit.
            ModelError: the network fails on one.
        """
        pending, reading, ahead = iter(blocks), deque[tuple[int, Future[list[list[Any]]]]](), FIRST
        with ThreadPoolExecutor(cores()) as readers:

            def read_ahead() -> None:
                reading.extend((block, readers.submit(self._read, batches, block)) for block in islice(pending, ahead - len(reading)))

            try:
                while True:
                    read_ahead()
                    if not reading:
                        return
                    block, feeds = reading[0]
                    if not wait([feeds], timeout=QUICK).done:
                        ahead = MOST
                        read_ahead()
                    for inputs in feeds.result():
                        self._run(inputs)
                    reading.popleft()
                    ahead = min(MOST, ahead + 1)
                    yield block
            finally:
                readers.shutdown(cancel_futures=True)

    def taken(self) -> Statistics:
        """Return the statistics of what was added since they were taken last."""
        self._flush()
        tensors = {name: observation.statistic() for name, observation in self._tensors.items()}
        channels = {key: observation.sums() for key, observation in self._sums.items()}
        self._begin()
        return Statistics(tensors, channels)

    def _begin(self) -> None:
        from zeropoint.autograd.observing import TensorObservation

        self._tensors = {name: TensorObservation(self._device) for name in self._taps.tensors}
        self._sums: dict[Channels, RowsObservation] = {}
        self._rows: dict[Channels, list[Any]] = defaultdict(list)
        self._waiting = 0

    def _read(self, batches: Batches, block: int) -> list[list[Any]]:
        """Return the inputs of each batch of a block on the device; the copies there run beside what it computes."""
        import torch

        found = []
        with torch.cuda.stream(self._copies) if self._copies is not None else nullcontext():
            for feed in batches[block]:
                arrays = (
                    feed[name] if feed[name].flags.writeable else feed[name].copy() for name in self._module.inputs
                )  # or PyTorch warns
                found.append([torch.from_numpy(array).to(self._device) for array in arrays])
            if self._copies is not None:
                self._copies.synchronize()
        return found

    def _run(self, inputs: list[Any]) -> None:
        import torch

        from zeropoint.autograd.devices import full_precision

        if self._copies is not None:
            for tensor in inputs:
                tensor.record_stream(torch.cuda.current_stream(self._device))
        with torch.inference_mode(), full_precision():
            self._module.visit(inputs, self._names, self._see)
        if self._waiting > MOST_ROWS:
            self._flush()

    def _see(self, name: str, tensor: Any) -> None:
        if name in self._tensors:
            self._tensors[name].add(tensor)
        for axis in self._axes.get(name, ()):
            along = checked_axis(axis, tuple(tensor.shape))
            others = [a for a in range(1, tensor.dim()) if a != along]
            rows = tensor.mean(others) if others else tensor.clone()  # the network may write there again
            self._rows[name, axis].append(rows)
            self._waiting += len(rows)

    def _flush(self) -> None:
        import torch

        from zeropoint.autograd.observing import RowsObservation

        for key, rows in self._rows.items():
            joined = torch.cat(rows)
            if key not in self._sums:
                self._sums[key] = RowsObservation(joined.shape[1], self._device)
            self._sums[key].add(joined)
        self._rows.clear()
        self._waiting = 0
