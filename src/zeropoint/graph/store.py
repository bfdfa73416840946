"""Write networks: into memory, for a session, and to disk whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir

from zeropoint.errors import OutputError
from zeropoint.graph.initializers import Array
from zeropoint.graph.wire import LARGE, Buffer, insert_weights, is_plain
from zeropoint.runtime.onnxruntime import Optimization, Session

# A protobuf message ends at 2 GiB; weights beyond this go into a file of their own beside the model.
LARGEST_MESSAGE = 1_800_000_000


def serialize(model: ir.Model) -> bytes:
    """Return the model as ONNX bytes with all weights inside."""
    return b"".join(_pieces(model))


def serialized_size(model: ir.Model) -> int:
    """Return how many bytes the model takes as ONNX: of its weights alone, where these lie in a file of their own."""
    if weight_bytes(model) > LARGEST_MESSAGE:
        return weight_bytes(model)
    return sum(map(len, _pieces(model)))


def weight_bytes(model: ir.Model) -> int:
    """Return how many bytes the main graph's initializers take."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def open_session(model: ir.Model, *, optimize: Optimization = "all", threads: int = 0, single_run: bool = False) -> Session:
    """Return a session that runs the model, whatever its size; the large weights are handed over where they lie. Options: see Session."""
    return open_proto(*skeleton(model), optimize=optimize, threads=threads, single_run=single_run)


def open_proto(
    proto: onnx.ModelProto, weights: Mapping[str, Array], *, optimize: Optimization = "all", threads: int = 0, single_run: bool = False
) -> Session:
    """Return a session that runs what `skeleton` returned, which stays as it is."""
    content = (_fed(proto, weights) if single_run else proto).SerializeToString()
    return Session(content, weights=weights, optimize=optimize, threads=threads, single_run=single_run)


def _fed(proto: onnx.ModelProto, weights: Mapping[str, Array]) -> onnx.ModelProto:
    """Return the model with the weights turned from initializers into inputs."""
    fed_model = onnx.ModelProto()
    fed_model.CopyFrom(proto)
    graph = fed_model.graph
    listed = {value.name for value in graph.input}
    fed = [tensor for tensor in graph.initializer if tensor.name in weights and tensor.name not in listed]
    graph.input.extend(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims) for tensor in fed)
    kept = [tensor for tensor in graph.initializer if tensor.name not in weights]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    return fed_model


def skeleton(model: ir.Model) -> tuple[onnx.ModelProto, dict[str, Array]]:
    """Return the model with its large weights as if they lay in files, and those weights by name, where they lie."""
    values = model.graph.initializers
    stored = {name: value.const_value for name, value in values.items() if value.const_value is not None and _is_large(value.const_value)}
    weights = {name: np.ascontiguousarray(tensor.numpy()) for name, tensor in stored.items()}
    try:  # in place, as onnx_ir's own writer of external data does
        for name, tensor in stored.items():
            values[name].const_value = _elsewhere(tensor, name)
        return ir.serde.serialize_model(model), weights
    finally:
        for name, tensor in stored.items():
            values[name].const_value = tensor


def _is_large(tensor: ir.TensorProtocol) -> bool:
    # What stands as it came with a file may be written in other ways than as raw data.
    return is_plain(tensor.dtype) and tensor.nbytes >= LARGE and not isinstance(tensor, ir.serde.TensorProtoTensor)


def _elsewhere(tensor: ir.TensorProtocol, name: str) -> ir.ExternalTensor:
    return ir.ExternalTensor(
        "weights",
        offset=0,
        length=tensor.nbytes,
        dtype=tensor.dtype,
        shape=ir.Shape(tensor.shape.numpy()),
        name=name,
        doc_string=tensor.doc_string,
        metadata_props=dict(tensor.metadata_props),
    )


def _pieces(model: ir.Model) -> list[Buffer]:
    """Return what the model is as ONNX bytes, in pieces: large weights where they lie."""
    ir.external_data.load_to_model(model)
    proto, weights = skeleton(model)
    numbers: dict[int, memoryview] = {}
    for number, tensor in enumerate(proto.graph.initializer):
        if tensor.name in weights:
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
            tensor.raw_data = b""
            numbers[number] = weights[tensor.name].reshape(-1).view(np.uint8).data
    return insert_weights(proto.SerializeToString(deterministic=True), numbers)


def save(model: ir.Model, path: str | Path, *, check: Callable[[Path], object]) -> None:
    """Write the model to `path`, with weights above 1.8 GB in `path`.data; the files appear whole or not at all.

    `check` is called with the written file before it takes its name, and raises where the file will not do.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full; whatever stood at `path` before still stands.
    """
    path = Path(path)
    external = f"{path.name}.data" if weight_bytes(model) > LARGEST_MESSAGE else None
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".zeropoint-") as folder:
            written = Path(folder) / path.name
            if external is None:
                _write(written, _pieces(model), meanwhile=lambda: check(written))
            else:
                ir.save(model, written, external_data=external)
                check(written)
            if external is None:
                os.replace(written, path)
            else:
                _place_both(written, path, external)
    except OSError as error:
        raise _not_written(path, error) from None


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".zeropoint-") as folder:
            written = Path(folder) / path.name
            _write(written, [content])
            os.replace(written, path)
    except OSError as error:
        raise _not_written(path, error) from None


def _place_both(written: Path, path: Path, external: str) -> None:
    """Give the model and its weights their names, or leave those that stood there."""
    data, replaced = path.with_name(external), written.with_name(f"{external}.replaced")
    if data.exists():
        os.replace(data, replaced)
    try:
        os.replace(written.with_name(external), data)
        os.replace(written, path)
    except BaseException:
        data.unlink(missing_ok=True)
        if replaced.exists():
            os.replace(replaced, data)
        raise


def _not_written(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: cannot be written ({error.strerror or error}); nothing was changed there; "
        "see that its folder exists, may be written to and has room"
    )


def _write(path: Path, pieces: Iterable[Buffer], *, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Write a file down to the disk; `meanwhile` is called when all is written, and the disk has yet to take it in."""
    with path.open("wb") as file, ThreadPoolExecutor(1) as worker:
        file.writelines(pieces)
        file.flush()
        synced = worker.submit(os.fsync, file.fileno())
        meanwhile()
        synced.result()
