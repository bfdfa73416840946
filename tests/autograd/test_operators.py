"""Every operator against ONNX's own node cases: values, types, shapes, and that nothing on a device is waited for."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from tests.autograd.onnx_cases import NodeCase, all_cases

from zeropoint.autograd.operators import OPERATORS, bound
from zeropoint.autograd.operators.tensors import tensor_of

# Why a case is left out, by a pattern of its whole name.
LEFT_OUT = {
    r"test_.*_uint(16|32|64)|test_bitwise_not_3d": "torch computes nothing in these types",
    r"test_cast.*(U?INT[24]|FLOAT4E2M1|FLOAT8E8M0)(_expanded)?|test_cast.*(FLOAT4E2M1|FLOAT8E8M0)_to.*": "torch lacks the type",
    r"test_cast.*_no_saturate_.*": "refused: torch saturates",
    r"test_(de)?quantizelinear_float4e2m1": "torch lacks the type",
    r"test_equal_string.*": "strings",
    r"test_batchnorm_.*_training_mode|test_training_dropout(_default)?(_mask)?": "refused: training",
    r"test_lstm_with_peepholes": "refused: torch has no peepholes",
    r"test_resize_.*_antialias": "refused: torch filters otherwise",
    r"test_resize_downsample_scales_(linear|cubic)_align_corners": "aligns a length that is not whole; runtimes align the whole one",
    r"test_spacetodepth_(dcr|crd)_mode_example": "opset 28",
    r"test_dropout_random_old": "opset 11",
}
WITHOUT_CASES = {"GlobalLpPool"}
# Rounding to a few bits between the steps of a fused kernel: the tolerance of a value near 1.
ATOL = {torch.float16: 2e-3, torch.bfloat16: 2e-2}

every_operator = pytest.mark.parametrize("name", sorted(OPERATORS))


def reason(case: NodeCase) -> str | None:
    return next((why for pattern, why in LEFT_OUT.items() if re.fullmatch(pattern, case.name)), None)


def taken(name: str) -> list[NodeCase]:
    return [case for case in all_cases()[name] if reason(case) is None]


def difference(actual: Any, expected: np.ndarray, case: NodeCase) -> str:
    """What differs; empty where nothing does."""
    wanted = tensor_of(expected)
    if (actual.dtype, actual.shape) != (wanted.dtype, wanted.shape):
        return f"{actual.dtype} {tuple(actual.shape)}, expected {wanted.dtype} {tuple(wanted.shape)}"
    try:
        atol = max(case.atol, ATOL.get(wanted.dtype, 0.0))
        np.testing.assert_allclose(actual.double().numpy(), wanted.double().numpy(), rtol=case.rtol, atol=atol)
    except AssertionError as error:
        return str(error)
    return ""


def run(case: NodeCase) -> str:
    actual = bound(case.node, case.opset)(case.tensors())
    pairs = [(a, e) for a, e in zip(actual, case.expected, strict=False) if e is not None]
    assert len(pairs) == sum(e is not None for e in case.expected)
    return "; ".join(filter(None, (difference(a, e, case) for a, e in pairs)))


@every_operator
def test_gives_what_onnx_gives(name: str) -> None:
    assert {case.name: wrong for case in taken(name) if (wrong := run(case))} == {}


def test_no_case_is_left_out_silently() -> None:
    cases = [case for entries in all_cases().values() for case in entries]
    unused = [pattern for pattern in LEFT_OUT if not any(re.fullmatch(pattern, case.name) for case in cases)]
    assert unused == []
    assert {name for name in OPERATORS if not taken(name)} == WITHOUT_CASES
    assert sum(reason(case) is not None for case in cases) < 0.15 * len(cases)
    assert sum(len(taken(name)) for name in OPERATORS) > 1000


# Inputs that the operators read as numbers, which stay on the CPU.
ON_CPU: dict[str, set[int]] = {
    "CastLike": {1},
    "Dropout": {1, 2},
    "OneHot": {1},
    "Pad": {1, 2, 3},
    "Resize": {1, 2, 3},
}
# What they give depends on the data (Compress, NonZero), is a shape, or comes from nothing.
NOT_ON_A_DEVICE = {"Compress", "NonZero", "Shape", "Size", "Constant", "ConstantOfShape", "Range"}
on_a_device = pytest.mark.parametrize("name", sorted(set(OPERATORS) - NOT_ON_A_DEVICE - WITHOUT_CASES))


def on_device(case: NodeCase, device: str) -> list[Any]:
    """The inputs, floating point on the device and the rest on the CPU; nothing where all of it is."""
    stay = ON_CPU.get(case.node.op_type, set())
    placed = [x if x is None or not x.is_floating_point() or i in stay else x.to(device) for i, x in enumerate(case.tensors())]
    return placed if any(x is not None and x.device.type == device for x in placed) else []


@on_a_device
def test_waits_for_no_device_and_brings_the_rest_there(name: str) -> None:
    """A tensor of the meta device has no data: whoever asks for some fails."""
    wrong = {}
    for case in taken(name):
        if not (inputs := on_device(case, "meta")):
            continue
        outputs: Any = bound(case.node, case.opset)(inputs)
        seen = [(y.device.type, tuple(y.shape)) for y, e in zip(outputs, case.expected, strict=False) if e is not None]
        if seen != [("meta", e.shape) for e in case.expected if e is not None]:
            wrong[case.name] = seen
    assert wrong == {}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@on_a_device
def test_gives_on_a_gpu_what_onnx_gives_and_never_waits_for_it(name: str) -> None:
    for case in taken(name):
        if not (inputs := on_device(case, "cuda")):
            continue
        torch.cuda.set_sync_debug_mode("error")
        try:
            outputs: Any = bound(case.node, case.opset)(inputs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
        pairs = [(y.cpu(), e) for y, e in zip(outputs, case.expected, strict=False) if e is not None]
        assert [(case.name, wrong) for y, e in pairs if (wrong := difference(y, e, case))] == []
