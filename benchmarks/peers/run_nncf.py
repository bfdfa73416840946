"""Quantize by NNCF, at its defaults but for the number of samples; method: onnx or openvino, the backend.

The option transformer says that the model is one, for which it adds SmoothQuant and leaves some operators in float.
"""

from __future__ import annotations

import nncf
import onnx
import openvino as ov
from protocol import Cycled, Job, main


def run(job: Job, feeds: Cycled) -> None:
    """Calibrate, quantize, correct biases."""
    model = onnx.load(job.model) if job.method == "onnx" else ov.Core().read_model(job.model)
    kind = nncf.ModelType.TRANSFORMER if job.options.get("transformer") else None
    quantized = nncf.quantize(model, nncf.Dataset(feeds), subset_size=len(feeds), model_type=kind)
    if job.method == "onnx":
        onnx.save(quantized, job.output)
    else:
        ov.save_model(quantized, job.output)


if __name__ == "__main__":
    main(run, "nncf", "openvino", "onnx")
