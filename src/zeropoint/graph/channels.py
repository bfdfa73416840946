"""The channels of a network's activations: which elements can be divided by which common factors.

Each element of each activation has a label, and what holds one label is divided by one positive factor. Label 0 is for what stays as it
is. Labels are united where only a common factor leaves what the network computes as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from zeropoint.graph.facts import Facts

Labels = npt.NDArray[np.int64]  # of the tensor's rank; an axis is of size 1 where labels don't vary along it
Shape = tuple[int, ...]

KEPT = 0


@dataclass(slots=True)
class Channels:
    """The labels of all activations. `parent` is a union-find over them, in which a root is the least of its labels.

    loose: Clips whose upper bound is taken for one that is never met.
    """

    facts: Facts
    parent: list[int] = field(default_factory=lambda: [KEPT])
    labels: dict[ir.Value, Labels] = field(default_factory=dict)
    loose: list[ir.Node] = field(default_factory=list)

    def shape(self, value: ir.Value) -> Shape:
        """Return the shape of `value` in the run that the facts are from."""
        return self.facts[str(value.name)].shape

    def of(self, value: ir.Value) -> Labels:
        """Return the labels of `value`."""
        labels = self.labels.get(value)
        return np.zeros((1,) * len(self.shape(value)), np.int64) if labels is None else labels

    def roots(self, value: ir.Value) -> Labels:
        """Return the labels of `value`, the same for all that were united."""
        labels = self.of(value)
        return np.array([self.root(int(label)) for label in labels.flat], np.int64).reshape(labels.shape)

    def root(self, label: int) -> int:
        """Return the label that stands for all those that were united with `label`."""
        while self.parent[label] != label:
            self.parent[label] = self.parent[self.parent[label]]
            label = self.parent[label]
        return label

    def new(self, shape: Iterable[int]) -> Labels:
        """Return labels that nothing has yet."""
        sizes, first = tuple(shape), len(self.parent)
        self.parent.extend(range(first, first + prod(sizes)))
        return np.arange(first, first + prod(sizes), dtype=np.int64).reshape(sizes)

    def renew(self, value: ir.Value, axes: Iterable[int]) -> None:
        """Give `value` labels of its own that vary along `axes`."""
        shape, varying = self.shape(value), {axis % len(self.shape(value)) for axis in axes}
        self.labels[value] = self.new(size if axis in varying else 1 for axis, size in enumerate(shape))

    def unite(self, a: Labels, b: Labels) -> Labels:
        """Make the labels of two tensors that broadcast together one, element by element, and return them."""
        a, b = np.broadcast_arrays(a, b)
        if a is not b:
            for one, other in {*zip(a.flat, b.flat, strict=True)}:
                low, high = sorted((self.root(int(one)), self.root(int(other))))
                self.parent[high] = low
        return a

    def even(self, labels: Labels, axes: Iterable[int]) -> Labels:
        """Unite labels along `axes`, and return them with size 1 there."""
        for axis in axes:
            if labels.shape[axis] > 1:
                labels = self.unite(labels.take([0], axis), labels).take([0], axis)
        return labels

    def keep(self, value: ir.Value | None) -> None:
        """Let `value` stay as it is."""
        if value in self.labels:
            self.unite(self.labels[value], np.zeros((), np.int64))

    def is_kept(self, value: ir.Value) -> bool:
        """Return whether it is known already that `value` stays as it is."""
        return not self.roots(value).any()


def reshaped(labels: Labels, before: Shape, after: Shape) -> Labels:
    """Return the labels of a tensor of shape `before` when its elements are brought into the shape `after`."""
    wide: list[int] = []  # the shapes, but with size 1 for groups of axes along which labels don't vary
    narrow: list[int] = []
    i = j = 0
    while i < len(before) or j < len(after):
        group_before, group_after = [*before[i : i + 1]], [*after[j : j + 1]]
        i, j = i + 1, j + 1
        while prod(group_before) != prod(group_after):
            if prod(group_before) < prod(group_after):
                group_before.append(before[i])
                i += 1
            else:
                group_after.append(after[j])
                j += 1
        first = len(wide)
        varies = any(size > 1 for size in labels.shape[first : first + len(group_before)])
        wide += group_before if varies else [1] * len(group_before)
        narrow += group_after if varies else [1] * len(group_after)
    return evened(np.broadcast_to(labels, wide).reshape(narrow))


def evened(labels: Labels) -> Labels:
    """Return labels with size 1 along each axis along which they don't vary."""
    for axis in range(labels.ndim):
        first = labels.take([0], axis) if labels.shape[axis] > 1 else labels
        if (first == labels).all():
            labels = first
    return labels
