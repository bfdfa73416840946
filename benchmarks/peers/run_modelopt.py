"""Quantize by NVIDIA's Model Optimizer on the CPU; method: max or entropy."""

from __future__ import annotations

from modelopt.onnx.quantization import quantize
from onnxruntime.quantization import CalibrationDataReader
from protocol import Cycled, Feed, Job, main


class Reader(CalibrationDataReader):
    """Hands out one sample at a time."""

    def __init__(self, feeds: Cycled) -> None:
        self._feeds, self._next = feeds, 0

    def get_next(self) -> Feed | None:
        """Return the next sample, or None after the last."""
        self._next += 1
        return self._feeds[self._next - 1] if self._next <= len(self._feeds) else None

    def get_first(self) -> Feed:
        """Return the first sample, from which it learns the shapes of inputs whose axes are free."""
        return self._feeds[0]

    def rewind(self) -> None:
        """Begin anew."""
        self._next = 0


def run(job: Job, feeds: Cycled) -> None:
    """Calibrate and quantize; what stays in float stays float32, as with the other peers."""
    quantize(
        job.model,
        quantize_mode="int8",
        calibration_data_reader=Reader(feeds),
        calibration_method=job.method,
        calibration_eps=["cpu"],
        high_precision_dtype="fp32",
        output_path=job.output,
    )


if __name__ == "__main__":
    main(run, "nvidia-modelopt", "onnx", "torch")
