"""Operators whose weights are codes that no integer kernel takes: they compute in float, and a user must know it."""

from __future__ import annotations

from zeropoint.graph.model import Model, Node, Value
from zeropoint.graph.operators import int_attribute, is_constant, is_default_domain
from zeropoint.notes import Note, counted
from zeropoint.rules.pairs import WEIGHTED
from zeropoint.targets import Target

INTEGER_KERNEL_BITS = 8


def float_operators(quantized: Model) -> dict[str, str]:
    """Return the operators that multiply by weights of fewer bits than an integer kernel takes or with a scale per block, and which."""
    found = {}
    for node in quantized.graph:
        if node.op_type in WEIGHTED and is_default_domain(node):
            kinds = [kind for value in node.inputs[:2] if (kind := _kind(value))]
            found.update({str(node.name): kind for kind in kinds})
    return found


def note_on_float_operators(operators: dict[str, str], target: Target) -> tuple[Note, ...]:
    """Return a warning with what becomes of them on the target; none where there are none."""
    if not operators:
        return ()
    kinds = " or ".join(dict.fromkeys(operators.values()))
    reason = f"{counted(len(operators), 'operator')} with weights of {kinds}, for which there is no integer kernel: {target.float_weights}"
    return (Note("weights", reason, kind="warning"),)


def _kind(value: Value | None) -> str:
    """Say what of a weight keeps it out of integer kernels, or ""."""
    pair = value.producer() if value is not None else None
    if pair is None or pair.op_type != "DequantizeLinear" or not _is_of_constant(pair):
        return ""
    codes = pair.inputs[0] if is_constant(pair.inputs[0]) else pair.inputs[2]
    dtype = codes.dtype if codes is not None else None
    narrow = [f"{dtype.bitwidth} bits"] if dtype is not None and dtype.bitwidth < INTEGER_KERNEL_BITS else []
    block = int_attribute(pair, "block_size", 0)
    return " and ".join([*narrow, *([f"a scale for each block of {block}"] if block else [])])


def _is_of_constant(pair: Node) -> bool:
    source = pair.inputs[0]
    quantize = source.producer() if source is not None else None
    return is_constant(source if quantize is None else quantize.inputs[0])
