"""Make arrays fit a network's inputs, or say why they do not: names, ranks, shapes, types, and no NaN."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, runtime_checkable

import ml_dtypes
import numpy as np

from zeropoint.data.inputs import Array, BatchAxis, Feed, InputInfo, shape_text
from zeropoint.errors import DataError


@runtime_checkable
class _Tensor(Protocol):
    """What PyTorch's tensors have, without importing PyTorch."""

    @property
    def dtype(self) -> object: ...
    def detach(self) -> _Tensor: ...
    def cpu(self) -> _Tensor: ...
    def float(self) -> _Tensor: ...


def as_array(value: object, where: str) -> Array:
    """Return `value` (an array, a PyTorch tensor, nested lists) as an array of numbers; bfloat16 of a tensor becomes float32.

    Raises:
        DataError: it is not an array of numbers.
    """
    try:
        array = np.asarray(_on_cpu(value) if isinstance(value, _Tensor) else value)
    except (TypeError, ValueError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{where}: found a {type(value).__name__} that is no array ({error}), expected an array; give arrays") from error
    if not _is_number(array.dtype):
        raise DataError(f"{where}: found {type(value).__name__} of dtype {array.dtype}, expected numbers; give arrays")
    return array


def _on_cpu(tensor: _Tensor) -> object:
    on_cpu = tensor.detach().cpu()
    return on_cpu.float() if str(on_cpu.dtype) == "torch.bfloat16" else on_cpu  # which numpy does not know, and float32 holds


def by_name(arrays: Mapping[str, object], inputs: Sequence[InputInfo], *, where: str) -> dict[str, object]:
    """Return one value for each input, keyed by its name; the names arr_0, arr_1, ... of `np.savez` stand for the inputs in order.

    Raises:
        DataError: a name is missing or unknown.
    """
    positional = {f"arr_{i}" for i in range(len(inputs))}
    if set(arrays) == positional:
        return {info.name: arrays[f"arr_{i}"] for i, info in enumerate(inputs)}
    expected = {info.name for info in inputs}
    if set(arrays) != expected:
        raise DataError(f"{where}: found arrays {_names(arrays)}, expected {_names(expected)}: one for each input, under its name")
    return {info.name: arrays[info.name] for info in inputs}


def rows(array: Array, info: InputInfo, *, batched: bool, where: str) -> Array:
    """Return `array` with one sample for each index of axis 0.

    With a batch axis in the network: the input's rank means samples along axis 0; one less, a single sample; one more, samples that
    each keep their batch axis, of 1 or of the network's fixed size. Without: the input's rank is a single sample, one more is many.

    Raises:
        DataError: rank, shape or kind of type do not fit.
    """
    sample = info.shape[1:] if batched else info.shape  # one sample without its batch axis
    check_dtype(array.dtype, info, where=where)
    if array.ndim == len(sample):
        array = array[np.newaxis]
    elif batched and array.ndim == len(sample) + 2 and array.shape[1] in (1, info.shape[0]):
        array = array.reshape(array.shape[0] * array.shape[1], *array.shape[2:])
    if array.ndim != len(sample) + 1 or not _matches(array.shape[1:], sample):
        expected = shape_text(("samples", *sample))
        raise DataError(f"{where}: input {info.name!r}: found shape {array.shape}, expected {expected}, or {shape_text(sample)} for one")
    return array


def fit_sample(sample: Mapping[str, Array], inputs: Sequence[InputInfo], *, batch: BatchAxis, where: str) -> Feed:
    """Return one sample as a feed: every input there, of its shape (1 along a batch axis) and type, all numbers finite.

    Raises:
        DataError: a name, shape, type or value does not fit.
    """
    if set(sample) != {info.name for info in inputs}:
        raise DataError(f"{where}: found inputs {_names(sample)}, expected {_names(info.name for info in inputs)}")
    feed: Feed = {}
    for info in inputs:
        array = sample[info.name]
        expected = (1, *info.shape[1:]) if info.name in batch.names else info.shape
        if not _matches(array.shape, expected):
            raise DataError(f"{where}: input {info.name!r}: found shape {array.shape}, expected {shape_text(expected)}")
        if is_float(array.dtype) and not np.isfinite(array).all():
            count = int(np.count_nonzero(~np.isfinite(array)))
            raise DataError(f"{where}: input {info.name!r}: found {count} NaN or infinite values, expected finite ones; remove the sample")
        feed[info.name] = np.asarray(cast(array, info, where=where), order="C")
    return feed


def cast(array: Array, info: InputInfo, *, where: str) -> Array:
    """Return `array` in the input's type.

    Floats go to any width of float, where they may round but not overflow. Integers and booleans go to any type that holds each
    of the values exactly. Floats never become integers.

    Raises:
        DataError: the values would change.
    """
    if array.dtype == info.dtype:
        return array
    check_dtype(array.dtype, info, where=where)
    with np.errstate(all="ignore"):
        converted = array.astype(info.dtype)
        if is_float(array.dtype):
            kept = np.isfinite(converted).all() or not np.isfinite(array).all()
        else:
            kept = np.array_equal(converted.astype(array.dtype), array) and np.array_equal(np.less(converted, 0), np.less(array, 0))
    if not kept:
        raise DataError(
            f"{where}: input {info.name!r}: found {array.dtype} values {array.min()} to {array.max()} that {info.dtype} does not hold, "
            f"expected {info.dtype}; convert them yourself if that is meant"
        )
    return np.asarray(converted)


def check_dtype(dtype: np.dtype[np.generic], info: InputInfo, *, where: str) -> None:
    """Refuse an array whose kind of type can never be cast to the input's: objects, text, complex numbers, floats for an integer.

    Raises:
        DataError: the type does not fit.
    """
    if not _is_number(dtype) or (is_float(dtype) and not is_float(info.dtype)):
        raise DataError(f"{where}: input {info.name!r}: found dtype {dtype}, expected {info.dtype}; convert the data first")


def is_float(dtype: np.dtype[np.generic]) -> bool:
    """Tell whether `dtype` is a real floating-point type, bfloat16 included."""
    return dtype.kind == "f" or dtype == np.dtype(ml_dtypes.bfloat16)


def _is_number(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind in "biu" or is_float(dtype)


def _matches(shape: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(shape) == len(expected) and all(want in (None, got) for got, want in zip(shape, expected, strict=True))


def _names(names: object) -> str:
    return ", ".join(sorted(map(repr, names))) if names else "none"  # type: ignore[call-overload]
