from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from zeropoint.graph.wire import LARGE, cut_weights, insert_weights, is_plain

FLOATS = LARGE // 4
SIZES = {"small": FLOATS - 1, "at the limit": FLOATS, "of two bytes' length": 4000, "of four bytes' length": 600_000}


def model(*sizes: int, **fields: Any) -> onnx.ModelProto:
    weights = [numpy_helper.from_array(np.arange(size, dtype=np.float32), f"w{number}") for number, size in enumerate(sizes)]
    inputs, outputs = ([helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N"])] for name in ("x", "y"))
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "net", inputs, outputs, weights, doc_string="behind the weights")
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="a test", **fields)


def emptied(proto: onnx.ModelProto, indices: list[int]) -> onnx.ModelProto:
    """The model with no bytes for the raw data of some initializers, as protobuf makes it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    for index in indices:
        copy.graph.initializer[index].raw_data = b""
    return copy


# --- there and back -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(size,) for size in SIZES.values()] + [(2000, 3, 5000), ()], ids=[*SIZES, "several", "none"])
def test_what_is_cut_out_lies_where_it_is_said_to(sizes: tuple[int, ...]) -> None:
    proto = model(*sizes)
    content = proto.SerializeToString()
    skeleton, cuts = cut_weights(content)
    found = onnx.ModelProto.FromString(skeleton)
    assert [cut.index for cut in cuts] == [index for index, size in enumerate(sizes) if size >= FLOATS]
    for cut in cuts:
        assert not found.graph.initializer[cut.index].HasField("raw_data")
        found.graph.initializer[cut.index].raw_data = content[cut.offset : cut.offset + cut.size]
    assert found == proto
    assert cut_weights(memoryview(content))[0] == skeleton


@pytest.mark.parametrize("sizes", [(size,) for size in SIZES.values()] + [(2000, 3, 5000), ()], ids=[*SIZES, "several", "none"])
def test_what_is_put_in_gives_the_bytes_that_protobuf_writes(sizes: tuple[int, ...]) -> None:
    proto = model(*sizes, doc_string="before or behind the graph")
    expected = proto.SerializeToString(deterministic=True)
    for indices in ([*range(len(sizes))], [*range(0, len(sizes), 2)]):
        weights = {index: memoryview(proto.graph.initializer[index].raw_data) for index in indices}
        pieces = insert_weights(emptied(proto, indices).SerializeToString(deterministic=True), weights)
        assert b"".join(pieces) == expected


# --- what is left to protobuf ---------------------------------------------------------------------------------------------


def test_tensors_that_say_more_than_their_data_stay_whole() -> None:
    proto = model(2000, 2000, 2000)
    proto.graph.initializer[0].doc_string = "a remark"
    entry = proto.graph.initializer[1].metadata_props.add()
    entry.key, entry.value = "key", "value"
    assert [cut.index for cut in cut_weights(proto.SerializeToString())[1]] == [2]


def test_large_tensors_without_raw_data_stay_whole() -> None:
    proto = model(2000)
    proto.graph.initializer.append(helper.make_tensor("numbers", TensorProto.FLOAT, [3000], np.ones(3000)))
    assert [cut.index for cut in cut_weights(proto.SerializeToString())[1]] == [0]


CONTENT = model(2000).SerializeToString()
BROKEN = {
    "empty": b"",
    "no graph": onnx.ModelProto(ir_version=8).SerializeToString(),
    "two graphs": CONTENT + CONTENT,
    "cut off in the weights": CONTENT[:3000],
    "cut off in a number": b"\x3a\xff",
    "a number without an end": b"\x08" + b"\xff" * 20,
    "a group": b"\x0b\x0c",
    "text": b"this is no network",
}


@pytest.mark.parametrize("content", BROKEN.values(), ids=BROKEN)
def test_other_bytes_are_an_error(content: bytes) -> None:
    with pytest.raises(ValueError, match="found"):
        cut_weights(content)


@pytest.mark.parametrize("end", range(0, len(CONTENT), 97))
def test_no_cut_off_file_is_taken_for_a_whole_one(end: int) -> None:
    """Unless all that is missing stands behind the graph: then protobuf has no complaint either."""
    try:
        skeleton, _ = cut_weights(CONTENT[:end])
    except ValueError:
        return
    assert onnx.ModelProto.FromString(CONTENT[:end]).graph.name == onnx.ModelProto.FromString(skeleton).graph.name


# --- types ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "plain"),
    [
        (ir.DataType.FLOAT, True),
        (ir.DataType.FLOAT16, True),
        (ir.DataType.INT8, True),
        (ir.DataType.BOOL, True),
        (ir.DataType.BFLOAT16, False),
        (ir.DataType.FLOAT8E4M3FN, False),
        (ir.DataType.INT4, False),
        (ir.DataType.STRING, False),
        (ir.DataType.COMPLEX64, False),
        (ir.DataType.UNDEFINED, False),
    ],
    ids=lambda value: value.name if isinstance(value, ir.DataType) else str(value),
)
def test_plain_types_are_numpy_s_own(dtype: ir.DataType, plain: bool) -> None:
    assert is_plain(dtype) is plain
