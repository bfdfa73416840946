"""Quantize every reference network for three targets and print one table of what it cost: `python benchmarks/fidelity.py [NAME...]`.

Each file is loaded and run in ONNX Runtime, which judges it, and in OpenVINO, which must run it too.
"""

from __future__ import annotations

import sys

from reference import references

import zeropoint as zp
from zeropoint.graph.store import serialize
from zeropoint.runtime import open_runtime

TARGETS = ("tensorrt", "onnxruntime", "openvino")


def main(names: list[str]) -> None:
    """Print a line for each network and target."""
    print(
        f"{'network':20} {'target':12} {'SQNR':>8} {'median':>8} {'worst':>8} {'agree':>7} {'FP32':>7} {'INT8':>7} {'size':>5} {'latency':>7} {'ops':>9} lint OpenVINO"
    )
    for reference in references(names):
        for target in TARGETS:
            result = zp.quantize(
                reference.model_path,
                data=list(reference.calibration),
                target=target,
                eval_data=list(reference.evaluation),
                labels=reference.labels if reference.kind == "classifier" else None,
            )
            _show(reference.name, target, result, reference.evaluation[0])


def _show(name: str, target: str, result: zp.api.Result, feed: dict) -> None:
    evidence = result.evidence
    output = evidence.fidelity[0]
    percent = [f"{value:.2%}" if value is not None else "-" for value in (output.agreement, output.float_accuracy, output.accuracy)]
    latency = f"{evidence.latency.ratio:.2f}" if evidence.latency else "-"
    ops = f"{evidence.coverage.quantized}/{evidence.coverage.candidates}"
    try:
        session = open_runtime("openvino", serialize(result.model))
        openvino = "not here" if session is None else "runs" if session.run(feed) else "no output"
    except zp.ModelError as error:
        openvino = str(error)[:80]
    print(
        f"{name:20} {target:12} {output.sqnr_db:8.2f} {output.sqnr_median_db:8.2f} {output.sqnr_worst_db:8.2f} {percent[0]:>7} {percent[1]:>7} "
        f"{percent[2]:>7} {evidence.size_ratio:5.2f} {latency:>7} {ops:>9} {len(evidence.findings):4} {openvino}",
        flush=True,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
