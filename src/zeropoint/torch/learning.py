"""The optimizer of fine-tuning: AdamW, for which each weight is measured in units of its own size.

Batch normalization is folded into the weights that are trained, so that one layer's filters differ in size by a factor of 100 and
more. A step of one length would change some by nothing and others by half. AdamW makes the length of a step independent of the
gradient's, and the unit makes it a share of the weight: what one learning rate means is the same for all of a network, and for others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from zeropoint.errors import ModelError
from zeropoint.torch.training_options import Options

Tensor = Any  # of PyTorch, which has no types here
MATRIX = 2
OF_ZEROS = 2.0**-5  # the unit of a tensor of zeros: about the size of weights before training
SMALLEST_SHARE = 2.0**-10  # of a channel's unit, in that of its tensor: a dead channel moves too
EPSILON = 1e-15  # of AdamW: near the float network, gradients of its divergence are far below the usual 1e-8
CODES = 8.0  # the unit of a zero point
LEAST_SCALE = 2.0**-6  # in units of where it began: a scale stays above 0


@dataclass(frozen=True, slots=True, eq=False)
class Learner:
    """What learns: `parameters` of the module, and `masters`, the same in units, which the optimizer moves.

    Units are powers of two, so that parameter = master * unit is exact. positive: the masters of scales. rates: by group of the optimizer.
    """

    parameters: tuple[Tensor, ...]
    masters: tuple[Tensor, ...]
    units: tuple[Tensor, ...]
    positive: tuple[Tensor, ...]
    optimizer: Any
    rates: tuple[float, ...]

    def take_gradients(self) -> None:
        """Give the parameters' gradients to the masters, as they are: AdamW takes nothing from their size."""
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            master.grad, parameter.grad = parameter.grad, None

    def norm(self) -> Tensor:
        """Return the norm of all gradients together."""
        return nn.utils.get_total_norm([master.grad for master in self.masters if master.grad is not None])

    def clip(self, norm: Tensor, largest: float) -> None:
        """Shorten the gradients, whose norm is `norm`, to the largest."""
        nn.utils.clip_grads_with_norm_(self.masters, largest, norm)

    def set_share(self, share: float) -> None:
        """Set the learning rates to a share of their largest."""
        for group, rate in zip(self.optimizer.param_groups, self.rates, strict=True):
            group["lr"] = rate * share

    @torch.no_grad()  # type: ignore[untyped-decorator]
    def write_back(self) -> None:
        """Set the parameters to what the masters are."""
        if self.positive:
            torch._foreach_clamp_min_(list(self.positive), LEAST_SCALE)
        torch._foreach_copy_(list(self.parameters), torch._foreach_mul(list(self.masters), list(self.units)))

    def forget_gradients(self) -> None:
        """Drop all gradients."""
        for tensor in (*self.masters, *self.parameters):
            tensor.grad = None


def learner(module: nn.Module, options: Options) -> Learner:
    """Make the optimizer for the module's weights and scales.

    Raises:
        ModelError: nothing in the module learns.
    """
    weights, numbers = _unique(module.weight_parameters()), _unique(module.scale_parameters())
    zero_points = {id(tensor) for name, tensor in module.named_parameters() if name.rpartition(".")[2] == "zero_point"}
    rates = (options.learning_rate, options.learning_rate, options.scale_learning_rate)
    groups = ([w for w in weights if is_decayed(w)], [w for w in weights if not is_decayed(w)], numbers)
    units = (*map(weight_unit, (*groups[0], *groups[1])), *(number_unit(n, is_code=id(n) in zero_points) for n in numbers))
    parameters = (*groups[0], *groups[1], *numbers)
    if not parameters:
        raise ModelError("prepared: found no weight or scale that requires a gradient, expected one at least; was it frozen?")
    masters = tuple((p.detach() / unit).requires_grad_() for p, unit in zip(parameters, units, strict=True))
    positive = [m for p, m in zip(parameters, masters, strict=True) if any(p is n for n in numbers) and id(p) not in zero_points]
    rest = iter(masters)
    decays = (options.weight_decay, 0.0, 0.0)
    made = [{"params": [next(rest) for _ in group], "weight_decay": decay} for group, decay in zip(groups, decays, strict=True)]
    full = [(group, rate) for group, rate in zip(made, rates, strict=True) if group["params"]]
    optimizer = torch.optim.AdamW([group for group, _ in full], lr=options.learning_rate, eps=EPSILON)
    return Learner(parameters, masters, units, tuple(positive), optimizer, tuple(rate for _, rate in full))


def is_decayed(weight: Tensor) -> bool:
    """Say whether weight decay holds for a weight: it has more than one axis of any length, which biases and norms do not."""
    return sum(int(size) > 1 for size in weight.shape) >= MATRIX


@torch.no_grad()  # type: ignore[untyped-decorator]
def weight_unit(weight: Tensor) -> Tensor:
    """Return the unit of each element: the power of two below the root mean square of what is around it, broadcast to the shape.

    Around it is all of a tensor with one axis. Of others, it is the square's rank-one estimate from the means over the first two axes
    (Shazeer and Stern, "Adafactor", 2018), which are those of input and output channels, in whichever order.
    """
    squares = weight.detach().float().square()
    whole = squares.mean()
    if not bool(whole > 0):
        return torch.full((), OF_ZEROS, device=weight.device)
    if weight.dim() < MATRIX:
        return _power_of_two(whole.sqrt())
    means = [squares.mean([other for other in range(weight.dim()) if other != axis], keepdim=True) for axis in (0, 1)]
    around = means[0] * means[1] / whole
    return _power_of_two(around.sqrt().clamp_min(float(whole.sqrt()) * SMALLEST_SHARE))


@torch.no_grad()  # type: ignore[untyped-decorator]
def number_unit(number: Tensor, *, is_code: bool) -> Tensor:
    """Return the unit of a scale, the power of two below it, or that of a zero point, a number of codes."""
    if is_code:
        return torch.full((), CODES, device=number.device)
    sizes = number.detach().abs()
    return _power_of_two(torch.where(sizes > 0, sizes, torch.ones_like(sizes)))


def _power_of_two(sizes: Tensor) -> Tensor:
    return torch.exp2(sizes.log2().floor())


def _unique(parameters: Sequence[Tensor]) -> list[Tensor]:
    return [p for p in {id(p): p for p in parameters}.values() if p.requires_grad]
