"""Make the peers' virtual environments below benchmarks/.cache/peers: `python benchmarks/peers/environments.py [NAME ...]`.

Each has packages that the others' would not get along with, and none of them is the project's. What is there already is left alone; an
environment that cannot be made is reported and left out, and the benchmark leaves out its peer.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

CACHE = Path(__file__).resolve().parents[1] / ".cache"
STAMP = "requirements.txt"  # in the environment: written last, it says what is in it
ONNX = ("numpy==2.4.6", "onnx==1.23.2", "onnxruntime==1.32.0")
# Its extra `onnx` would bring onnxruntime-gpu 1.24, CuPy for CUDA and an older onnx; it works on the CPU with these, as the others have.
MODELOPT = ("cppimport==26.4.17", "lief==1.0.0", "onnx-graphsurgeon==0.6.1", "onnxscript==0.7.2", "onnxslim==0.1.98", "polygraphy==0.53.6")
ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "onnxruntime": (*ONNX, "sympy==1.14.0"),
    "nncf": (*ONNX, "nncf==3.4.0", "openvino==2026.4.1"),
    "onnxsim": (*ONNX, "onnxsim==0.8.1"),
    "modelopt": ("torch==2.13.0", *ONNX, *MODELOPT, "nvidia-modelopt==0.47.0"),
}


def peer_python(name: str) -> Path | None:
    """Return the interpreter of the environment called `name`, or None where it is not there, or not with these packages."""
    folder = CACHE / "peers" / name
    stamp = folder / STAMP
    found = stamp.exists() and stamp.read_text(encoding="utf-8") == _stamp(name)
    return folder / "bin" / "python" if found else None


def make(name: str) -> str | None:
    """Make the environment called `name` anew; return None, or what went wrong in a line."""
    folder = CACHE / "peers" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    (CACHE / ".gitignore").write_text("*\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    for command in ([sys.executable, "-m", "venv", str(folder)], [*pip, *ENVIRONMENTS[name]]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["ERROR: nothing said"]
            return said[-1].removeprefix("ERROR: ")
    (folder / STAMP).write_text(_stamp(name), encoding="utf-8")
    return None


def _stamp(name: str) -> str:
    return "\n".join((*ENVIRONMENTS[name], ""))


def main(names: Sequence[str]) -> int:
    """Make the environments called `names`, or all of them, and print a line for each; return 2 for an unknown name, else 0."""
    unknown = sorted(set(names) - set(ENVIRONMENTS))
    if unknown:
        print(f"peer: found {', '.join(unknown)}, expected some of {', '.join(ENVIRONMENTS)}", file=sys.stderr)
        return 2
    for name in names or ENVIRONMENTS:
        error = None if peer_python(name) else make(name)
        print(f"{name:12} {f'skipped: {error}' if error else peer_python(name)}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
