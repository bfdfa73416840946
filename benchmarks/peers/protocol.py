"""What every worker of the benchmarks does: read a job, measure one call, print what it took.

A worker is a process of its own, `python run_NAME.py JOB`, in the environment of its peer, which need not hold zeropoint. JOB is a `Job`
as JSON; the answer is one line of JSON on standard output (`measure` says what is in it), and what the peer prints goes to standard error.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, overload

import numpy as np
import numpy.typing as npt
import onnxruntime as ort

Feed = dict[str, npt.NDArray[np.generic]]  # one sample, batch 1, by the input's name
WARM_UPS = 3
LEAST_FORWARD_SECONDS = 2.0  # a short pass is repeated: one of half a second says little on a machine that does other things


@dataclass(frozen=True, slots=True)
class Job:
    """What to quantize, with which of the peer's methods ("" where it has one), on how many samples, and where to write.

    options: what else the peer is told, by the names that its worker says; none for what it does by default.
    """

    model: str
    samples: str
    output: str
    method: str
    count: int
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, eq=False)
class Cycled(Sequence[Feed]):
    """`size` samples, of which only those held take memory: after the last one the first comes again."""

    held: Sequence[Feed]
    size: int

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | list[Feed]:
        if isinstance(index, slice):
            return [self[i] for i in range(self.size)[index]]
        return self.held[range(self.size)[index] % len(self.held)]


def save_samples(path: Path, feeds: Sequence[Feed]) -> None:
    """Write samples as `load_samples` reads them."""
    arrays = {f"{i}/{name}": array for i, feed in enumerate(feeds) for name, array in feed.items()}
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes allow_pickle for one of them


def load_samples(path: str) -> list[Feed]:
    """Read all samples of a file into memory."""
    feeds: dict[int, Feed] = {}
    with np.load(path, allow_pickle=False) as archive:
        for key in archive.files:
            index, _, name = key.partition("/")
            feeds.setdefault(int(index), {})[name] = archive[key]
    return [feeds[i] for i in sorted(feeds)]


def main(call: Callable[[Job, Cycled], object], *packages: str) -> None:
    """Run the job of the command line by `call`, and print the measurement with the versions of `packages`."""
    answer = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    job = Job(**json.loads(sys.argv[1]))
    found = measure(call, job) | {"versions": {name: version(name) for name in ("onnxruntime", *packages)}}
    print(json.dumps(found), file=answer, flush=True)


def measure(call: Callable[[Job, Cycled], object], job: Job) -> dict[str, Any]:
    """Return what `call` took, from the file of the model to the file that it wrote, without the imports, which come before.

    wall_s; cpu_s: user and system, with those of child processes that have ended; before_mb, peak_mb: resident memory in 1e6 bytes,
    before the call (imports and samples) and at most until its end; children_mb: the largest child's; forward_s: the plain run of the
    float network over the same samples in this process, right after the call.
    """
    feeds = Cycled(load_samples(job.samples), job.count)
    before, cpu, start = resident_megabytes("VmRSS"), cpu_seconds(), time.perf_counter()
    call(job, feeds)
    wall, cpu, peak = time.perf_counter() - start, cpu_seconds() - cpu, resident_megabytes("VmHWM")
    gc.collect()  # sessions of the call hold threads, which spin beside those of the plain run
    return {
        "wall_s": wall,
        "cpu_s": cpu,
        "before_mb": before,
        "peak_mb": peak,
        "children_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6,
        "forward_s": forward_seconds(job.model, feeds),
    }


def forward(model: str, feeds: Sequence[Feed]) -> float:
    """Run the samples through the network in ONNX Runtime on 2 threads, and return the seconds that they took, after the warm-ups."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = 2
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    for index in range(WARM_UPS):
        session.run(None, feeds[index % len(feeds)])
    start = time.perf_counter()
    for feed in feeds:
        session.run(None, feed)
    return time.perf_counter() - start


def forward_seconds(model: str, feeds: Sequence[Feed]) -> float:
    """Return the median of as many plain runs as it takes to run for two seconds."""
    passes: list[float] = []
    while sum(passes) < LEAST_FORWARD_SECONDS:
        passes.append(forward(model, feeds))
    return statistics.median(passes)


def cpu_seconds() -> float:
    """Return the user and system time of this process and its children that have ended."""
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def resident_megabytes(field: str) -> float:
    """Return "VmRSS", the resident memory now, or "VmHWM", its peak so far; ru_maxrss would begin with that of the process that forked."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise OSError(f"/proc/self/status: found no {field}, expected a line of it; run this on Linux")
