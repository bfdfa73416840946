"""What ONNX Runtime's own quantizer writes with its defaults, judged for TensorRT."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

import zeropoint as zp
from zeropoint.demo import load_digits
from zeropoint.rules import Lint


class Digits(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, count: int) -> None:
        self.feeds: Iterator[dict[str, Any]] = iter([{"image": image[None]} for image in load_digits().calibration[:count]])

    def get_next(self) -> dict[str, Any] | None:
        return next(self.feeds, None)


def linted(folder: Path, **options: Any) -> Lint:
    path = folder / "quantized.onnx"
    quantize_static(load_digits().model, path, Digits(4), **options)
    return zp.lint(path, target="tensorrt")


def test_defaults_have_unsigned_codes_zero_points_and_int32_biases(tmp_path: Path) -> None:
    found = linted(tmp_path, activation_type=QuantType.QUInt8)
    rules = {finding.rule for finding in found.findings}
    assert {"signed-codes", "zero-points", "float-bias"} <= rules
    biases = [finding for finding in found.findings if finding.rule == "float-bias"]
    quantized = onnx.load(tmp_path / "quantized.onnx")
    assert {finding.node for finding in biases} == {
        node.name
        for node in quantized.graph.node
        if node.op_type == "DequantizeLinear"
        and any(t.name == node.input[0] and t.data_type == onnx.TensorProto.INT32 for t in quantized.graph.initializer)
    }
    assert all("QuantizeBias=False" in finding.remedy for finding in biases)
    assert found.quantized


@pytest.mark.parametrize(
    ("options", "mended"),
    [
        pytest.param({"QuantizeBias": False}, "float-bias", id="float-bias"),
        pytest.param({"ActivationSymmetric": True}, "zero-points", id="symmetric"),
    ],
)
def test_an_option_that_follows_the_remedy_mends_it(tmp_path: Path, options: dict[str, bool], mended: str) -> None:
    found = linted(tmp_path, activation_type=QuantType.QInt8, extra_options=options)
    assert mended not in {finding.rule for finding in found.findings}


def test_ours_breaks_none(tmp_path: Path) -> None:
    digits = load_digits()
    zp.quantize(digits.model, data=digits.calibration[:4], target="tensorrt", evaluate=False).save(tmp_path / "ours.onnx")
    assert zp.lint(tmp_path / "ours.onnx", target="tensorrt") == Lint(findings=(), quantized=True)
