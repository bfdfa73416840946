"""A memory budget keeps what a real process takes low, and changes nothing of what it sees."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MB = 1_000_000
TENSOR_MB, TENSORS = 8, 12
DRIVER = f"""
import json, os, re, sys
from pathlib import Path
import numpy as np
import onnx
from tests.calibrate.subjects import seen_bytes, subject
from zeropoint.calibrate import Resources, calibrate
from zeropoint.graph.taps import Taps
from zeropoint.runtime.machine import resident_bytes, return_freed_memory

class Lines:
    def __len__(self):
        return 3
    def __getitem__(self, index):
        return np.random.default_rng(index).random({TENSOR_MB} * {MB} // 4, np.float32)

def peak():
    return 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1])

if __name__ == "__main__":
    room, path = sys.argv[1:]
    os.sched_setaffinity(0, {{min(os.sched_getaffinity(0))}})  # one stream
    steps = " ".join(f"t{{k + 1}} = {{('Neg', 'Sigmoid')[k % 2]}}(t{{k}})" for k in range({TENSORS}))
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, {TENSOR_MB * MB // 4}] t0) => (float[N, M] t{TENSORS}) {{ ' + steps + " }}"
    )
    of = subject(model, Lines())
    return_freed_memory()
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of learning the shapes, which holds all tensors of a batch
    before = resident_bytes()
    taps = Taps(tuple(f"t{{k + 1}}" for k in range({TENSORS})))
    told = []
    resources = Resources(memory_budget=before + int(room) if room else None)
    seen, notes = calibrate(of, taps, resources, progress=lambda *step: told.append(step))
    Path(path).write_bytes(seen_bytes(seen))
    print(json.dumps({{"taken": peak() - before, "runs": told[-1][2] // 3, "notes": [note.kind for note in notes]}}))
"""


def run(folder: Path, room: str, name: str) -> tuple[dict[str, int], bytes]:
    (folder / "driver.py").write_text(DRIVER)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    command = [sys.executable, str(folder / "driver.py"), room, str(folder / name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), (folder / name).read_bytes()


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="the peak of a process is read from Linux's /proc")
def test_a_budget_is_kept_by_several_passes(tmp_path: Path) -> None:
    room = 64 * MB
    unlimited, seen = run(tmp_path, "", "unlimited")
    limited, seen_in_passes = run(tmp_path, str(room), "limited")
    assert unlimited["runs"] == 1
    assert limited["runs"] > 1
    assert unlimited["taken"] > TENSORS * TENSOR_MB * MB, "all tensors of a batch are held"
    assert limited["taken"] < 1.25 * room, "the budget is kept by an estimate"
    assert limited["taken"] < 0.75 * unlimited["taken"]
    assert seen_in_passes == seen
