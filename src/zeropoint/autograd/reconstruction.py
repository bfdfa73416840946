"""Choose the codes of weights so that each block of a network gives what it gives in float, by gradients through all of the block.

A weight's code is the one that it has or its neighbour on the float weight's other side, chosen by a variable of its own, as in "Up or
Down? Adaptive Rounding for Post-Training Quantization" (Nagel et al., 2020); what is compared is the output of a block of layers, as in
"BRECQ" (Li et al., 2021), fed with what the quantized blocks before it give. Codes that bring no block closer are not taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import cos, pi
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from zeropoint.autograd.devices import full_precision
from zeropoint.autograd.lift import Lifted, fixed_quantizer, lift
from zeropoint.graph.blocks import block_ends
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.model import Model
from zeropoint.graph.settle import settle
from zeropoint.numerics.affine import expand, quantize_array
from zeropoint.plan import Entry, Plan

Tensor = Any  # of PyTorch, which has no types here
Array32 = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
STRETCH = 0.1  # of the sigmoid, beyond 0 and 1 on each side, so that it reaches them
TRUST = 0.5  # in the codes that are known: how far the choice begins from the float weight towards them
LEARNING_RATE = 0.02
SHARPEST, SOFTEST = 2.0, 20.0  # exponents of the penalty of what is neither up nor down
FREE_SHARE = 0.2  # of the iterations, in which that costs nothing yet
SMALLEST = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Budget:
    """How many batches each block is fitted on, and the seed of their order."""

    iterations: int
    seed: int


@dataclass(frozen=True, slots=True)
class Schedule:
    """How a block is fitted. worth: of the penalty, as much as the error that the known codes make, as a share of the output's power."""

    iterations: int
    worth: float

    def sharpness(self, iteration: int) -> float | None:
        """Return the exponent of the penalty; None while there is none."""
        free = int(FREE_SHARE * self.iterations)
        if iteration < free:
            return None
        left = 0.5 * (1.0 + cos(pi * (iteration - free) / (self.iterations - free)))
        return SHARPEST + (SOFTEST - SHARPEST) * left


class SoftRounding(nn.Module):
    """A weight between two neighbouring codes, each element by itself; `is_hard` makes it one of them."""

    def __init__(self, weight: Array32, known: Integers, entry: Entry) -> None:
        super().__init__()
        qparams, shape = entry.qparams(), weight.shape
        scale = np.broadcast_to(expand(qparams.scale, shape, qparams.granularity), shape)
        place = weight.astype(np.float64) / scale  # of a weight, whose zero point is 0
        lower = np.clip(np.where(place >= known, known, known - 1), entry.spec.qmin, entry.spec.qmax - 1)
        share = np.clip((1.0 - TRUST) * (place - lower) + TRUST * (known - lower), 0.01, 0.99)
        stretched = (share + STRETCH) / (1.0 + 2.0 * STRETCH)
        self.lower = nn.Buffer(torch.from_numpy(lower.astype(np.float32)))
        self.is_up = nn.Buffer(torch.from_numpy(known > lower))
        self.scale = nn.Buffer(torch.from_numpy(scale.copy()))
        self.deployed_scale = nn.Buffer(torch.from_numpy(qparams.scale.copy()))
        self.logit = nn.Parameter(torch.from_numpy(np.log(stretched / (1.0 - stretched)).astype(np.float32)))
        self.is_hard = False

    def forward(self, weight: Tensor) -> Tensor:
        """Return what the codes stand for, whatever the weight is."""
        return (self.lower + self.share()) * self.scale

    def share(self) -> Tensor:
        """Return how far up each element is, from 0 to 1."""
        soft = (torch.sigmoid(self.logit) * (1.0 + 2.0 * STRETCH) - STRETCH).clamp(0.0, 1.0)
        return soft.round() if self.is_hard else soft

    def penalty(self, sharpness: float) -> Tensor:
        """Return the number of elements that are halfway, in which those count less that are nearer to a code."""
        return (1.0 - (2.0 * self.share() - 1.0).abs().pow(sharpness)).sum()

    def settle(self, *, known: bool) -> None:
        """Take the codes that are chosen, or go back to those that were `known`."""
        with torch.no_grad():
            self.is_hard = True
            self.logit.copy_(((self.is_up if known else self.share()).float() - 0.5) * 100.0)

    def numbers(self) -> tuple[Tensor, Tensor]:
        """Return scale and zero point, as FakeQuantize does."""
        return self.deployed_scale, torch.zeros_like(self.deployed_scale)

    def codes(self) -> Integers:
        """Return the codes that are chosen."""
        with torch.no_grad():
            found: Integers = (self.lower + self.share().round()).cpu().numpy().astype(np.int64)
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """A part of a network: its steps, the tensors of floats that leave it, and the weights in it that are chosen.

    powers: the mean square of what leaves it, in the float network.
    """

    module: Lifted
    steps: slice
    ends: tuple[str, ...]
    weights: tuple[SoftRounding, ...]
    powers: tuple[float, ...]

    def error(self, tensors: Mapping[str, Tensor], targets: Sequence[Tensor]) -> Tensor:
        """Return the mean squared error of what leaves the block, as a share of its power; the mean over all that does."""
        made = self.module.advanced(tensors, self.steps)
        shares = [(made[end] - target).square().mean() / power for end, target, power in zip(self.ends, targets, self.powers, strict=True)]
        return torch.stack(shares).mean()

    def whole_error(self, inputs: Sequence[Mapping[str, Tensor]], targets: Sequence[Sequence[Tensor]]) -> float:
        with torch.no_grad():
            return sum(float(self.error(tensors, target)) for tensors, target in zip(inputs, targets, strict=True)) / len(inputs)


