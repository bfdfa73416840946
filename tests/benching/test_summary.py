from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from tests.benching.benches import FIRST, SECOND, bench

from zeropoint.benching.bench import Bench, Ratio, Regression
from zeropoint.benching.summary import is_bad, verdict
from zeropoint.notes import Note

SLOWER = Regression(file="a/net.int8.onnx", runtime="onnxruntime", figure="ratio", before=0.5, after=0.6, tolerance=0.1)


def with_ratio(value: float, low: float, high: float, **changed: Any) -> Bench:
    return bench(FIRST, replace(SECOND, ratio=Ratio(value=value, low=low, high=high), **changed))


@pytest.mark.parametrize(
    ("found", "text", "bad"),
    [
        (with_ratio(0.5, 0.48, 0.52), "net.int8.onnx is 2.0x faster on onnxruntime", False),
        (with_ratio(1.3, 1.2, 1.4), "net.int8.onnx is SLOWER: 1.30 times the latency of the first on onnxruntime", True),
        (with_ratio(1.05, 0.9, 1.4), "net.int8.onnx is about as fast as the first on onnxruntime", False),
        (with_ratio(0.95, 0.9, 1.0), "net.int8.onnx is about as fast as the first on onnxruntime", False),
        (with_ratio(0.95, 0.94, 0.96), "net.int8.onnx is about as fast as the first on onnxruntime", False),
        (with_ratio(1.05, 1.04, 1.06), "net.int8.onnx is about as fast as the first on onnxruntime", False),
        (with_ratio(0.94, 0.93, 0.95), "net.int8.onnx is 1.1x faster on onnxruntime", False),
        (with_ratio(1.06, 1.04, 1.07), "net.int8.onnx is SLOWER: 1.06 times the latency of the first on onnxruntime", True),
        (with_ratio(1.4, 1.0, 1.5), "net.int8.onnx is about as fast as the first on onnxruntime", False),
        (bench(FIRST), "net.onnx takes 4 ms on onnxruntime", False),
        (bench(FIRST, replace(SECOND, ratio=None)), "net.onnx takes 4 ms on onnxruntime; net.int8.onnx takes 2 ms on onnxruntime", False),
        (bench(against="old.json"), "no slower than in old.json; net.int8.onnx is 2.0x faster on onnxruntime", False),
        (
            bench(against="old.json", regressions=(SLOWER, replace(SLOWER, figure="latency"))),
            "SLOWER than in old.json: net.int8.onnx on onnxruntime; net.int8.onnx is 2.0x faster on onnxruntime",
            True,
        ),
        (bench(notes=(Note("noise", "x", kind="warning"),)), "NOISY MACHINE; net.int8.onnx is 2.0x faster on onnxruntime", False),
    ],
)
def test_a_verdict_has_the_bad_news_first(found: Bench, text: str, bad: bool) -> None:
    assert (verdict(found), is_bad(found)) == (text, bad)
