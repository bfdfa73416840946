"""Resize: nearest, linear and cubic, as one of torch's functions where it means the same and axis by axis where not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import ceil, floor

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from zeropoint.autograd.operators.tensors import Operator, ints

FUSED = {
    "linear": {3: "linear", 4: "bilinear", 5: "trilinear"},
    "cubic": {4: "bicubic"},
    "nearest": {3: "nearest", 4: "nearest", 5: "nearest"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Interpolation:
    """What Resize's attributes say of every axis."""

    mode: str
    transform: str
    nearest: str
    cubic_a: float
    exclude_outside: bool
    extrapolation: float


@dataclass(frozen=True, slots=True)
class Axis:
    """An axis to resize: its length, its new length, the scale between them, and the part of it that is kept (tf_crop_and_resize)."""

    size: int
    resized: int
    scale: float
    start: float = 0.0
    end: float = 1.0


def resize(
    x: Tensor,
    roi: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
    *,
    antialias: int = 0,
    axes: Sequence[int] | None = None,
    coordinate_transformation_mode: str = "half_pixel",
    cubic_coeff_a: float = -0.75,
    exclude_outside: int = 0,
    extrapolation_value: float = 0.0,
    keep_aspect_ratio_policy: str = "stretch",
    mode: str = "nearest",
    nearest_mode: str = "round_prefer_floor",
) -> Tensor:
    """Resize the axes by scales or to sizes."""
    over = [axis % x.ndim for axis in (range(x.ndim) if axes is None else axes)]
    lengths = [x.shape[axis] for axis in over]
    if scales is not None and scales.numel():
        factors = [float(scale) for scale in scales.tolist()]
        targets = [floor(size * factor) for size, factor in zip(lengths, factors, strict=True)]
    else:
        targets, factors = _by_sizes(lengths, ints(sizes) if sizes is not None else lengths, keep_aspect_ratio_policy)
    interpolation = Interpolation(
        mode=mode,
        transform=coordinate_transformation_mode,
        nearest=nearest_mode,
        cubic_a=cubic_coeff_a,
        exclude_outside=bool(exclude_outside),
        extrapolation=extrapolation_value,
    )
    crops = [(0.0, 1.0)] * len(over)
    if interpolation.transform == "tf_crop_and_resize" and roi is not None:
        ends = [float(end) for end in roi.tolist()]
        crops = [*zip(ends[: len(over)], ends[len(over) :], strict=True)]
    plan = {
        axis: Axis(size, target, factor, *crop)
        for axis, size, target, factor, crop in zip(over, lengths, targets, factors, crops, strict=True)
        if target != size or factor != 1 or crop != (0.0, 1.0)
    }
    return _resized(x, plan, interpolation)


def _by_sizes(lengths: Sequence[int], sizes: Sequence[int], policy: str) -> tuple[list[int], list[float]]:
    factors = [target / size for target, size in zip(sizes, lengths, strict=True)]
    if policy == "stretch":
        return list(sizes), factors
    factor = min(factors) if policy == "not_larger" else max(factors)
    return [floor(size * factor + 0.5) for size in lengths], [factor] * len(lengths)


def _resized(x: Tensor, plan: Mapping[int, Axis], how: Interpolation) -> Tensor:
    fused = _fused_mode(x, plan, how)
    if fused is not None:
        whole = {axis: Axis(x.shape[axis], x.shape[axis], 1.0) for axis in range(2, x.ndim)} | dict(plan)
        spatial = [whole[axis] for axis in range(2, x.ndim)]
        corners = None if fused == "nearest" else how.transform == "align_corners"
        if corners or fused == "nearest" or all(axis.scale == axis.resized / axis.size for axis in spatial):
            return F.interpolate(x, size=[axis.resized for axis in spatial], mode=fused, align_corners=corners)
        # What rounds to the same length may still be another scale.
        return F.interpolate(x, scale_factor=[axis.scale for axis in spatial], mode=fused, align_corners=corners)
    for place, axis in plan.items():
        indices, weights, outside = _taps(axis, how, x.device)
        shape = [-1 if other == place else 1 for other in range(x.ndim)]
        if how.mode == "nearest":
            x = x.index_select(place, indices[0])
        else:
            taps = zip(indices, weights, strict=True)
            x = torch.stack([x.index_select(place, index) * w.to(x.dtype).reshape(shape) for index, w in taps]).sum(0)
        if how.transform == "tf_crop_and_resize":
            x = torch.where(outside.reshape(shape), torch.full_like(x[:0].sum(), how.extrapolation), x)
    return x


