"""The most memory that loading and running a network takes, in a process of its own, which this file is when it is run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import psutil

from zeropoint.errors import ModelError
from zeropoint.runtime import open_runtime, warm_runtime
from zeropoint.runtime.onnxruntime import CPU

RUNS = 2  # the first lays out the memory of a run, the second takes what is kept between runs
LONGEST_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the process is to load and run; model "" for the runtime alone."""

    model: str
    runtime: str
    feed: str
    inputs: tuple[str, ...]
    threads: int
    provider: str


def peak_bytes(
    model: Path | None, runtime: str, feed: Mapping[str, npt.NDArray[np.generic]], *, threads: int = 0, provider: str = CPU
) -> int:
    """Return the most resident memory of a process that loads `model` and runs it twice on `feed`.

    model: None for what the runtime and the feed take without a network.

    Raises:
        ModelError: the process failed; the message holds its last words.
    """
    with TemporaryDirectory(prefix="zeropoint-") as folder:
        inputs = Path(folder) / "feed.npz"
        with inputs.open("wb") as file:
            np.savez(file, *feed.values())
        job = Job(model=str(model or ""), runtime=runtime, feed=str(inputs), inputs=tuple(feed), threads=threads, provider=provider)
        command = [sys.executable, "-m", "zeropoint.runtime.peak_memory", json.dumps(asdict(job))]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST_SECONDS, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ModelError(f"peak memory: the process that measures it did not end: {error}") from None
    if done.returncode != 0 or not done.stdout.strip().isdecimal():
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"peak memory: the process that measures it failed: {said[:300]}")
    return int(done.stdout)


def measure(job: Job) -> int:
    """Do the job in this process, and return the most resident memory that it ever had, in bytes."""
    with np.load(job.feed, allow_pickle=False) as archive:
        feed = {name: archive[f"arr_{number}"] for number, name in enumerate(job.inputs)}
    warm_runtime(job.runtime)
    if job.model:
        session = open_runtime(job.runtime, Path(job.model), threads=job.threads, provider=job.provider)
        assert session is not None  # it was opened by who asks
        for _ in range(RUNS):
            session.run(feed)
    return _peak()


def _peak() -> int:
    if sys.platform == "linux":  # getrusage would tell that of the process which started this one, where it had more
        told = re.search(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
        if told is not None:
            return int(told[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


if __name__ == "__main__":
    sys.stdout.write(f"{measure(Job(**json.loads(sys.argv[1])))}\n")
