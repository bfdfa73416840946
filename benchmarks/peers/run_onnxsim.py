"""Quantize by onnxsim; options: full_graph, for every activation and not only what weighted operators read; method, for ranges."""

from __future__ import annotations

import onnx
from onnxsim.calibration import quantize_static
from protocol import Cycled, Job, main


def run(job: Job, feeds: Cycled) -> None:
    """Calibrate and quantize."""
    onnx.save(quantize_static(job.model, feeds, **job.options), job.output)


if __name__ == "__main__":
    main(run, "onnxsim", "onnx")
