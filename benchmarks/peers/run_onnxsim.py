"""Quantize by onnxsim: every activation, by its extremes."""

from __future__ import annotations

import onnx
from onnxsim.calibration import quantize_static
from protocol import Cycled, Job, main


def run(job: Job, feeds: Cycled) -> None:
    """Calibrate and quantize."""
    onnx.save(quantize_static(job.model, feeds, full_graph=True), job.output)


if __name__ == "__main__":
    main(run, "onnxsim", "onnx")