def _fused_mode(x: Tensor, plan: Mapping[int, Axis], how: Interpolation) -> str | None:
    """Return torch's mode that computes the same; None where there is none."""
    fused = FUSED[how.mode].get(x.ndim)
    if fused is None or not x.is_floating_point() or not plan or min(plan) < 2 or how.transform == "tf_crop_and_resize":
        return None
    if how.mode == "nearest":
        whole = all(axis.resized % axis.size == 0 and axis.scale == axis.resized // axis.size for axis in plan.values())
        return fused if whole and all(_repeats(axis, how) for axis in plan.values()) else None
    places = {"half_pixel", "pytorch_half_pixel", "align_corners"}
    if how.transform not in places or how.exclude_outside or any(axis.resized == 1 for axis in plan.values()):
        return None
    return fused if how.mode == "linear" or how.cubic_a == -0.75 else None


@lru_cache(maxsize=256)
def _repeats(axis: Axis, how: Interpolation) -> bool:
    """Whether nearest repeats each element a whole number of times, as torch's does."""
    times = axis.resized // axis.size
    return [round_nearest(place(axis, how.transform, i), how.nearest, axis.size) for i in range(axis.resized)] == [
        i // times for i in range(axis.resized)
    ]


def place(axis: Axis, transform: str, index: int) -> float:
    """Return where element `index` of the resized axis lies along the axis, in elements.

    Computed in float32, as runtimes do: a place that falls on an element, or between two, rounds as it does there.
    """
    i, scale, one, half = np.float32(index), np.float32(axis.scale), np.float32(1), np.float32(0.5)
    last, steps = np.float32(axis.size - 1), np.float32(axis.resized - 1)
    start, end = np.float32(axis.start), np.float32(axis.end)
    match transform:
        case "asymmetric":
            x = i / scale
        case "align_corners":
            x = i * last / steps if axis.resized > 1 else i
        case "tf_crop_and_resize":
            x = start * last + i * ((end - start) * last / steps) if axis.resized > 1 else half * (start + end) * last
        case "pytorch_half_pixel" if axis.resized == 1:
            x = i
        case "half_pixel_symmetric":
            # Centred: what rounding the length cut off is taken from both ends alike.
            cut = one - np.float32(axis.resized) / (scale * np.float32(axis.size))
            x = np.float32(axis.size) * half * cut + (i + half) / scale - half
        case _:
            x = (i + half) / scale - half
    return float(x)


def round_nearest(x: float, rule: str, size: int) -> int:
    """Return the element that stands for place x."""
    rounded = {"round_prefer_floor": ceil(x - 0.5), "round_prefer_ceil": floor(x + 0.5), "floor": floor(x), "ceil": ceil(x)}[rule]
    return min(max(rounded, 0), size - 1)


@lru_cache(maxsize=256)
def _taps(axis: Axis, how: Interpolation, device: torch.device) -> tuple[Tensor, ...]:
    """Return which elements make each resized one (taps, resized), with what weights, and which lie outside the axis."""
    places = [place(axis, how.transform, i) for i in range(axis.resized)]
    rows = [_nearest(x, axis, how) if how.mode == "nearest" else _neighbours(x, axis, how) for x in places]
    outside = [not 0 <= x <= axis.size - 1 for x in places]
    # Kept for later calls, which may record gradients although this one does not.
    with torch.inference_mode(False):
        indices = torch.tensor([[index for index, _ in row] for row in rows], dtype=torch.int64).reshape(len(rows), -1).t().contiguous()
        weights = torch.tensor([[weight for _, weight in row] for row in rows], dtype=torch.float64).reshape(len(rows), -1).t().contiguous()
        return tuple(kept.to(device, non_blocking=True) for kept in (indices, weights, torch.tensor(outside)))


def _nearest(x: float, axis: Axis, how: Interpolation) -> list[tuple[int, float]]:
    return [(round_nearest(x, how.nearest, axis.size), 1.0)]


def _neighbours(x: float, axis: Axis, how: Interpolation) -> list[tuple[int, float]]:
    """Return the elements around x with their weights; beyond the ends stands the last element, or nothing with exclude_outside."""
    left = floor(x)
    t = x - left
    weights = [1 - t, t] if how.mode == "linear" else _cubic(t, how.cubic_a)
    first = left if how.mode == "linear" else left - 1
    if how.exclude_outside:
        weights = [w if 0 <= first + i < axis.size else 0.0 for i, w in enumerate(weights)]
        weights = [w / sum(weights) for w in weights]
    return [(min(max(first + i, 0), axis.size - 1), w) for i, w in enumerate(weights)]


def _cubic(t: float, a: float) -> list[float]:
    def near(d: float) -> float:
        return ((a + 2) * d - (a + 3)) * d * d + 1

    def far(d: float) -> float:
        return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a

    return [far(1 + t), near(t), near(1 - t), far(2 - t)]


RESIZING: Mapping[str, Operator] = {"Resize": resize}
