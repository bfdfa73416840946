"""Read a network from a file, bytes or a ModelProto, raise its opset where needed, and say what it takes as input."""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import onnx
import onnx.inliner
import onnx.version_converter
import onnx_ir as ir
from google.protobuf.message import DecodeError
from onnx.external_data_helper import _get_all_tensors as _all_tensors
from onnx.external_data_helper import uses_external_data

from zeropoint.data.inputs import InputInfo
from zeropoint.errors import ModelError
from zeropoint.graph.initializers import Array
from zeropoint.graph.wire import LARGE, Buffer, Cut, cut_weights, is_plain

OLDEST_OPSET = 7
HASHED_AT_ONCE = 1 << 24  # bytes; each piece waits for Python's lock, and a mapped file that shrinks would end the process


@dataclass(frozen=True, slots=True)
class NamedBytes:
    """A network in memory, and what messages call it."""

    name: str
    content: bytes


Source = str | Path | bytes | NamedBytes | onnx.ModelProto


def load(source: Source, *, min_opset: int = OLDEST_OPSET) -> ir.Model:
    """Return the network as an onnx_ir model of its own: nothing done to it reaches `source`.

    A default-domain opset below `min_opset` is converted to it. Weights in external files stay there until they are read.

    Raises:
        ModelError: missing, truncated, foreign, of an opset below 7 or one that cannot be converted, reading a tensor that nothing
            before computes, or with external data that is missing, truncated or outside the model's folder.
    """
    name = source_name(source)
    proto, weights = _parse(source, name)
    if not proto.graph.node:
        raise ModelError(f"{name}: found no nodes, expected an ONNX network; check that the file is complete, and that it is ONNX")
    for part in (proto.graph, *proto.functions):
        _check_order(part, frozenset(), name)
    opset = _default_opset(proto, name)
    folder = Path(source).parent if isinstance(source, str | Path) else None
    external = [tensor for tensor in _all_tensors(proto) if uses_external_data(tensor)]
    for tensor in external:
        _check_external(tensor, folder, name)
    if external and folder is not None:
        later = [] if opset < min_opset else [*filter(_is_read_later, proto.graph.initializer)]
        for tensor in external:
            if not any(tensor is kept for kept in later):
                _embed(tensor, folder)
    if opset < min_opset:
        for index, array in weights.items():
            proto.graph.initializer[index].raw_data = array.tobytes()
        proto, weights = _convert(proto, name, to=min_opset), {}
    return _deserialize(proto, weights, folder, name)


def source_name(source: Source) -> str:
    """Return what to call `source` in a message."""
    if isinstance(source, NamedBytes):
        return source.name
    return str(source) if isinstance(source, str | Path) else "model"


def fingerprint(source: Source) -> str:
    """Return the SHA-256 of the file or bytes, without external data."""
    if isinstance(source, onnx.ModelProto):
        return hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    if isinstance(source, NamedBytes):
        return fingerprint(source.content)
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    digest, block = hashlib.sha256(), bytearray(HASHED_AT_ONCE)
    with Path(source).open("rb") as file:
        while size := file.readinto(block):
            digest.update(memoryview(block)[:size])
    return digest.hexdigest()


def given_size(source: Source) -> int:
    """Return how many bytes the network takes as it was given, with the external data that belongs to it.

    Raises:
        ModelError: there is no such file, or it is no ONNX network.
    """
    if isinstance(source, onnx.ModelProto):
        return int(source.ByteSize())
    if isinstance(source, NamedBytes):
        return len(source.content)
    if isinstance(source, bytes):
        return len(source)
    proto, _ = _parse(source, str(source), with_weights=False)
    return Path(source).stat().st_size + sum(_extent(tensor)[1] for tensor in _all_tensors(proto) if uses_external_data(tensor))


def _parse(source: Source, name: str, *, with_weights: bool = True) -> tuple[onnx.ModelProto, dict[int, Array]]:
    """Return the network less its large weights, and those by number of the initializer."""
    if isinstance(source, onnx.ModelProto):
        copy = onnx.ModelProto()
        copy.CopyFrom(source)  # onnx_ir reads tensors where they lie, and renames them there
        return copy, {}
    if isinstance(source, NamedBytes):
        return _parse(source.content, name, with_weights=with_weights)
    if isinstance(source, bytes):
        proto, cuts = _split(source, name)
        return proto, {
            cut.index: _aligned(source, cut, _dtype(proto, cut)).reshape(proto.graph.initializer[cut.index].dims) for cut in cuts
        }
    if not isinstance(source, str | os.PathLike):
        raise ModelError(
            f"model: found a {type(source).__name__}, expected a path, bytes or a ModelProto; write a PyTorch module with "
            "zeropoint.torch.export first"
        )
    try:
        with Path(source).open("rb") as file:
            if not os.fstat(file.fileno()).st_size:  # empty, or no file but a pipe
                return _split(file.read(), name)[0], {}
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content, memoryview(content) as view:
                proto, cuts = _split(view, name)
            wanted = cuts if with_weights else ()
            return proto, {
                cut.index: _read(file, cut, _dtype(proto, cut)).reshape(proto.graph.initializer[cut.index].dims) for cut in wanted
            }
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error.strerror}); expected an ONNX file, check the path") from None


