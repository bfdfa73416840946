"""Quantization that is trained through: forward as it is deployed, bit for bit, backward by straight-through estimation.

The gradients are those of "Learned Step Size Quantization" (Esser et al., 2020) for the scale, and of "LSQ+" (Bhalgat et al., 2020) for
the zero point.
"""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from zeropoint.autograd.kernels import dispatch
from zeropoint.autograd.kernels.plain import Codes, Wanted
from zeropoint.errors import RecipeError
from zeropoint.numerics.affine import SMALLEST_SCALE, QParams, checked_axis
from zeropoint.numerics.spec import PerBlock, PerChannel, PerTensor, Spec

Tensor = Any  # of PyTorch, which has no types here
Learning = Literal["fixed", "scale", "scale and zero point"]
LEAST_SHARE = 2.0**-7  # of the scale that it begins with: where one goes to 0, runtimes have no code for the biases beside it


def fake_quantize(x: Tensor, scale: Tensor, zero_point: Tensor, *, qmin: int, qmax: int) -> Tensor:
    """Return `x` quantized and dequantized: (clip(round_half_even(x / scale) + zero_point, qmin, qmax) - zero_point) * scale.

    The arithmetic is float32, and the result has the dtype of `x`. NaN stays NaN, infinities saturate. Gradients: that of `x` passes
    where nothing was clipped. That of the scale is round(x / scale) - x / scale, or qmin - zero_point or qmax - zero_point where it was,
    and that of the zero point is -scale where it was and 0 elsewhere; both are summed over the elements of each scale, and multiplied
    by 1 / sqrt(elements of each scale * qmax), as LSQ says. They are the same, bit for bit, on every run.

    x: any float dtype and shape. scale, zero_point: float32, on the device of `x`, positive and rounded half to even here; they
    broadcast against `x`. With a float64 scale, the arithmetic is float64. qmin, qmax: the codes that may be used.

    Raises:
        RecipeError: scale or zero point does not broadcast against `x`, or is on another device.

    Example:
        >>> fake_quantize(torch.tensor([0.26, 9.0]), torch.tensor(0.5), torch.tensor(0.0), qmin=-8, qmax=7)
        tensor([0.5000, 3.5000])
    """
    _check("scale", scale, x)
    _check("zero point", zero_point, x)
    result: Tensor = _FakeQuantize.apply(x, scale, zero_point, Codes(qmin, qmax))
    return result


def _check(what: str, values: Tensor, x: Tensor) -> None:
    if values.device != x.device:
        raise RecipeError(f"{what}: found it on {values.device}, expected {x.device}, where the tensor is; move the module there")
    shape, ranks = tuple(x.shape), x.dim() - values.dim()
    if ranks < 0 or any(size not in (1, n) for size, n in zip(values.shape, shape[ranks:], strict=True)):
        raise RecipeError(f"{what}: found shape {tuple(values.shape)}, expected one that broadcasts against {shape}")


class _FakeQuantize(torch.autograd.Function):
    """The one operator: its passes are the kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, zero_point: Tensor, codes: Codes) -> Tensor:
        ctx.save_for_backward(x, scale, zero_point)
        ctx.codes = codes
        return dispatch.quantized(x, scale, zero_point, codes)

    @staticmethod
    @torch.autograd.function.once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, scale, zero_point = ctx.saved_tensors
        of_x, *learned = ctx.needs_input_grad[:3]
        factors = (_lsq_factor(x, one, ctx.codes) if learns else None for one, learns in zip((scale, zero_point), learned, strict=True))
        found = dispatch.gradients(grad, x, scale, zero_point, codes=ctx.codes, wanted=Wanted(of_x, *factors))
        return found.x, found.scale, found.zero_point, None


def _lsq_factor(x: Tensor, parameter: Tensor, codes: Codes) -> float:
    """Return what keeps the update of a scale, relative to its size, at the order of that of the weights (section 2.2 of LSQ)."""
    elements = x.numel() / max(1, parameter.numel())
    return 1.0 / sqrt(max(1.0, elements) * max(1, abs(codes.qmax)))


class _StraightThrough(torch.autograd.Function):
    """Forward a function, backward nothing but the gradient: a parameter that left its domain finds back."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
        return function(values)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return grad, None


