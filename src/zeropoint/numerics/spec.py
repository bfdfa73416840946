"""How a tensor is to be quantized, before any number is known: format, granularity and symmetry."""

from __future__ import annotations

from dataclasses import dataclass, replace

from zeropoint.errors import RecipeError
from zeropoint.numerics.formats import Format


@dataclass(frozen=True, slots=True)
class PerTensor:
    """One scale for all elements: an input of shape (d0, ..., dn) has a scale of shape ()."""


@dataclass(frozen=True, slots=True)
class PerChannel:
    """One scale for each index of `axis`: an input of shape (d0, ..., dn) has a scale of shape (d[axis],)."""

    axis: int


@dataclass(frozen=True, slots=True)
class PerBlock:
    """One scale for each run of `size` elements along `axis`: the scale has the input's shape, but ceil(d[axis] / size) there."""

    axis: int
    size: int

    def __post_init__(self) -> None:
        if self.size < 1:
            raise RecipeError(f"block size: found {self.size}, expected 1 or more; 32 and 128 are usual")


Granularity = PerTensor | PerChannel | PerBlock
OPSETS: dict[type[Granularity], int] = {PerTensor: 10, PerChannel: 13, PerBlock: 21}  # the first that have it


@dataclass(frozen=True, slots=True)
class Spec:
    """The intent for one tensor: symmetric fixes the zero point to 0; narrow drops the lowest code, so that codes mirror around 0."""

    format: Format
    symmetric: bool
    granularity: Granularity = PerTensor()
    narrow: bool = False

    @property
    def qmin(self) -> int:
        """The smallest code that may be used."""
        return self.format.qmin + 1 if self.narrow and self.format.signed else self.format.qmin

    @property
    def qmax(self) -> int:
        """The largest code that may be used."""
        return self.format.qmax

    @property
    def opset(self) -> int:
        """The first opset whose DequantizeLinear reads such codes."""
        return max(self.format.opset, OPSETS[type(self.granularity)])

    def with_granularity(self, granularity: Granularity) -> Spec:
        """Return the same intent at another granularity."""
        return replace(self, granularity=granularity)