def _split(content: Buffer, name: str) -> tuple[onnx.ModelProto, list[Cut]]:
    """Parse the network less what was cut out: raw data of initializers, each an array of one of numpy's types."""
    try:
        skeleton, cuts = cut_weights(content)
    except ValueError:
        skeleton, cuts = bytes(content), []  # protobuf may know better
    try:
        proto = onnx.ModelProto.FromString(skeleton)
    except DecodeError:
        raise ModelError(
            f"{name}: found {len(content)} bytes that are not an ONNX model; the file is truncated or of another kind, get it again"
        ) from None
    named = Counter(tensor.name for tensor in proto.graph.initializer)
    weights = []
    for cut in cuts:
        tensor = proto.graph.initializer[cut.index]
        is_alone = bool(tensor.name) and named[tensor.name] == 1
        if is_alone and is_plain(ir.DataType(tensor.data_type)) and _extent(tensor)[1] == cut.size:
            weights.append(cut)
        else:  # what is wrong with it is said where it is used
            tensor.raw_data = bytes(content[cut.offset : cut.offset + cut.size])
    return proto, weights


def _dtype(proto: onnx.ModelProto, cut: Cut) -> np.dtype[Any]:
    return ir.DataType(proto.graph.initializer[cut.index].data_type).numpy()


