"""Results to report on that are made without a calibration: networks of any length, and with names that try to break out of a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from zeropoint.data import InputInfo, Samples, open_data
from zeropoint.evaluate.evidence import Coverage, Evidence
from zeropoint.evaluate.fidelity import compare_outputs
from zeropoint.evaluate.measure import Candidate, Material
from zeropoint.graph.load import load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import open_session
from zeropoint.notes import Note
from zeropoint.numerics.affine import qparams_from_range
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerChannel, Spec
from zeropoint.plan import Entry, Plan, Provenance, Reader, Step, numbers
from zeropoint.recipe import Recipe
from zeropoint.statistics.tensor import observe

ATTACK = '</script><script>alert(1)</script><img src=x onerror="alert(1)">/"quoted"/\'single\'/&amp;{{7*7}}/back\\slash'
WIDTH = 4


@dataclass(frozen=True)
class Subject:
    """What a report is made of: as a `Result`, less the file."""

    plan: Plan
    evidence: Evidence
    notes: tuple[Note, ...]
    material: Material


def chain(length: int, *, prefix: str = "layer") -> onnx.ModelProto:
    """Return MatMul, Relu, MatMul, Relu, ...: `length` nodes, each called `prefix` and its number."""
    weight = numpy_helper.from_array(np.eye(WIDTH, dtype=np.float32) * 0.9 + 0.05, f"{prefix}/weight")
    nodes = []
    for i in range(length):
        name, read = f"{prefix}{i}", f"{prefix}{i - 1}/out" if i else f"{prefix}/in"
        nodes.append(helper.make_node("Relu" if i % 2 else "MatMul", [read] if i % 2 else [read, weight.name], [f"{name}/out"], name=name))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", WIDTH]) for name in (f"{prefix}/in", f"{prefix}{length - 1}/out")]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def entry(tensor: str, readers: tuple[Reader, ...], range: tuple[float, float] = (0.0, 2.0)) -> Entry:
    """Return a uint8 entry for an activation."""
    scale, zero_point = numbers(qparams_from_range(*range, spec=Spec(FORMATS["uint8"], symmetric=False)))
    return Entry(
        tensor=tensor,
        role="activation",
        format="uint8",
        symmetric=False,
        range=range,
        scale=scale,
        zero_point=zero_point,
        solver="mse",
        reason="mse 40.0 dB",
        readers=readers,
    )


def weight_entry(tensor: str, readers: tuple[Reader, ...]) -> Entry:
    """Return an int8 entry for the weight of a chain, by output channel."""
    spec = Spec(FORMATS["int8"], symmetric=True, granularity=PerChannel(1))
    scale, zero_point = numbers(qparams_from_range(np.full(WIDTH, -0.95), np.full(WIDTH, 0.95), spec=spec))
    fields = {"role": "weight", "format": "int8", "symmetric": True, "axis": 1, "solver": "mse", "reason": "4 output channels"}
    return Entry(tensor=tensor, scale=scale, zero_point=zero_point, readers=readers, **fields)  # type: ignore[arg-type]


def judges(model: onnx.ModelProto, count: int = 6) -> Samples:
    rng = np.random.default_rng(0)
    info = InputInfo(model.graph.input[0].name, np.dtype(np.float32), (None, WIDTH))
    return open_data(rng.random((count, WIDTH), np.float32), [info])


def subject(length: int = 6, *, prefix: str = "layer", judged: bool = True) -> Subject:
    """Return a chain of which every MatMul reads codes, with one step and notes, all of which name the prefix."""
    model = chain(length, prefix=prefix)
    prepared = load(model.SerializeToString())
    prepare(prepared)
    matmuls = [f"{prefix}{i}" for i in range(0, length, 2)]
    tensors = [f"{prefix}{i - 1}/out" if i else f"{prefix}/in" for i in range(0, length, 2)]
    entries = [entry(tensor, (Reader(node, 0),)) for tensor, node in zip(tensors, matmuls, strict=True)]
    entries.append(weight_entry(f"{prefix}/weight", tuple(Reader(node, 1) for node in matmuls)))
    note = Note(matmuls[-1], f"stays for the sake of {prefix}", kind="float")
    step = Step(name="smoothing", before_db=30.0, after_db=31.5, samples=4, kept=True, detail=f"scaled {prefix}")
    made = Provenance(model_sha256="ab" * 32, calibration_data=f"4 of {prefix}", solver="mse", seed=7)
    plan = Plan(target="tensorrt", entries=tuple(entries), steps=(step,), notes=(note,), provenance=made)
    quantized = materialize(prepared, plan)
    samples = judges(model) if judged else None
    fidelity = compare_outputs(open_session(prepared).run, open_session(quantized).run, samples) if samples is not None else ()
    evidence = Evidence(float_bytes=4000, quantized_bytes=1000, coverage=Coverage(3, 4), fidelity=fidelity)
    rng = np.random.default_rng(1)
    seen = {tensor: observe(np.abs(rng.standard_normal(400)).astype(np.float32)) for tensor in tensors}
    candidate = Candidate(original=model.SerializeToString(), prepared=prepared, quantized=quantized, plan=plan)
    return Subject(plan, evidence, (note,), Material(candidate=candidate, recipe=Recipe(), statistics=seen, judges=samples, labels=None))
