"""From the seconds of many calls to the figures of a benchmark."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from zeropoint.benching.bench import OperatorTime, Profile, Ratio, SlowNode
from zeropoint.evaluate.latency import median_ratio
from zeropoint.runtime.node_time import NodeTime

Seconds = npt.NDArray[np.float64]
CONFIDENCE = 0.95
MOST_NODES = 10


def ratio_of_rounds(times: Seconds, baseline: Seconds) -> Ratio:
    """Return the median of the ratios of two networks' times in the same rounds, and an interval that holds the true one.

    The interval is between two of the ratios in their order, of which it is known how often the median of any distribution lies
    between them. times, baseline: of shape (rounds,).
    """
    ratios = np.sort(times / baseline)
    left_out = _ranks_left_out(len(ratios))
    return Ratio(value=median_ratio(times, baseline), low=float(ratios[left_out]), high=float(ratios[len(ratios) - 1 - left_out]))


def _ranks_left_out(count: int) -> int:
    """Return how many of the lowest and of the highest of `count` values may be left out, so that the others span the median surely enough.

    Below 6 values even all of them span it less surely.
    """
    outside, left_out = 0.0, 0
    for rank in range(count // 2):
        outside += 2 * math.comb(count, rank) / 2**count  # the median lies beyond the value of this rank, on either side
        if outside > 1 - CONFIDENCE:
            break
        left_out = rank
    return left_out


def spread(times: Seconds) -> float:
    """Return what lies between the 10th and the 90th percentile of a network's times by round, over their median."""
    low, middle, high = np.percentile(times, (10, 50, 90))
    return float((high - low) / middle)


def summarize_profile(nodes: Sequence[NodeTime], *, runs: int) -> Profile:
    """Sum the times of nodes by operator, and pick out the slowest."""
    total = sum(node.seconds for node in nodes) or 1e-12
    by_operator: dict[str, list[NodeTime]] = {}
    for node in nodes:
        by_operator.setdefault(node.operator, []).append(node)
    operators = [
        OperatorTime(operator=name, nodes=len(found), milliseconds=1e3 * spent, share=spent / total)
        for name, found in by_operator.items()
        for spent in [sum(node.seconds for node in found)]
    ]
    slowest = sorted(nodes, key=lambda node: -node.seconds)[:MOST_NODES]
    return Profile(
        runs=runs,
        milliseconds=1e3 * sum(node.seconds for node in nodes),
        operators=tuple(sorted(operators, key=lambda operator: -operator.share)),
        slowest=tuple(
            SlowNode(
                node=node.node,
                operator=node.operator,
                milliseconds=1e3 * node.seconds,
                share=node.seconds / total,
                in_integers=node.in_integers,
            )
            for node in slowest
        ),
        integer_share=sum(node.seconds for node in nodes if node.in_integers) / total,
    )
