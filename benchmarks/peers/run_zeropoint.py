"""Quantize by zeropoint, in the project's own environment; method: the target; options: arguments of `quantize`."""

from __future__ import annotations

import importlib
from pathlib import Path

from protocol import Cycled, Job, main

import zeropoint
from zeropoint.api import quantize


def run(job: Job, feeds: Cycled) -> None:
    """Quantize without judging the result, as the peers do; that the file loads and keeps its target's rules is checked all the same."""
    quantize(job.model, data=feeds, target=job.method, samples=len(feeds), evaluate=False, **job.options).save(job.output)


if __name__ == "__main__":
    # Imports are measured for nobody, and zeropoint makes some where they are used. A library in C beside a module is not imported.
    for path in sorted(Path(zeropoint.__path__[0]).rglob("*.py")):
        name = ".".join(path.relative_to(Path(zeropoint.__path__[0]).parent).with_suffix("").parts).removesuffix(".__init__")
        if not name.startswith(("zeropoint.cli", "zeropoint.demo", "zeropoint.__main__")):
            importlib.import_module(name)
    main(run, "zeropoint", "onnx", "onnx-ir")
