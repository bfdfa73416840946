"""Quantize every reference network for three targets and print one table of what it cost: `python benchmarks/fidelity.py [NAME...]`.

Each file is judged in ONNX Runtime on samples that calibration did not see, and run in OpenVINO. SQNR, its median and its worst (the
1st percentile over samples) are those of the first output, in dB; agreement and accuracies are of the largest class, where there is
one. Size and latency are shares of the float network's, latency on the target's runtime, where that is here.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from reference import Reference, references

import zeropoint as zp
from zeropoint.graph.store import serialize
from zeropoint.result import Result
from zeropoint.runtime import open_runtime

TARGETS = ("tensorrt", "onnxruntime", "openvino")
COLUMNS = ("network", "target", "SQNR", "median", "worst", "agree", "FP32", "INT8", "size", "latency", "integer ops", "lint", "OpenVINO")
WIDTHS = (18, 11, 6, 6, 6, 6, 6, 6, 5, 7, 11, 4, 8)


def main(names: Sequence[str]) -> None:
    """Print a line for each network and target."""
    _print_row(COLUMNS)
    for reference in references(names):
        for target in TARGETS:
            result = zp.quantize(
                reference.model_path,
                data=list(reference.calibration),
                target=target,
                eval_data=list(reference.evaluation),
                labels=reference.labels if reference.kind == "classifier" else None,
                effort="fast",
            )
            _print_row((reference.name, target, *_figures(result), _openvino(result, reference)))


def _figures(result: Result) -> tuple[str, ...]:
    evidence = result.evidence
    output = evidence.fidelity[0]
    decibels = (f"{value:.2f}" for value in (output.sqnr_db, output.sqnr_median_db, output.sqnr_worst_db))
    shares = (output.agreement, output.float_accuracy, output.accuracy)
    percents = (f"{value:.2%}".removesuffix("%") if value is not None else "-" for value in shares)
    latency = f"{evidence.latency.ratio:.2f}" if evidence.latency is not None else "-"
    operators = f"{evidence.coverage.quantized} of {evidence.coverage.candidates}"
    return (*decibels, *percents, f"{evidence.size_ratio:.2f}", latency, operators, str(len(evidence.findings)))


def _openvino(result: Result, reference: Reference) -> str:
    try:
        session = open_runtime("openvino", serialize(result.model))
        return "not here" if session is None else "runs" if session.run(reference.evaluation[0]) else "no output"
    except zp.ModelError:
        return "fails" if _float_runs(reference) else "fails, and so does the float network"


def _float_runs(reference: Reference) -> bool:
    try:
        return open_runtime("openvino", reference.model_path.read_bytes()) is not None
    except zp.ModelError:
        return False


def _print_row(cells: Sequence[str]) -> None:
    print("  ".join(cell.ljust(width) for cell, width in zip(cells, WIDTHS, strict=True)).rstrip(), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
