"""Quantize by onnxruntime.quantization, pre-processed; method: MinMax, Entropy, Percentile.

Activations are uint8, or with the option signed int8 around zero, as TensorRT wants them. Weights are int8, per channel unless the option
per_channel is false.
"""

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
    signed = bool(job.options.get("signed"))
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        # On these its symbolic shape inference raises "Incomplete symbolic shape inference".
        quant_pre_process(job.model, str(prepared), skip_symbolic_shape=Path(job.model).stem in ("magika", "minilm", "ppocr-rec"))
        quantize_static(
            prepared,
            job.output,
            Reader(feeds),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QInt8 if signed else QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=bool(job.options.get("per_channel", True)),
            calibrate_method=CalibrationMethod[job.method],
            extra_options={"ActivationSymmetric": signed},
        )


if __name__ == "__main__":
    main(run, "onnx")
