"""What each refinement brings at the effort `best` for 4-bit weights, with PyTorch: `python benchmarks/reconstruction.py NAME...`.

The reference networks named are quantized for TensorRT from all three draws of their calibration samples, and judged on those that
zeropoint itself sets aside; the evaluation samples are not used. --device cuda runs it on a GPU.
"""

from __future__ import annotations

import argparse
import time
from itertools import chain

import numpy as np
from reference import DRAWS, calibration_draw, references

import zeropoint as zp


def main() -> None:
    """Quantize, and print a line for each refinement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=["cifar_resnet20", "cifar_mobilenetv3s"])
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    for reference in references(options.names):
        feeds = list(chain.from_iterable(calibration_draw(reference, draw) for draw in range(DRAWS)))
        data = {name: np.concatenate([feed[name] for feed in feeds]) for name in feeds[0]}
        start = time.perf_counter()
        result = zp.quantize(
            reference.model_path,
            data=data,
            target="tensorrt",
            samples=len(feeds),
            weight_format="int4",
            effort="best",
            provider=f"torch:{options.device}",
            evaluate=False,
        )
        print(f"{reference.name}: {len(feeds)} samples, {time.perf_counter() - start:.0f} s")
        for step in result.plan.steps:
            kept = "kept" if step.kept else "not kept"
            print(f"  {step.name:<15} {step.before_db:6.2f} dB -> {step.after_db:6.2f} dB on {step.samples} set aside, {kept}", flush=True)


if __name__ == "__main__":
    main()