class FakeQuantize(nn.Module):
    """A tensor's quantization in a network that trains, at the numbers that would be deployed at this moment.

    qparams: the numbers to begin with. spec: what they are for. shape_rank: how many axes the tensor has, which only granularities other
    than per tensor need. learning: which of the numbers are parameters; the zero point of a symmetric spec never is. They stay float32
    when the module is moved to another dtype. No scale falls below a 128th of what it begins with, whatever a step makes of it.

    Raises:
        RecipeError: the numbers do not fit the spec, or the tensor has no such axis.

    Example:
        >>> from zeropoint.numerics.formats import FORMATS
        >>> spec = Spec(FORMATS["int8"], symmetric=True)
        >>> step = QParams(np.array(0.5, np.float32), np.array(0, np.int8), spec.format)
        >>> FakeQuantize(step, spec, 1, learning="scale")
        FakeQuantize(int8 per tensor, learning scale)
    """

    def __init__(self, qparams: QParams, spec: Spec, shape_rank: int, *, learning: Learning) -> None:
        super().__init__()
        found, expected = (qparams.format, qparams.granularity), (spec.format, spec.granularity)
        if found != expected:
            raise RecipeError(f"scale and zero point: found those of {found}, expected {expected}, which the spec says")
        self.spec, self.learning = spec, learning
        self.narrow = qparams.narrow or spec.narrow
        self._shape = qparams.scale.shape
        shape = _broadcast_shape(qparams, shape_rank)
        # A copy: the parameter must not write into the plan's own array.
        scale = torch.from_numpy(qparams.scale.reshape(shape).copy())
        self._keep("scale", scale, learns=learning != "fixed")
        self.register_buffer("least", (scale * LEAST_SHARE).clamp(min=float(SMALLEST_SCALE)))
        zero_point = torch.from_numpy(np.array(qparams.zero_point, np.float32).reshape(shape))
        self._keep("zero_point", zero_point, learns=learning == "scale and zero point" and not spec.symmetric)
        self.register_load_state_dict_post_hook(_settle)

    def forward(self, x: Tensor) -> Tensor:
        """Return `x`, of any float dtype, quantized and dequantized."""
        scale, zero_point = self.numbers()
        granularity, codes = self.spec.granularity, self.codes
        if isinstance(granularity, PerBlock):
            return _by_block(x, scale, zero_point, axis=checked_axis(granularity.axis, tuple(x.shape)), size=granularity.size, codes=codes)
        return fake_quantize(x, scale, zero_point, qmin=codes.qmin, qmax=codes.qmax)

    @property
    def codes(self) -> Codes:
        """The codes that may be used."""
        lowest = self.spec.format.qmin + int(self.narrow and self.spec.format.signed)
        return Codes(lowest, self.spec.format.qmax)

    def numbers(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point as `forward` uses them, float32: positive, and whole and within the codes; gradients flow through."""
        learned = isinstance(self.scale, nn.Parameter), isinstance(self.zero_point, nn.Parameter)
        scale = _StraightThrough.apply(self.scale, self._positive) if learned[0] else self.scale
        return scale, _StraightThrough.apply(self.zero_point, self._whole) if learned[1] else self.zero_point

    def qparams(self) -> QParams:
        """Return what is to be deployed now: the very numbers that `forward` uses.

        Raises:
            RecipeError: training has led the scale to infinity or NaN.
        """
        with torch.no_grad():
            scale, zero_point = (values.detach().cpu().numpy().reshape(self._shape) for values in self.numbers())
        if np.isnan(zero_point).any():
            raise RecipeError("zero point: found NaN, expected numbers; training diverged: lower the learning rate")
        code = self.spec.format
        return QParams(scale.copy(), np.asarray(zero_point.astype(code.dtype)), code, self.spec.granularity, self.narrow)

    def get_extra_state(self) -> Tensor:
        """Return the lowest and the highest code, which stand beside the numbers in a state dict; a tensor, as all else there."""
        return torch.tensor([self.codes.qmin, self.codes.qmax])

    def set_extra_state(self, state: Tensor) -> None:
        """Refuse numbers that are for other codes.

        Raises:
            RecipeError: they are.
        """
        lowest, highest = (int(code) for code in state)
        if (lowest, highest) != (self.codes.qmin, self.codes.qmax):
            raise RecipeError(
                f"state dict: found numbers for codes from {lowest} to {highest}, expected {self.codes.qmin} to {self.codes.qmax}; prepare "
                "with the plan, or the target and the recipe, that it was saved with"
            )

    def extra_repr(self) -> str:
        """Tell format, granularity and what learns."""
        match self.spec.granularity:
            case PerTensor():
                where = "per tensor"
            case PerChannel(axis):
                where = f"per channel of axis {axis}"
            case PerBlock(axis, size):
                where = f"per block of {size} along axis {axis}"
        return f"{self.spec.format.name}{' narrow' if self.narrow else ''} {where}, learning {self.learning}"

    def _keep(self, name: str, values: Tensor, *, learns: bool) -> None:
        if learns:
            self.register_parameter(name, nn.Parameter(values))
        else:
            self.register_buffer(name, values)

    def _positive(self, scale: Tensor) -> Tensor:
        return torch.maximum(scale, self.least)

    def _whole(self, zero_point: Tensor) -> Tensor:
        return zero_point.round().clamp(self.codes.qmin, self.codes.qmax)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> FakeQuantize:
        """Move as PyTorch does, but for the dtype: what half of the bits are left of is no scale that was deployed."""

        def moved(values: Tensor) -> Tensor:
            there = fn(values)
            return there if there.dtype == values.dtype else values.to(there.device)

        result: FakeQuantize = super()._apply(moved, recurse)
        return result


def _settle(module: FakeQuantize, _: object) -> None:
    """Let what is fixed be what is deployed: it may come from a module in which it learned."""
    with torch.no_grad():
        for name, constrained in (("scale", module._positive), ("zero_point", module._whole)):
            if not isinstance(getattr(module, name), nn.Parameter):
                setattr(module, name, constrained(getattr(module, name)))


def _broadcast_shape(qparams: QParams, rank: int) -> tuple[int, ...]:
    shape = qparams.scale.shape
    match qparams.granularity:
        case PerTensor():
            return ()
        case PerChannel(axis):
            place = checked_axis(axis, (1,) * rank)
            return tuple(shape[0] if i == place else 1 for i in range(rank))
        case PerBlock(axis, _):
            if len(shape) != rank:
                raise RecipeError(f"scale: found shape {shape} for a tensor of {rank} axes, expected as many ({qparams.granularity})")
            place = checked_axis(axis, shape)
            return (*shape[: place + 1], 1, *shape[place + 1 :])


def _by_block(x: Tensor, scale: Tensor, zero_point: Tensor, *, axis: int, size: int, codes: Codes) -> Tensor:
    """Split `axis` into blocks, the last of which is filled up with zeros, whose gradients go nowhere."""
    length = x.shape[axis]
    missing = -length % size
    if missing:
        x = torch.cat([x, x.new_zeros((*x.shape[:axis], missing, *x.shape[axis + 1 :]))], axis)
    split = x.unflatten(axis, (-1, size))
    return fake_quantize(split, scale, zero_point, qmin=codes.qmin, qmax=codes.qmax).flatten(axis, axis + 1).narrow(axis, 0, length)
