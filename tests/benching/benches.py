"""Benchmarks made up for tests."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from zeropoint.benching.bench import Bench, Machine, OperatorTime, Profile, Ratio, SlowNode, Timing

PROFILE = Profile(
    runs=5,
    milliseconds=3.5,
    operators=(
        OperatorTime(operator="Conv", nodes=2, milliseconds=3.0, share=0.857),
        OperatorTime(operator="Gemm", nodes=1, milliseconds=0.5, share=0.143),
    ),
    slowest=(SlowNode(node="/stem/<b>conv[0]", operator="Conv", milliseconds=2.0, share=0.571, in_integers=False),),
    integer_share=0.25,
)
FIRST = Timing(
    file="net.onnx",
    bytes=4_000_000,
    runtime="onnxruntime",
    runtime_version="1.0",
    provider="cpu",
    threads=1,
    batch=2,
    shapes={"x": (2, 3)},
    rounds=8,
    runs=80,
    median_ms=4.0,
    p90_ms=5.0,
    p99_ms=6.0,
    throughput=500.0,
    ratio=None,
    noise=0.05,
    peak_bytes=20_000_000,
    joules=None,
    profile=PROFILE,
)
SECOND = replace(
    FIRST, file="net.int8.onnx", bytes=1_000_000, median_ms=2.0, throughput=1000.0, ratio=Ratio(value=0.5, low=0.48, high=0.52)
)
MACHINE = Machine(system="Linux", architecture="x86_64", processor="A fast one", cores=4, instruction_sets=("AVX2",))


def bench(*timings: Timing, **changed: Any) -> Bench:
    """A benchmark of `timings`, or of a float and a quantized network."""
    made = Bench(zeropoint="0.1", machine=MACHINE, timings=timings or (FIRST, SECOND), energy="not measurable here: no counter", notes=())
    return replace(made, **changed)
