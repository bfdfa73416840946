"""What is in a network, float or quantized: inputs, outputs, weights, operators, work and bytes, and what a target would quantize."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from zeropoint.data import Feed, InputInfo
from zeropoint.errors import ModelError, RecipeError
from zeropoint.evaluate.evidence import Coverage, count_coverage
from zeropoint.graph.cost import NOT_COUNTED, OPERANDS, multiply_accumulates
from zeropoint.graph.facts import Facts, capture_facts
from zeropoint.graph.load import input_infos
from zeropoint.graph.model import Model, Value
from zeropoint.graph.prepare import prepare
from zeropoint.graph.sites import find_sites
from zeropoint.notes import Note
from zeropoint.rules.network import Network, Operator, Tensor, read_network
from zeropoint.rules.pairs import CASTS_AND_CODINGS, codings, is_dequantize, is_quantize, read_coding
from zeropoint.targets import Target

Shape = tuple[int | str | None, ...]
Shapes = Mapping[str, tuple[int, ...]]
C_NAMES = {"float": "float32", "double": "float64"}
BIASES = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "QLinearConv": 8}  # the place of the input that is added
CLAMPS = frozenset({"Relu", "Clip"})  # every integer kernel takes them in: what it writes are the codes behind them
INTEGER_KERNEL_BITS = 8
# Constants of these types are shapes, axes and indices; int32 codes of biases are counted where a DequantizeLinear reads them.
NOT_PARAMETERS = frozenset({"int64", "int32", "bool", "string"})


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as the file declares it: a name or None in `shape` is a dynamic axis, shape None is not told, dtype "" neither."""

    name: str
    dtype: str
    shape: Shape | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One weighted operator; dtypes are those of the codes where a Q/DQ pair stands before it, or behind it and a Relu or Clip.

    input_dtype, weight_dtype, output_dtype: "" where the file does not tell; weight_dtype is that of what the input is multiplied by, also
    where this is computed. weight, bias: as they are stored, None where they are computed or absent.
    macs: multiply-accumulates for one run, None, as the shapes are, where these are not known. mac_share: of all layers' macs.
    integer: whether it multiplies codes by codes, both of 8 bits and with no scale per block, as integer kernels do.
    parameters: elements of weight and bias. weight_bytes: theirs; activation_bytes: of the inputs that are computed and of the output, as
    they are stored; bytes_moved: both, which is what a kernel reads and writes at least.
    """

    node: str
    operator: str
    input_dtype: str
    weight_dtype: str
    output_dtype: str
    input_shape: tuple[int, ...] | None
    output_shape: tuple[int, ...] | None
    weight: TensorInfo | None
    bias: TensorInfo | None
    integer: bool
    parameters: int
    macs: int | None
    mac_share: float | None
    weight_bytes: int
    activation_bytes: int | None
    bytes_moved: int | None


@dataclass(frozen=True, slots=True)
class TargetView:
    """What `quantize` would do for a target: the operators that would compute in integers, and why others would not."""

    target: str
    quantized: tuple[str, ...]
    coverage: Coverage
    notes: tuple[Note, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """A network at a glance.

    opset: of ONNX's own operators, None where there are none. operators: how many of each type, other domains' with their domain.
    parameters: elements of constants, less shapes, indices, scales and zero points; weight_bytes: theirs. macs: of all layers, for inputs
    of `input_shapes`; None where the network could not be run. activation_bytes: what all layers read of inputs that are computed, and
    write; None where it is not known of one. integer_layers: how many multiply codes by codes. bytes_by_dtype: of all constants.
    uncounted: operators that may multiply and sum but whose work is not in `macs`, by type.
    """

    opset: int | None
    ir_version: int
    producer: str
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    operators: Mapping[str, int]
    layers: tuple[Layer, ...]
    parameters: int
    weight_bytes: int
    macs: int | None
    activation_bytes: int | None
    integer_layers: int
    input_shapes: Shapes
    bytes_by_dtype: Mapping[str, int]
    quantized: bool
    target: TargetView | None
    notes: tuple[Note, ...]
    uncounted: Mapping[str, int] = field(default_factory=dict)


def inspect_model(model: Model, *, shapes: Shapes) -> Inspection:
    """Return what is in `model`, as the file has it; `shapes` fixes inputs whose axes are dynamic, which are 1 otherwise.

    Raises:
        RecipeError: `shapes` names no input, or does not fit it.
    """
    network = read_network(model)
    feed = zeros(input_infos(model), shapes)
    notes: list[Note] = []
    facts: Facts = {}
    try:
        facts = capture_facts(model, feed)
    except ModelError as error:
        notes.append(Note("shapes", f"multiply-accumulates are not known: {error}; give the shapes of inputs with dynamic axes"))
    macs = multiply_accumulates(model, facts)
    uncounted = _uncounted(network, macs) if facts else {}
    notes += [Note(f"{count} {name}", "the multiply-accumulates of these are not counted") for name, count in uncounted.items()]
    constants = list(_constants(network))
    parameters = [tensor for tensor in constants if _is_parameter(network, tensor)]
    weighted = [operator for operator in network.operators if operator.is_standard and operator.op_type in OPERANDS]
    layers = tuple(_layer(network, operator, facts, macs) for operator in weighted)
    return Inspection(
        opset=network.opset,
        ir_version=model.ir_version,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        inputs=tuple(_declared(value) for value in model.graph.inputs if value.name not in model.graph.initializers),
        outputs=tuple(map(_declared, model.graph.outputs)),
        operators=network.operators_by_type,
        layers=layers,
        parameters=sum(_elements(tensor) for tensor in parameters),
        weight_bytes=sum(_stored_bytes(tensor) for tensor in parameters),
        macs=sum(macs.values()) if facts else None,
        activation_bytes=_sum(layer.activation_bytes for layer in layers),
        integer_layers=sum(layer.integer for layer in layers),
        input_shapes={name: array.shape for name, array in feed.items()},
        bytes_by_dtype=_bytes_by_dtype(constants),
        quantized=any(layer.integer for layer in layers) or next(codings(network), None) is not None,
        target=None,
        notes=tuple(notes),
        uncounted=uncounted,
    )


def view_for_target(model: Model, target: Target, *, shapes: Shapes) -> TargetView:
    """Return what `quantize` would do with the float network `model`, which is prepared in place, for `target`.

    Raises:
        ModelError: the network is quantized already, or does not run on zeros of the `shapes`.
        RecipeError: `shapes` names no input, or does not fit it.
    """
    notes = prepare(model)
    facts = capture_facts(model, zeros(input_infos(model), shapes))
    placement = find_sites(model, facts, target)
    reading = {reader.node for site in placement.activations for reader in site.readers}
    reading |= {use.reader.node for site in placement.weights for use in site.uses}
    coverage = count_coverage(model, target, reading=reading, notes=placement.notes)
    left = {note.where for note in placement.notes if note.kind == "float"}
    quantized = tuple(str(node.name) for node in model.graph if str(node.name) in reading - left)
    return TargetView(target.name, quantized, coverage, (*notes, *placement.notes))


def zeros(inputs: tuple[InputInfo, ...], shapes: Shapes) -> Feed:
    """Return zeros for each input: of the shape that `shapes` gives it, or of its own with dynamic axes as 1.

    Raises:
        RecipeError: `shapes` names no input, or does not fit it.
    """
    unknown = sorted(shapes.keys() - {info.name for info in inputs})
    if unknown:
        names = ", ".join(repr(info.name) for info in inputs)
        raise RecipeError(f"shape: found the name {unknown[0]!r}, expected an input of the network: {names}")
    feed: Feed = {}
    for info in inputs:
        shape = shapes.get(info.name, tuple(1 if size is None else size for size in info.shape))
        if not info.takes(shape):
            raise RecipeError(f"shape of {info.name!r}: found {shape}, expected one that fits {info.shape}, where None is any size")
        feed[info.name] = np.zeros(shape, info.dtype)
    return feed


def _declared(value: Value) -> TensorInfo:
    dtype = value.dtype.name.lower() if value.dtype is not None else ""
    shape = None
    if value.shape is not None:
        shape = tuple(size if isinstance(size, int) else getattr(size, "value", None) for size in value.shape)
    return TensorInfo(str(value.name), C_NAMES.get(dtype, dtype), shape)


def _uncounted(network: Network, macs: Mapping[str, int]) -> dict[str, int]:
    """How many operators of each type may multiply and sum, and are not in `macs`."""
    return dict(Counter(operator.full_type for operator in network.operators if _is_uncounted(operator, macs)).most_common())


def _is_uncounted(operator: Operator, macs: Mapping[str, int]) -> bool:
    if not operator.is_standard:  # nobody knows what it computes, but where it only writes or reads codes
        return not (is_quantize(operator) or is_dequantize(operator))
    if operator.op_type in OPERANDS:  # in the body of an If, Loop or Scan, or of a function, shapes are not known
        return operator.outputs[0].name not in macs
    return operator.op_type in NOT_COUNTED


def _layer(network: Network, operator: Operator, facts: Facts, macs: Mapping[str, int]) -> Layer:
    output = operator.outputs[0]
    operands = [operator.input(place) for place in OPERANDS[operator.op_type]]
    read = [_read_dtype(network, tensor, facts) for tensor in operands]
    written = _written_dtype(network, output, facts)
    constants = [_stored(network, tensor) for tensor in (*operands, operator.input(BIASES.get(operator.op_type, len(operator.inputs))))]
    moved = [(tensor, dtype) for tensor, dtype, stored in zip(operands, read, constants, strict=False) if stored is None]
    held = {tensor.name: tensor for tensor in constants if tensor is not None}.values()
    weight_bytes = sum(_stored_bytes(tensor) for tensor in held)
    activation_bytes = _sum(_moved_bytes(tensor, dtype, facts) for tensor, dtype in (*moved, (output, written)))
    done = macs.get(output.name)
    total = sum(macs.values())
    return Layer(
        node=operator.name,
        operator=operator.op_type,
        input_dtype=read[0],
        weight_dtype=read[1],
        output_dtype=written,
        input_shape=_shape(operands[0], facts),
        output_shape=_shape(output, facts),
        weight=constants[1] or constants[0],
        bias=constants[2],
        integer=all(_is_integer(network, tensor, dtype) for tensor, dtype in zip(operands, read, strict=True)),
        parameters=sum(_elements(tensor) for tensor in held),
        macs=done,
        mac_share=done / total if done is not None and total else None,
        weight_bytes=weight_bytes,
        activation_bytes=activation_bytes,
        bytes_moved=_sum([weight_bytes, activation_bytes]),
    )


def _written_dtype(network: Network, output: Tensor, facts: Facts) -> str:
    """The dtype that a layer writes: of the codes that all its readers make of it, behind a Relu or Clip if there is one."""
    uses = network.uses(output)
    clamp = uses[0][0] if len(uses) == 1 and output not in network.outputs else None
    if clamp is not None and clamp.is_standard and clamp.op_type in CLAMPS:
        return _written_dtype(network, clamp.outputs[0], facts)
    after = [reader for reader, index in uses if index == 0 and is_quantize(reader)]
    coded = len(after) == len(uses) > 0 and output not in network.outputs
    return read_coding(network, after[0]).format if coded else _dtype(output, facts)


def _is_integer(network: Network, tensor: Tensor | None, dtype: str) -> bool:
    """Tell whether integer kernels multiply this operand: codes of 8 bits with one scale, or with one for each channel."""
    producer = network.producer(tensor)
    per_block = is_dequantize(producer) and producer is not None and producer.integer("block_size", 0) > 0
    return "int" in dtype and _bits(dtype) == INTEGER_KERNEL_BITS and not per_block


def _shape(tensor: Tensor | None, facts: Facts) -> tuple[int, ...] | None:
    return facts[tensor.name].shape if tensor is not None and tensor.name in facts else None


def _moved_bytes(tensor: Tensor | None, dtype: str, facts: Facts) -> int | None:
    shape = _shape(tensor, facts)
    return None if shape is None or not dtype else _bytes(math.prod(shape), dtype)


def _sum(numbers: Iterable[int | None]) -> int | None:
    """The sum, or None where one of them is not known."""
    known = list(numbers)
    return None if None in known else sum(number for number in known if number is not None)


def _read_dtype(network: Network, tensor: Tensor | None, facts: Facts) -> str:
    producer = network.producer(tensor)
    if producer is not None and is_dequantize(producer):
        return read_coding(network, producer).format
    return _dtype(tensor, facts) if tensor is not None else ""


def _dtype(tensor: Tensor, facts: Facts) -> str:
    told = tensor.dtype or (str(facts[tensor.name].dtype) if tensor.name in facts else "")
    return C_NAMES.get(told, told)


def _stored(network: Network, tensor: Tensor | None) -> TensorInfo | None:
    """The constant behind `tensor`, as it is stored: codes where a DequantizeLinear reads them."""
    while tensor is not None and tensor.data is None:
        producer = network.producer(tensor)
        tensor = producer.input(0) if producer is not None and producer.op_type in CASTS_AND_CODINGS else None
    return TensorInfo(tensor.name, C_NAMES.get(tensor.dtype, tensor.dtype), tensor.shape) if tensor is not None else None


def _constants(network: Network) -> Iterator[Tensor]:
    seen = set[Tensor]()
    for operator in network.operators:
        for tensor in (*operator.inputs, *operator.outputs):
            if tensor is not None and tensor.data is not None and tensor not in seen:
                seen.add(tensor)
                yield tensor


def _is_parameter(network: Network, tensor: Tensor) -> bool:
    uses = network.uses(tensor)
    if any(is_dequantize(reader) and index == 0 for reader, index in uses):
        return True
    is_scale = bool(uses) and all((is_dequantize(reader) or is_quantize(reader)) and index > 0 for reader, index in uses)
    return tensor.dtype not in NOT_PARAMETERS and not is_scale


def _elements(tensor: Tensor | TensorInfo) -> int:
    return math.prod(size if isinstance(size, int) else 0 for size in tensor.shape or ())


def _stored_bytes(tensor: Tensor | TensorInfo) -> int:
    return _bytes(_elements(tensor), C_NAMES.get(tensor.dtype, tensor.dtype))


def _bytes(elements: int, dtype: str) -> int:
    return -(-elements * _bits(dtype) // 8)


def _bytes_by_dtype(constants: list[Tensor]) -> dict[str, int]:
    found: Counter[str] = Counter()
    for tensor in constants:
        found[C_NAMES.get(tensor.dtype, tensor.dtype)] += _stored_bytes(tensor)
    return dict(found.most_common())


def _bits(dtype: str) -> int:
    """Bits of one element, which the type's name tells: float8e4m3fn has 8; a bool has a byte, and strings have no size of their own."""
    digits = re.search(r"\d+", dtype)
    return int(digits[0]) if digits else 8 if dtype == "bool" else 0
