"""What a target is: the formats it computes in, the rules by which its runtime fuses, and how to run the result there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Literal

from zeropoint.numerics.spec import Spec


class Role(Enum):
    """What an operator does with quantized inputs; operators outside a target's table stay in float."""

    WEIGHTED = "multiplies by weights: its inputs are quantized"
    WEIGHTED_TO_CODES = "multiplies by weights: its inputs are quantized, and its integer kernel needs a quantized output too"
    HELD_BACK = "could be quantized, but usually does not pay here: quantized only when asked for"
    JOINS = "computes in integers where all its inputs come from integer kernels, and writes codes"
    READS = "reads integers where its input comes from an integer kernel, and writes float"
    RESIDUAL = "adds a skip connection into a convolution's output: only the skip input is quantized"
    MOVES = "moves or selects values: its input and output share one scale"
    FUSES = "an activation that fuses into the operator before it: no pair stands between them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One runtime on one kind of machine, as data.

    activation: the spec of activations; `nonnegative_activation` replaces it for tensors that were never seen negative.
    weight: the spec of weights, whose granularity the operator decides (its output channels).
    codes_everywhere: every reader of a quantized tensor sees the codes, because a kernel writes either codes or floats;
        otherwise only the inputs that compute in integers do.
    min_channels: weighted operators with fewer input or output channels stay in float.
    depthwise_stem: whether a depthwise convolution before the first integer kernel is quantized.
    left_weights: whether MatMul has an integer kernel where its constant stands on the left.
    clips_anywhere: whether a Clip fuses whatever its bounds are; otherwise only where the lower one is 0, where rounding the zero point
        cannot move the range of the codes past it.
    machines: the values of platform.machine() on which a latency measured there speaks for the target; () for any.
    float_weights: what becomes of the weights that no integer kernel takes beside quantized activations: those with 4-bit codes, or with a
        scale for each block of input channels.
    lint: names of the rules in zeropoint.rules that a file for this target must keep.
    next_command: runs {model} on the target; {stem} is its path without suffix; both come quoted for a shell.
    """

    name: str
    runs_on: str
    activation: Spec
    nonnegative_activation: Spec
    weight: Spec
    bias: Literal["float", "int32"]
    min_opset: int
    max_opset: int
    operators: Mapping[str, Role]
    codes_everywhere: bool
    min_channels: int = 1
    depthwise_stem: bool = True
    left_weights: bool = True
    clips_anywhere: bool = True
    float_weights: str
    lint: tuple[str, ...]
    runtime: str
    machines: tuple[str, ...] = ()
    next_command: str
