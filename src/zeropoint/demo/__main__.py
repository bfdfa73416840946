"""`make demo`: a network that reads handwritten digits, quantized for three targets and judged on digits that it never saw."""

from __future__ import annotations

from zeropoint.api import quantize
from zeropoint.demo import load_digits

TARGETS = ("tensorrt", "onnxruntime", "openvino")
HEADERS = ("target", "FP32 accuracy", "INT8 accuracy", "agreement", "SQNR", "FP32 size", "INT8 size", "INT8 / FP32 latency")


def main() -> None:
    """Print one line for each target."""
    digits = load_digits()
    lines = [HEADERS]
    for target in TARGETS:
        evidence = quantize(digits.model, data=digits.calibration, target=target, eval_data=digits.test, labels=digits.test_labels).evidence
        output, latency = evidence.fidelity[0], evidence.latency
        lines.append(
            (
                target,
                f"{output.float_accuracy:.1%}",
                f"{output.accuracy:.1%}",
                f"{output.agreement:.1%}",
                f"{output.sqnr_db:.1f} dB",
                f"{evidence.float_bytes / 1e3:.0f} kB",
                f"{evidence.quantized_bytes / 1e3:.0f} kB",
                f"{latency.ratio:.2f} on {latency.runtime}" if latency else "runtime not here",
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


if __name__ == "__main__":
    main()