def _aligned(content: bytes, cut: Cut, dtype: np.dtype[Any]) -> Array:
    found = np.frombuffer(content, dtype, cut.size // dtype.itemsize, cut.offset)
    return found if found.flags.aligned else found.copy()


def _read(file: BinaryIO, cut: Cut, dtype: np.dtype[Any]) -> Array:
    array = np.empty(cut.size // dtype.itemsize, dtype)
    file.seek(cut.offset)
    if file.readinto(array.view(np.uint8)) != cut.size:  # type: ignore[attr-defined]
        raise OSError(errno.EIO, "it changes while it is read")
    return array


def _check_order(graph: onnx.GraphProto | onnx.FunctionProto, around: frozenset[str], name: str) -> None:
    """Refuse a graph that reads or gives out what is not computed by then; `around` are the tensors of the graphs that it stands in."""
    if isinstance(graph, onnx.FunctionProto):
        own, outputs = set(graph.input), list(graph.output)
    else:
        own = {value.name for value in (*graph.input, *graph.initializer)} | {sparse.values.name for sparse in graph.sparse_initializer}
        outputs = [value.name for value in graph.output]
    for node in graph.node:
        unknown = next((read for read in node.input if read and read not in own and read not in around), None)
        if unknown is not None:
            where = f"node {node.name!r}" if node.name else f"the node that writes {', '.join(node.output)!r}"
            raise ModelError(
                f"{name}: {where} ({node.op_type}): found input {unknown!r}, expected what a node before it computes, an input or an "
                "initializer; export the network again"
            )
        for attribute in node.attribute:
            for body in (*([attribute.g] if attribute.HasField("g") else ()), *attribute.graphs):
                _check_order(body, around | own, name)
        own.update(node.output)
    missing = next((output for output in outputs if output not in own), None)
    if missing is not None:
        raise ModelError(f"{name}: {graph.name!r} gives out {missing!r}, expected what one of its nodes computes; export the network again")


def _default_opset(proto: onnx.ModelProto, name: str) -> int:
    opsets = [opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")]
    if not opsets:
        raise ModelError(f"{name}: found no opset of ONNX's default domain, expected {OLDEST_OPSET} or later; export it again")
    if opsets[0] < OLDEST_OPSET:
        raise ModelError(f"{name}: found opset {opsets[0]}, expected {OLDEST_OPSET} or later; export it again with a newer opset")
    return int(opsets[0])


def _check_external(tensor: onnx.TensorProto, folder: Path | None, name: str) -> None:
    if not uses_external_data(tensor):
        return
    location = _entry(tensor, "location", "")
    where = f"{name}: tensor {tensor.name!r}: external data {location!r}"
    if folder is None:
        raise ModelError(f"{where} belongs to a model given as bytes; pass the path of the model's file instead")
    file = (folder / location).resolve()
    if not location or Path(location).is_absolute() or not file.is_relative_to(folder.resolve()):
        raise ModelError(
            f"{where} lies outside the model's folder; refused, since a model could read any file that way: copy it beside the model"
        )
    if not file.is_file():
        raise ModelError(f"{where} is missing; put the file beside the model")
    try:
        offset, size = _extent(tensor)
        length = int(_entry(tensor, "length", str(size)))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{where} cannot be located ({error}); export the model again") from None
    if offset < 0 or length < size:
        raise ModelError(f"{where} has offset {offset} and length {length}, expected {size} bytes from 0 on; export the model again")
    found = file.stat()
    if found.st_size < offset + size:
        raise ModelError(f"{where} has {found.st_size} bytes, expected at least {offset + size}; the file is truncated, get it again")
    if found.st_nlink > 1:  # onnx_ir refuses to read these
        raise ModelError(f"{where} has {found.st_nlink} hard links, expected one; put a copy of the file in its place")


def _is_read_later(tensor: onnx.TensorProto) -> bool:
    """Whether the initializer is a weight that stays in its file until it is wanted; not so the bodies' own, nor shapes and indices."""
    return is_plain(ir.DataType(tensor.data_type)) and _extent(tensor)[1] >= LARGE


def _embed(tensor: onnx.TensorProto, folder: Path) -> None:
    if not uses_external_data(tensor):
        return
    offset, size = _extent(tensor)
    with (folder / _entry(tensor, "location", "")).open("rb") as file:
        file.seek(offset)
        tensor.raw_data = file.read(size)
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def _extent(tensor: onnx.TensorProto) -> tuple[int, int]:
    """Where in its file the tensor begins, and how many bytes it takes."""
    bits = prod(tensor.dims) * ir.DataType(tensor.data_type).bitwidth
    return int(_entry(tensor, "offset", "0")), -(-bits // 8)


def _entry(tensor: onnx.TensorProto, key: str, default: str) -> str:
    return next((entry.value for entry in tensor.external_data if entry.key == key), default)


def _deserialize(proto: onnx.ModelProto, weights: Mapping[int, Array], folder: Path | None, name: str) -> ir.Model:
    try:
        model = ir.from_proto(proto)
    except Exception as error:  # what a damaged file leads to is not for onnx_ir to foresee
        reason = str(error.__cause__ or error).strip().partition("\n")[0]
        raise ModelError(f"{name}: found a network that contradicts itself ({reason}); export it again") from None
    for index, array in weights.items():
        tensor = proto.graph.initializer[index].name
        model.graph.initializers[tensor].const_value = ir.Tensor(array, name=tensor)
    for value in model.graph.initializers.values():
        if folder is not None and isinstance(value.const_value, ir.ExternalTensor):
            value.const_value.base_dir = folder
        if value.shape is None and value.const_value is not None:  # as of an output of which the file tells no shape
            value.shape = ir.Shape(value.const_value.shape.numpy())
    return model


def _convert(proto: onnx.ModelProto, name: str, *, to: int) -> onnx.ModelProto:
    try:
        whole = onnx.inliner.inline_local_functions(proto) if proto.functions else proto  # the converter drops functions
        converted = onnx.version_converter.convert_version(whole, to)
    except Exception as error:  # the converter raises RuntimeError, ValueError and its own C++ errors
        raise ModelError(
            f"{name}: cannot be converted from opset {_default_opset(proto, name)} to {to} ({error}); export it again at opset {to}"
        ) from None
    # The converter forgets metadata, and writes what it infers over dynamic axes.
    for ours, theirs in (
        (converted.metadata_props, proto.metadata_props),
        (converted.graph.metadata_props, proto.graph.metadata_props),
        (converted.graph.input, proto.graph.input),
        (converted.graph.output, proto.graph.output),
    ):
        del ours[:]
        ours.extend(theirs)
    return converted


def input_infos(model: ir.Model) -> tuple[InputInfo, ...]:
    """Return name, dtype and shape (None = dynamic) of each input that a caller must feed.

    Raises:
        ModelError: an input is not a tensor of known type and rank.
    """
    infos = []
    for value in model.graph.inputs:
        if value.name in model.graph.initializers:
            continue
        if value.dtype is None or value.shape is None or not isinstance(value.type, ir.TensorType):
            raise ModelError(
                f"input {value.name!r}: found {value.type}, shape {value.shape}; expected a tensor of known type and rank, export it so"
            )
        shape = tuple(dim if isinstance(dim, int) and dim > 0 else None for dim in value.shape)
        infos.append(InputInfo(str(value.name), np.dtype(value.dtype.numpy()), shape))
    return tuple(infos)