def reconstruct(
    network: Model,
    plan: Plan,
    feeds: Sequence[Mapping[str, npt.NDArray[Any]]],
    *,
    budget: Budget,
    device: str = "cpu",
    tick: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Integers]:
    """Return codes for the weights of 4 bits of the float `network` under `plan`, by name of the weight.

    plan: without scalings, which the network has. feeds: samples or batches to fit to.

    Raises:
        ModelError: an operator has no differentiable translation.
    """
    settled, pairs = settle(network, plan)
    originals = {pair.tensor: entry.tensor for pair, entry in zip(pairs.entries, plan.entries, strict=True)}  # of weights that it copied
    modules: dict[str, SoftRounding] = {}

    def quantizer(entry: Entry, rank: int) -> Any:
        if entry.role != "weight" or entry.spec.format.bits > 4:
            return fixed_quantizer(entry, rank)
        known = quantize_array(constant_array(settled.graph.initializers[entry.tensor]), entry.qparams()).astype(np.int64)
        weight = constant_array(network.graph.initializers[originals[entry.tensor]])
        modules[entry.tensor] = SoftRounding(weight, known, entry)
        return modules[entry.tensor]

    student = lift(settled, pairs, trainable=(), quantizer=quantizer, device=device)
    teacher = lift(network, trainable=(), device=device)
    ends = (*block_ends(settled), student.outputs[0])
    mine = [{name: torch.from_numpy(np.array(feed[name])).to(device) for name in student.inputs} for feed in feeds]
    theirs: Sequence[Mapping[str, Tensor]] = mine
    order = np.random.default_rng(budget.seed)
    with full_precision():
        for number, (steps, float_steps) in enumerate(zip(_parts(student, ends), _parts(teacher, ends), strict=True)):
            with torch.no_grad():
                theirs = [teacher.advanced(tensors, float_steps) for tensors in theirs]
            read = {name for step in student.steps[steps] for name in step.inputs}
            leaving = [name for name in _leaving(student, steps, ends[number]) if theirs[0][name].is_floating_point()]
            targets = [[tensors[name] for name in leaving] for tensors in theirs]
            block = _Block(
                student,
                steps,
                tuple(leaving),
                tuple(module for tensor, module in modules.items() if tensor in read),
                tuple(_power(column) for column in zip(*targets, strict=True)),
            )
            _choose(block, mine, targets, iterations=budget.iterations, order=order)
            with torch.no_grad():
                mine = [student.advanced(tensors, steps) for tensors in mine]
            tick(number + 1, len(ends))
    return {originals[tensor]: module.codes() for tensor, module in modules.items()}


def _parts(module: Lifted, ends: Sequence[str]) -> Iterator[slice]:
    """Yield the steps of each block; the last goes to the end of the network."""
    first = 0
    for end in ends[:-1]:
        last = next(number for number, step in enumerate(module.steps) if end in step.outputs) + 1
        yield slice(first, last)
        first = last
    yield slice(first, len(module.steps))


def _power(targets: Sequence[Tensor]) -> float:
    return max(sum(float(target.square().mean()) for target in targets) / len(targets), SMALLEST)


def _leaving(module: Lifted, steps: slice, end: str) -> list[str]:
    """Return what a block is compared by: its end, and the network's outputs that are made in it."""
    made = [name for step in module.steps[steps] for name in step.outputs]
    return [name for name in made if name == end or name in module.outputs]


def _choose(
    block: _Block,
    inputs: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Sequence[Tensor]],
    *,
    iterations: int,
    order: np.random.Generator,
) -> None:
    began = [module.logit.detach().clone() for module in block.weights]
    for module in block.weights:
        module.settle(known=True)
    if not block.ends or not block.error(inputs[0], targets[0]).requires_grad:
        return
    before = block.whole_error(inputs, targets)
    with torch.no_grad():
        for module, logit in zip(block.weights, began, strict=True):
            module.logit.copy_(logit)
            module.is_hard = False
    _fit(block, inputs, targets, Schedule(iterations, before), order)
    for module in block.weights:
        module.settle(known=False)
    if not block.whole_error(inputs, targets) < before:
        for module in block.weights:
            module.settle(known=True)


def _fit(
    block: _Block,
    inputs: Sequence[Mapping[str, Tensor]],
    targets: Sequence[Sequence[Tensor]],
    schedule: Schedule,
    order: np.random.Generator,
) -> None:
    optimizer = torch.optim.Adam([module.logit for module in block.weights], lr=LEARNING_RATE)
    elements = sum(module.logit.numel() for module in block.weights)
    queue = list[int]()
    for iteration in range(schedule.iterations):
        queue = queue or order.permutation(len(inputs)).tolist()
        chosen = queue.pop()
        loss = block.error(inputs[chosen], targets[chosen])
        sharpness = schedule.sharpness(iteration)
        if sharpness is not None:
            loss = loss + schedule.worth / elements * sum(module.penalty(sharpness) for module in block.weights)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
