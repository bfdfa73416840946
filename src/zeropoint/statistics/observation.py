"""The statistics of a network in the making."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt

from zeropoint.statistics.channel_sums import ChannelObservation
from zeropoint.statistics.network import Statistics
from zeropoint.statistics.tensor import Observation

Array = npt.NDArray[np.generic]


class NetworkObservation:
    """Add what was seen from any number of threads, then take the `statistics` of all of it."""

    def __init__(self, tensors: Iterable[str]) -> None:
        self._tensors = {name: Observation() for name in tensors}
        self._channels: dict[tuple[str, int], ChannelObservation] = {}

    def add(self, tensor: str, array: Array) -> None:
        """Take in what a tensor held in one run.

        Raises:
            DataError: it does not hold numbers.
        """
        self._tensors[tensor].add(array)

    def add_means(self, channels: Mapping[tuple[str, int], Array]) -> None:
        """Take in the means of channels (rows, channels) of one run.

        Raises:
            DataError: a tensor had not the same number of channels before.
        """
        for key, rows in channels.items():
            if key not in self._channels:
                self._channels.setdefault(key, ChannelObservation(rows.shape[1]))  # of two threads one is the first
            self._channels[key].add(rows)

    def statistics(self) -> Statistics:
        """Return the statistics of what was added so far."""
        return Statistics(
            {name: observation.statistic() for name, observation in self._tensors.items()},
            {key: observation.sums() for key, observation in self._channels.items()},
        )
