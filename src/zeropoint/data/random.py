"""Random samples, for trying things out: only ever used where they are asked for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from zeropoint.data.fit import is_float
from zeropoint.data.inputs import Array, Feed, InputInfo, batch_axis, shape_text
from zeropoint.errors import DataError

DEFAULT_COUNT = 32
NOT_REAL = "random numbers, not real data"  # in every description, from where it reaches plans and verdicts


@dataclass(frozen=True, slots=True)
class RandomSource:
    """Standard normal floats, bytes 0..255 for uint8, and 0 or 1 for other integers, which serve as index, token and mask alike."""

    inputs: tuple[InputInfo, ...]
    count: int
    seed: int

    @property
    def description(self) -> str:
        """That it is random, so that nobody takes what comes of it for a measurement."""
        return f"{NOT_REAL} ({self.count} samples, seed {self.seed})"

    def __len__(self) -> int:
        """How many samples there are."""
        return self.count

    def name(self, index: int) -> str:
        """The sample's place."""
        return f"random {index}"

    def sample(self, index: int) -> Feed:
        """Draw one sample: the same for the same seed and index, whatever was drawn before."""
        generator = np.random.default_rng([self.seed, index])
        batched = batch_axis(self.inputs).names
        return {info.name: _draw(info, generator, batched=info.name in batched) for info in self.inputs}


def open_random(inputs: Sequence[InputInfo], *, count: int | None, seed: int) -> RandomSource:
    """Make `count` random samples (None: 32), with 1 along a batch axis.

    Raises:
        DataError: another axis is dynamic, for which any size would be a guess.
    """
    batched = batch_axis(inputs).names
    for info in inputs:
        if None in info.shape[1 if info.name in batched else 0 :]:
            raise DataError(
                f"random data: input {info.name!r}: found shape {shape_text(info.shape)}, expected all axes but the batch to be fixed; "
                "give arrays of the right shape (.npy, .npz), or export the network with a fixed shape"
            )
    return RandomSource(tuple(inputs), DEFAULT_COUNT if count is None else count, seed)


def _draw(info: InputInfo, generator: np.random.Generator, *, batched: bool) -> Array:
    shape = tuple(1 if n is None or (batched and axis == 0) else n for axis, n in enumerate(info.shape))
    if is_float(info.dtype):
        return np.asarray(generator.standard_normal(shape)).astype(info.dtype)
    highest = 256 if info.dtype == np.uint8 else 2
    return np.asarray(generator.integers(0, highest, shape)).astype(info.dtype)
