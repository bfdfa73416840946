"""Run a peer's worker in its own environment, and keep what it answers: what the benchmarks of zeropoint and its peers share."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peers.environments import peer_python
from peers.protocol import Job

from zeropoint.errors import DataError

Record = dict[str, Any]
FOLDER = Path(__file__).resolve().parent / "peers"
LONGEST_SECONDS = 3600


@dataclass(frozen=True, slots=True)
class Peer:
    """Which worker measures it, in which environment ("" for the project's own), by which of its methods, and what it writes.

    options: what else its worker is told, as `Job` has it.
    """

    worker: str
    environment: str = ""
    method: str = ""
    suffix: str = ".onnx"
    options: Mapping[str, Any] = field(default_factory=dict)

    def python(self) -> Path:
        """Return the interpreter that runs it.

        Raises:
            DataError: its environment is not there.
        """
        python = peer_python(self.environment) if self.environment else Path(sys.executable)
        if python is None:
            raise DataError(f"skipped: found no environment {self.environment}; make bench-peers")
        return python

    def run(self, model: Path, samples: Path, output: Path, *, count: int) -> Record:
        """Quantize a network into `output`, and return what that took, as `measure` in peers/protocol.py says.

        Raises:
            DataError: its environment is not there, or it failed, or took longer than an hour.
        """
        job = Job(str(model), str(samples), str(output), self.method, count, dict(self.options))
        return _answer([str(self.python()), str(FOLDER / self.worker), json.dumps(asdict(job))], output.parent)


def _answer(command: Sequence[str], folder: Path) -> Record:
    """Run a worker in `folder`, since ONNX Runtime leaves files where it runs when it fails, and return its answer."""
    # NNCF sends word of its use home from a child process, unless it believes to be in a CI job.
    environment = os.environ | {"CI": "true"}
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=LONGEST_SECONDS, env=environment, cwd=folder)
    except subprocess.TimeoutExpired:
        raise DataError(f"failed: took longer than {LONGEST_SECONDS} s") from None
    if done.returncode < 0:
        raise DataError(f"failed: killed by signal {-done.returncode}, by the system where memory ran out")
    if done.returncode > 0:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["nothing said"]
        raise DataError(f"failed: {said[-1]}")
    record: Record = json.loads(done.stdout)
    return record


def written_bytes(output: Path) -> int | None:
    """Return the size of what a peer wrote as `output`, with what it put beside it, or None where that is nothing."""
    written = [path for path in output.parent.glob(f"{output.stem}*") if path.suffix != ".json"]
    return sum(path.stat().st_size for path in written) if written else None


def append(log: Path, record: Record) -> None:
    """Add a record to a file of them."""
    with log.open("a", encoding="utf-8") as file:
        print(json.dumps(record), file=file)


def machine_record() -> Record:
    """Return what the figures depend on beside the code."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    commit = ["git", "-C", str(FOLDER), "describe", "--always", "--dirty"]
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory_gb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9,
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
        "commit": subprocess.run(commit, capture_output=True, text=True, check=False).stdout.strip() or "unknown",
    }


def machine_text(machine: Record) -> str:
    """Return a line that says where figures came about."""
    return f"{machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:.0f} GB, Python {machine['python']}, {machine['date']}"


def one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Return a type of the command line: one of `names`."""

    def name(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"found {text!r}, expected some of {', '.join(names)}")
        return text

    return name


def some_of(names: Sequence[str]) -> Callable[[str], list[str]]:
    """Return a type of the command line: some of `names`, with commas between them."""
    return lambda text: [one_of(names)(name) for name in text.split(",")]
