"""Write networks: into memory or a scratch folder for a session, and to disk whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir

from zeropoint.errors import OutputError
from zeropoint.runtime.onnxruntime import Session

# A protobuf message ends at 2 GiB; weights beyond this go into a file of their own beside the model.
LARGEST_MESSAGE = 1_800_000_000


def serialize(model: ir.Model) -> bytes:
    """Return the model as ONNX bytes with all weights inside."""
    ir.external_data.load_to_model(model)
    return bytes(ir.to_proto(model).SerializeToString(deterministic=True))


def serialized_size(model: ir.Model) -> int:
    """Return how many bytes the model takes as ONNX: of its weights alone, where these lie in a file of their own."""
    if weight_bytes(model) > LARGEST_MESSAGE:
        return weight_bytes(model)
    ir.external_data.load_to_model(model)
    return int(ir.to_proto(model).ByteSize())


def weight_bytes(model: ir.Model) -> int:
    """Return how many bytes the main graph's initializers take."""
    return sum(v.const_value.nbytes for v in model.graph.initializers.values() if v.const_value is not None)


def open_session(model: ir.Model, *, optimize: bool = True, threads: int = 0) -> Session:
    """Return a session that runs the model, whatever its size."""
    if weight_bytes(model) <= LARGEST_MESSAGE:
        return Session(serialize(model), optimize=optimize, threads=threads)
    with tempfile.TemporaryDirectory(prefix="zeropoint-") as folder:  # the session has read the weights when it returns
        path = Path(folder) / "model.onnx"
        ir.save(model, path, external_data="model.onnx.data")
        return Session(path, optimize=optimize, threads=threads)


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
                _write(written, serialize(model))
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
    path = Path(path)
    try:
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".zeropoint-") as folder:
            written = Path(folder) / path.name
            _write(written, text.encode())
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


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
