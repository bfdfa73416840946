"""Networks as bytes, without their weights going through protobuf, which would copy each of them twice.

An ONNX file is one protobuf message. Its fields are walked here as far as the initializers of its graph: their raw data is cut out
when a file is read, and put in when one is written, so that protobuf sees the skeleton alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

Buffer = bytes | memoryview
# What is smaller stays: protobuf is fast on it, and runtimes look into shapes and indices before they take weights.
LARGE = 4096  # bytes
VARINT, FIXED_64, DELIMITED, FIXED_32 = 0, 1, 2, 5
GRAPH = 7  # of a ModelProto
INITIALIZER = 5  # of a GraphProto
DIMS, DATA_TYPE, NAME, RAW_DATA = 1, 2, 8, 9  # of a TensorProto
PLAIN_FIELDS = frozenset({DIMS, DATA_TYPE, NAME, RAW_DATA})


@dataclass(frozen=True, slots=True)
class Cut:
    """Raw data that was cut out: that of initializer number `index`, which lies in the file from `offset` on."""

    index: int
    offset: int
    size: int


@dataclass(frozen=True, slots=True)
class _Field:
    """One field of a message: its number, where it starts, and where its payload begins and ends."""

    number: int
    start: int
    begin: int
    end: int


def is_plain(dtype: ir.DataType) -> bool:
    """Return whether raw data of this type is an array of one of numpy's own types."""
    try:
        found = dtype.numpy()
    except TypeError:  # strings, and no type at all
        return False
    return found.kind in "fiub" and 8 * found.itemsize == dtype.bitwidth


def cut_weights(content: Buffer) -> tuple[bytes, list[Cut]]:
    """Return a model's bytes less the raw data of its large initializers, and where that lies.

    Raises:
        ValueError: this is no protobuf message, or one that says something twice.
    """
    graph = _only(content, 0, len(content), GRAPH)
    pieces: list[bytes] = []
    cuts: list[Cut] = []
    kept = graph.begin  # up to here all is in the pieces
    initializers = (field for field in _fields(content, graph.begin, graph.end) if field.number == INITIALIZER)
    for index, field in enumerate(initializers):
        raw = _plain_raw_data(content, field) if field.end - field.begin >= LARGE else None
        if raw is None or raw.end - raw.begin < LARGE:
            continue
        tensor = bytes(content[field.begin : raw.start]) + bytes(content[raw.end : field.end])
        pieces += [bytes(content[kept : field.start]), _head(INITIALIZER, len(tensor)), tensor]
        cuts.append(Cut(index, raw.begin, raw.end - raw.begin))
        kept = field.end
    pieces.append(bytes(content[kept : graph.end]))
    head = _head(GRAPH, sum(map(len, pieces)))
    return b"".join([bytes(content[: graph.start]), head, *pieces, bytes(content[graph.end :])]), cuts


def insert_weights(content: bytes, weights: Mapping[int, memoryview]) -> list[Buffer]:
    """Return a model's bytes in pieces, with `weights`, by number of the initializer, for raw data that is there but empty."""
    graph = _only(content, 0, len(content), GRAPH)
    pieces: list[Buffer] = []
    kept = graph.begin
    initializers = (field for field in _fields(content, graph.begin, graph.end) if field.number == INITIALIZER)
    for index, field in enumerate(initializers):
        if index not in weights:
            continue
        raw, weight = _only(content, field.begin, field.end, RAW_DATA), weights[index]
        head = _head(RAW_DATA, len(weight))
        grown = _head(INITIALIZER, field.end - field.begin - (raw.end - raw.start) + len(head) + len(weight))
        pieces += [content[kept : field.start], grown, content[field.begin : raw.start], head, weight, content[raw.end : field.end]]
        kept = field.end
    pieces.append(content[kept : graph.end])
    return [content[: graph.start], _head(GRAPH, sum(map(len, pieces))), *pieces, content[graph.end :]]


def _only(content: Buffer, begin: int, end: int, number: int) -> _Field:
    found = [field for field in _fields(content, begin, end) if field.number == number]
    if len(found) != 1:
        raise ValueError(f"found {len(found)} fields {number}, expected one")
    return found[0]


def _plain_raw_data(content: Buffer, tensor: _Field) -> _Field | None:
    """The raw data of a tensor that has nothing but that, a name, a type and dimensions."""
    fields = list(_fields(content, tensor.begin, tensor.end))
    raw = [field for field in fields if field.number == RAW_DATA]
    return raw[0] if len(raw) == 1 and all(field.number in PLAIN_FIELDS for field in fields) else None


def _fields(content: Buffer, begin: int, end: int) -> Iterator[_Field]:
    """Yield the fields of the message that lies between `begin` and `end`."""
    at = begin
    while at < end:
        key, payload = _varint(content, at, end)
        match key & 7:
            case 2:  # DELIMITED
                size, payload = _varint(content, payload, end)
                after = payload + size
            case 0:  # VARINT
                _, after = _varint(content, payload, end)
            case 1:
                after = payload + 8
            case 5:
                after = payload + 4
            case kind:
                raise ValueError(f"found a field of kind {kind}")
        if after > end:
            raise ValueError("found a field that ends behind its message")
        yield _Field(key >> 3, at, payload, after)
        at = after


def _varint(content: Buffer, at: int, end: int) -> tuple[int, int]:
    """The number that stands at `at`, and where it ends."""
    number = shift = 0
    while at < end and shift < 64:
        byte = content[at]
        number |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return number, at
        shift += 7
    raise ValueError("found a number without an end")


def _head(number: int, size: int) -> bytes:
    """What stands before the `size` bytes of field `number`."""
    return _packed(number << 3 | DELIMITED) + _packed(size)


def _packed(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)
