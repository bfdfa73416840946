"""ONNX's own node cases of one node each whose operator has a translation, as tensors."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np
import onnx
import onnx_ir as ir
from onnx.backend.test.case.node import collect_testcases

from zeropoint.autograd.operators import OPERATORS
from zeropoint.autograd.operators.tensors import tensor_of

FIRST_OPSET, LAST_OPSET = 13, 26  # a case has the opset in which its operator was last changed


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeCase:
    """One node, what it reads and what it gives, as arrays; None is an input that is left out."""

    name: str
    node: ir.Node
    opset: int
    inputs: tuple[np.ndarray | None, ...]
    expected: tuple[np.ndarray | None, ...]
    rtol: float
    atol: float

    def tensors(self) -> list[Any]:
        return [None if x is None else tensor_of(x) for x in self.inputs]


def _array(value: Any) -> np.ndarray:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def _in_places(names: Sequence[str], values: Sequence[Any]) -> tuple[np.ndarray | None, ...]:
    given = iter(values)
    return tuple(_array(next(given)) if name else None for name in names)


@cache
def all_cases() -> dict[str, tuple[NodeCase, ...]]:
    """Every case by operator. The same node under another name, as the body of a function, is one more case."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases compute infinities on purpose
        found: list[Any] = collect_testcases(None)
    cases: dict[str, list[NodeCase]] = {name: [] for name in OPERATORS}
    for case in found:
        protos = case.model.graph.node
        if len(protos) != 1 or protos[0].domain or protos[0].op_type not in OPERATORS:
            continue
        opset = next(entry.version for entry in case.model.opset_import if entry.domain in ("", "ai.onnx"))
        inputs, outputs = case.data_sets[0]
        cases[protos[0].op_type].append(
            NodeCase(
                name=case.name,
                node=next(iter(ir.serde.deserialize_model(case.model).graph)),
                opset=min(max(opset, FIRST_OPSET), LAST_OPSET),
                inputs=_in_places(protos[0].input, inputs),
                expected=_in_places(protos[0].output, outputs),
                rtol=case.rtol or 1e-3,
                atol=case.atol or 1e-7,
            )
        )
    return {name: tuple(entries) for name, entries in cases.items()}
