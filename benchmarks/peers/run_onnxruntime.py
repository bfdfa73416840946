"""Quantize by onnxruntime.quantization: pre-processed, uint8 activations, int8 weights per channel; method: MinMax, Entropy, Percentile."""

from __future__ import annotations

import tempfile
from pathlib import Path

from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process
from protocol import Cycled, Feed, Job, main


class Reader(CalibrationDataReader):
    """Hands out one sample at a time."""

    def __init__(self, feeds: Cycled) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Feed | None:
        """Return the next sample, or None after the last."""
        return next(self._feeds, None)


def run(job: Job, feeds: Cycled) -> None:
    """Pre-process, calibrate, quantize."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # On MiniLM its symbolic shape inference raises "Incomplete symbolic shape inference".
        quant_pre_process(job.model, str(prepared), skip_symbolic_shape=Path(job.model).stem == "minilm")
        quantize_static(
            prepared,
            job.output,
            Reader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod[job.method],
        )


if __name__ == "__main__":
    main(run, "onnx")
