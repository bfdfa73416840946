"""Real processes that calibrate the digits network, are killed or interrupted, and go on: nothing of that shows in what they write."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

from zeropoint.calibrate import load_statistics

SAMPLES = 48
READING = 0.025  # seconds for each: a process takes about one to read all
# As a module, so that other processes may import it to unpickle its items.
DATA = f"""
import time
from zeropoint.demo import load_digits

class Slow:
    def __init__(self):
        self.images = load_digits().calibration[:{SAMPLES}]
    def __len__(self):
        return len(self.images)
    def __getitem__(self, index):
        time.sleep({READING})
        return self.images[index]

load = Slow
"""
DRIVER = """
import sys
from pathlib import Path
from zeropoint import api
from zeropoint.calibrate import calibration
from zeropoint.demo import load_digits
from zeropoint.plan import to_json

if __name__ == "__main__":
    calibration.SECONDS_BETWEEN_SAVES = 0.05
    workers, budget, checkpoint, plan = sys.argv[1:]
    result = api.quantize(
        load_digits().model, data="slow_digits:load", target="tensorrt", samples=1000, evaluate=False,
        workers=int(workers), memory_budget=budget or None, checkpoint=checkpoint or None,
    )
    Path(plan).write_text(to_json(result.plan))
"""


@dataclass(frozen=True)
class Place:
    """A folder with the driver and the data, and one for what processes put aside."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "out" / "digits.stats"

    def start(self, *, workers: int = 1, budget: str = "", checkpoint: bool = True) -> subprocess.Popen[str]:
        environment = {**os.environ, "PYTHONPATH": str(self.folder), "TMPDIR": str(self.folder / "tmp")}
        told = [str(workers), budget, str(self.checkpoint) if checkpoint else "", str(self.folder / "plan.json")]
        command = [sys.executable, str(self.folder / "driver.py"), *told]
        return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)

    def finish(self, *, workers: int = 1, budget: str = "", checkpoint: bool = True) -> tuple[bytes, str]:
        """Run to the end; return the checkpoint and the plan, less notes on how it was run."""
        process = self.start(workers=workers, budget=budget, checkpoint=checkpoint)
        _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (0, "")
        return self.checkpoint.read_bytes() if checkpoint else b"", (self.folder / "plan.json").read_text()

    def wait_for_checkpoint(self, process: subprocess.Popen[str], *, after: float) -> None:
        deadline = time.monotonic() + 30
        while not self.checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(after)

    def blocks_done(self) -> int:
        parts = load_statistics(self.checkpoint).parts if self.checkpoint.exists() else ()
        return sum(len(part.done) for part in parts)


def place(folder: Path) -> Place:
    for name in ("out", "tmp"):
        (folder / name).mkdir(parents=True)
    (folder / "slow_digits.py").write_text(DATA)
    (folder / "driver.py").write_text(DRIVER)
    return Place(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, str]:
    return place(tmp_path_factory.mktemp("undisturbed") / "x").finish()


def without_notes(plan: str) -> str:
    """How a plan came about is in its notes: how many passes, for example."""
    document = json.loads(plan)
    return json.dumps({**document, "notes": [note for note in document["notes"] if "memory_budget" not in str(note)]})


@pytest.mark.skipif(os.name != "posix", reason="processes are killed by signals")
@pytest.mark.parametrize(
    ("workers", "budget", "kills"),
    [pytest.param(1, "", 3, id="streams"), pytest.param(2, "", 1, id="workers"), pytest.param(1, "1MB", 1, id="passes")],
)
def test_a_killed_run_goes_on_to_the_same_bytes(
    workers: int, budget: str, kills: int, undisturbed: tuple[bytes, str], tmp_path: Path
) -> None:
    here, rng, done = place(tmp_path / "x"), random.Random(7), 0
    for _ in range(kills):
        process = here.start(workers=workers, budget=budget)
        here.wait_for_checkpoint(process, after=rng.uniform(0.0, 0.3) + (0.8 if done else 0.0))
        with suppress(ProcessLookupError):  # it was quicker
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert here.blocks_done() >= done, "what was seen stays seen"
        done = here.blocks_done()
    assert done > 0, "some of it was seen before"
    found = here.finish(workers=workers, budget=budget)
    assert found[0] == undisturbed[0]
    assert without_notes(found[1]) == without_notes(undisturbed[1])


@pytest.mark.skipif(os.name != "posix", reason="processes are interrupted by signals")
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupted_run_leaves_a_checkpoint_and_nothing_else(workers: int, undisturbed: tuple[bytes, str], tmp_path: Path) -> None:
    here = place(tmp_path / "x")
    process = here.start(workers=workers)
    here.wait_for_checkpoint(process, after=0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to all of them
    _, errors = process.communicate(timeout=30)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in errors
    assert [path.name for path in here.checkpoint.parent.iterdir()] == ["digits.stats"]
    assert list((here.folder / "tmp").glob("zeropoint-*")) == []
    assert 0 < here.blocks_done() < SAMPLES
    assert here.finish(workers=workers)[0] == undisturbed[0]
