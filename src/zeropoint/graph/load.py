"""Read a network from a file, bytes or a ModelProto, raise its opset where needed, and say what it takes as input."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import cast

import numpy as np
import onnx
import onnx.version_converter
import onnx_ir as ir
from google.protobuf.message import DecodeError

from zeropoint.data.inputs import InputInfo
from zeropoint.errors import ModelError

OLDEST_OPSET = 7
Source = str | Path | bytes | onnx.ModelProto


def load(source: Source, *, min_opset: int = OLDEST_OPSET) -> ir.Model:
    """Return the network as an onnx_ir model of its own: nothing done to it reaches `source`.

    A default-domain opset below `min_opset` is converted to it. Weights in external files stay there until they are read.

    Raises:
        ModelError: missing, truncated, foreign, already quantized, of an opset below 7 or one that cannot be converted, or
            with external data that is missing or lies outside the model's folder.
    """
    name = source_name(source)
    proto = _parse(source, name)
    if not proto.graph.node:
        raise ModelError(f"{name}: found no nodes, expected an ONNX network; is the file complete, and is it ONNX?")
    opset = _default_opset(proto, name)
    folder = Path(source).parent if isinstance(source, str | Path) else None
    _check_external_data(proto, folder, name)
    if opset < min_opset:
        proto = _convert(proto, folder, name, to=min_opset)
    model = ir.from_proto(proto)
    if folder is not None:
        ir.external_data.set_base_dir(model.graph, folder)
    return model


def source_name(source: Source) -> str:
    """Return what to call `source` in a message."""
    return str(source) if isinstance(source, str | Path) else "model"


def fingerprint(source: Source) -> str:
    """Return the SHA-256 of the file or bytes, without external data."""
    if isinstance(source, onnx.ModelProto):
        return hashlib.sha256(source.SerializeToString(deterministic=True)).hexdigest()
    return hashlib.sha256(source if isinstance(source, bytes) else Path(source).read_bytes()).hexdigest()


def _parse(source: Source, name: str) -> onnx.ModelProto:
    if isinstance(source, onnx.ModelProto):
        return source
    try:
        content = source if isinstance(source, bytes) else Path(source).read_bytes()
    except OSError as error:
        raise ModelError(f"{name}: cannot be read ({error.strerror}); expected an ONNX file") from None
    try:
        return cast(onnx.ModelProto, onnx.ModelProto.FromString(content))
    except DecodeError:
        raise ModelError(
            f"{name}: found {len(content)} bytes that are not an ONNX model; the file is truncated or of another kind"
        ) from None


def _default_opset(proto: onnx.ModelProto, name: str) -> int:
    opsets = [opset.version for opset in proto.opset_import if opset.domain in ("", "ai.onnx")]
    if not opsets:
        raise ModelError(f"{name}: found no opset of ONNX's default domain, expected {OLDEST_OPSET} or later; export it again")
    if opsets[0] < OLDEST_OPSET:
        raise ModelError(f"{name}: found opset {opsets[0]}, expected {OLDEST_OPSET} or later; export it again with a newer opset")
    return int(opsets[0])


def _check_external_data(proto: onnx.ModelProto, folder: Path | None, name: str) -> None:
    for tensor in _external_tensors(proto):
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        where = f"{name}: tensor {tensor.name!r}: external data {location!r}"
        if folder is None:
            raise ModelError(f"{where} belongs to a model given as bytes; pass the path of the model's file instead")
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder.resolve()):
            raise ModelError(f"{where} lies outside the model's folder; refused, since a model could read any file that way")
        if not file.is_file():
            raise ModelError(f"{where} is missing; put the file beside the model")
        needed = sum(int(entry.value) for entry in tensor.external_data if entry.key in ("offset", "length"))
        if file.stat().st_size < needed:
            raise ModelError(f"{where} has {file.stat().st_size} bytes, expected at least {needed}; the file is truncated")


def _external_tensors(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [t for t in onnx.external_data_helper._get_all_tensors(proto) if onnx.external_data_helper.uses_external_data(t)]


def _convert(proto: onnx.ModelProto, folder: Path | None, name: str, *, to: int) -> onnx.ModelProto:
    if folder is not None and _external_tensors(proto):
        onnx.load_external_data_for_model(proto, str(folder))
    try:
        converted = onnx.version_converter.convert_version(proto, to)
    except Exception as error:  # the converter raises RuntimeError, ValueError and its own C++ errors
        raise ModelError(
            f"{name}: cannot be converted from opset {_default_opset(proto, name)} to {to} ({error}); export it again at opset {to}"
        ) from None
    del converted.metadata_props[:]
    converted.metadata_props.extend(proto.metadata_props)
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
            raise ModelError(f"input {value.name!r}: found {value.type}, shape {value.shape}; expected a tensor of known type and rank")
        shape = tuple(dim if isinstance(dim, int) and dim > 0 else None for dim in value.shape)
        infos.append(InputInfo(str(value.name), np.dtype(value.dtype.numpy()), shape))
    return tuple(infos)
