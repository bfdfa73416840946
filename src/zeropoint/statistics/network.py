"""All that was seen in a network, by tensor name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from zeropoint.statistics.channel_sums import ChannelSums, merge_channels
from zeropoint.statistics.tensor import TensorStatistic, merge

_K = TypeVar("_K")
_S = TypeVar("_S")


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """tensors: the distribution of all elements; channels: by tensor and axis, the means of the channels along it, where asked for."""

    tensors: Mapping[str, TensorStatistic]
    channels: Mapping[tuple[str, int], ChannelSums]


NOTHING_SEEN = Statistics({}, {})


def merge_statistics(a: Statistics, b: Statistics) -> Statistics:
    """Return what `a` and `b` saw together: associative and commutative, with `NOTHING_SEEN` as its identity.

    Raises:
        DataError: a tensor has not the same number of channels in both.
    """
    return Statistics(_merged(a.tensors, b.tensors, merge), _merged(a.channels, b.channels, merge_channels))


def _merged(a: Mapping[_K, _S], b: Mapping[_K, _S], join: Callable[[_S, _S], _S]) -> dict[_K, _S]:
    both = {name: join(a[name], b[name]) for name in a.keys() & b.keys()}
    return {name: both.get(name, statistic) for name, statistic in {**a, **b}.items()}
