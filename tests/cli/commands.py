"""A folder to run commands in, and what running one gives."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUANTIZE = ("quantize", "digits.onnx", "--data", "few.npy", "--target", "tensorrt", "--samples", "8", "--no-report")
ESTIMATE = re.compile(r"(calibrating( what was scaled)? \(about \d+ MB\)\n)+")  # all that stands on standard error where nothing goes wrong


@dataclass(frozen=True)
class Place:
    """A working folder with the demo's network and some digits in it."""

    folder: Path

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@dataclass(frozen=True)
class Run:
    code: int
    out: str
    err: str


Zeropoint = Callable[..., Run]


class Reached(Exception):
    """The function was called."""


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """Begin the real command in its own process, whose folder for temporary files is `folder`/tmp."""
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "zeropoint", *arguments],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={
            "COLUMNS": "80",
            "PATH": "",
            "HOME": str(folder.parent),
            "TMPDIR": str(folder / "tmp"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
    )


def spawn(folder: Path, *arguments: str) -> Run:
    """Run the real command in its own process."""
    process = start(folder, *arguments)
    out, err = process.communicate()
    shutil.rmtree(folder / "tmp")
    return Run(process.returncode, out, err)


def interrupt(*_: Any, **__: Any) -> Any:
    """Be interrupted where this is called."""
    raise KeyboardInterrupt
