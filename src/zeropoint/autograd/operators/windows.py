"""Where the windows of convolutions and pools lie: ONNX's kernel, strides, dilations, pads and auto_pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Windows:
    """Windows that slide over the spatial axes of a tensor; every field has an entry per axis.

    pads: elements added (begin, end). symmetric: what is added on both sides alike; None where the sides differ or one is negative.
    exact: pads with which the windows just fit, more than `pads` where rounding up adds a window.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[tuple[int, int], ...]
    symmetric: tuple[int, ...] | None
    exact: tuple[tuple[int, int], ...]

    @property
    def fit_torch(self) -> bool:
        """Whether a pool of torch's takes the pads: the same on both sides, and at most half a kernel."""
        return self.symmetric is not None and all(2 * pad <= k for pad, k in zip(self.symmetric, self.kernel, strict=True))


def windows_over(
    shape: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] | None,
    dilations: Sequence[int] | None,
    pads: Sequence[int] | None,
    auto_pad: str,
    ceil_mode: int = 0,
) -> Windows:
    """Return the windows over spatial axes of `shape`; None is absent, and means 1 for strides and dilations and 0 for pads."""
    rank = len(shape)
    own_pads = tuple(pads) if pads and auto_pad == "NOTSET" else (0,) * (2 * rank)
    steps = tuple(strides or (1,) * rank), tuple(dilations or (1,) * rank)
    return _windows_over(tuple(shape), tuple(kernel), steps, own_pads, auto_pad, ceil_mode)


# The same few shapes come back in every batch.
@lru_cache(maxsize=4096)
def _windows_over(
    shape: tuple[int, ...],
    kernel: tuple[int, ...],
    steps: tuple[tuple[int, ...], tuple[int, ...]],
    own_pads: tuple[int, ...],
    auto_pad: str,
    ceil_mode: int,
) -> Windows:
    strides, dilations = steps
    rank = len(shape)
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    if auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        pads = tuple(_same_pads(*axis, auto_pad) for axis in zip(shape, reach, strides, strict=True))
    else:
        pads = tuple(zip(own_pads[:rank], own_pads[rank:], strict=True))
    counts = [_count(*axis, ceil_mode) for axis in zip(shape, reach, strides, pads, strict=True)]
    needed = [(n - 1) * s + r - size - begin for n, s, r, size, (begin, _) in zip(counts, strides, reach, shape, pads, strict=True)]
    return Windows(
        kernel=kernel,
        strides=strides,
        dilations=dilations,
        pads=pads,
        symmetric=tuple(begin for begin, _ in pads) if all(begin == end >= 0 for begin, end in pads) else None,
        exact=tuple((begin, max(end, more)) for (begin, end), more in zip(pads, needed, strict=True)),
    )


def _same_pads(size: int, reach: int, stride: int, auto_pad: str) -> tuple[int, int]:
    total = max((-(-size // stride) - 1) * stride + reach - size, 0)
    half = total // 2
    return (half, total - half) if auto_pad == "SAME_UPPER" else (total - half, half)


def _count(size: int, reach: int, stride: int, pads: tuple[int, int], ceil_mode: int) -> int:
    begin, end = pads
    room = size + begin + end - reach
    if not ceil_mode:
        return room // stride + 1
    count = -(-room // stride) + 1
    # A window that would begin in the padding behind the data sees none of it.
    return count - 1 if (count - 1) * stride >= size + begin else count
