from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import struct
import subprocess
import sys
import time
from contextlib import nullcontext
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.calibrate.subjects import FUSED, IMAGES, all_taps, calibrated, digits, seen_bytes, subject
from tests.graph.networks import Array

from zeropoint.calibrate import Resources, Subject, calibrate, calibration, workers
from zeropoint.calibrate.streams import Crew
from zeropoint.calibrate.workers import CHUNKS, LONGEST_CHUNK, Job, chunks_of, observe_in_processes
from zeropoint.errors import DataError, ModelError, OutputError
from zeropoint.graph.taps import Taps, divide, tap

TWO = Resources(workers=2)


class Images:
    """A data set that other processes can import: it fails, or ends its process, at once or amidst an answer, at some item."""

    def __init__(self, *, fails_at: int = -1, ends_at: int = -1, breaks_off_at: int = -1) -> None:
        self.fails_at, self.ends_at, self.breaks_off_at, self.owner = fails_at, ends_at, breaks_off_at, os.getpid()

    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> Array:
        if index == self.fails_at:
            raise ValueError("a broken file")
        if index == self.ends_at and os.getpid() != self.owner:
            os._exit(9)
        if index == self.breaks_off_at and os.getpid() != self.owner:
            for pipe in (found for found in gc.get_objects() if isinstance(found, Connection) and found.writable):
                os.write(pipe.fileno(), struct.pack("!i", 1000) + b"half of it")
            os._exit(9)
        return IMAGES[index]


class Forking(Images):
    """Each process forks another, which does nothing for half a minute; its number is in a file, and its end another."""

    def __init__(self, folder: Path, **options: int) -> None:
        super().__init__(**options)
        self.folder = folder

    def __getitem__(self, index: int) -> Array:
        note = self.folder / str(os.getpid())
        if os.getpid() != self.owner and not note.exists():
            forked = os.fork()
            if not forked:
                time.sleep(30)
                note.with_suffix(".ended").touch()
                os._exit(0)
            note.write_text(str(forked))
        return super().__getitem__(index)


class Slow(Images):
    """Its first item takes half a minute, and is in a file then."""

    def __init__(self, note: Path, **options: int) -> None:
        super().__init__(**options)
        self.note = note

    def __getitem__(self, index: int) -> Array:
        if index == 0 and os.getpid() != self.owner:
            time.sleep(30)
            self.note.touch()
        return super().__getitem__(index)


class Unpicklable(Images):
    def __reduce__(self) -> Any:
        raise TypeError("it holds an open file")


class Unloadable(Images):
    def __reduce__(self) -> Any:
        return _fail_to_load, ()


def _fail_to_load() -> Images:
    raise ImportError("no module of that name")


def test_processes_change_no_bit(tmp_path: Path) -> None:
    of = digits()
    expected = calibrated(of)
    assert calibrated(of, workers=2, checkpoint=tmp_path / "stats") == expected
    assert calibrated(of, checkpoint=tmp_path / "stats") == expected


def test_processes_and_passes_change_no_bit_of_what_is_fused() -> None:
    of, taps = subject(FUSED, Images(), batch_size=3), Taps(("a", "r"), (("r", 1),))
    told: list[tuple[int, int]] = []
    seen, _ = calibrate(of, taps, Resources(workers=2, memory_budget=1), progress=lambda _, done, total: told.append((done, total)))
    assert told == [(done, len(told) - 1) for done in range(len(told))]
    assert (len(told) - 1) % 4 == 0
    assert seen_bytes(seen) == calibrated(of, taps)


def test_data_that_cannot_be_sent_is_an_error_that_says_what_to_do() -> None:
    of = subject(FUSED, Unpicklable())
    with pytest.raises(
        DataError, match=r"^data: found samples that cannot be sent to another process \(it holds an open file\).*one worker"
    ):
        calibrate(of, all_taps(of), TWO)
    assert calibrated(of) == calibrated(subject(FUSED, IMAGES))


def test_data_that_a_process_cannot_load_is_an_error_that_says_what_to_do() -> None:
    of = subject(FUSED, Unloadable())
    expected = r"^data: found samples that another process cannot load \(ImportError: no module of that name\).*one worker"
    with pytest.raises(DataError, match=expected):
        calibrate(of, all_taps(of), TWO)


def told(of: Subject, resources: Resources) -> str:
    with pytest.raises(DataError) as caught:
        calibrate(of, all_taps(of), resources)
    return str(caught.value)


def test_an_error_in_a_process_is_that_of_one_process() -> None:
    of = subject(FUSED, Images(fails_at=7))
    expected = told(of, Resources())
    assert "item 7: failed with ValueError: a broken file" in expected
    assert told(of, TWO) == expected


def test_a_process_that_ends_is_an_error() -> None:
    message = told(subject(FUSED, Images(ends_at=7)), TWO)
    assert message.startswith("workers: a process ended before its work was done, perhaps for lack of memory")


def test_a_process_that_ends_amidst_its_answer_is_an_error() -> None:
    message = told(subject(FUSED, Images(breaks_off_at=7)), TWO)
    assert message.startswith("workers: a process ended before its work was done, perhaps for lack of memory")


def test_a_process_that_ends_before_it_is_asked_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    heard = workers._heard

    def ended(team: Any) -> Any:
        ready = heard(team)
        for worker in ready:
            worker.process.kill()
            worker.process.join()
        return ready

    monkeypatch.setattr(workers, "_heard", ended)
    assert told(subject(FUSED, Images()), TWO).startswith("workers: a process ended before its work was done")


def test_a_process_that_cannot_be_started_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    before, start, started = {*multiprocessing.active_children()}, SpawnProcess.start, []

    def refused(process: SpawnProcess) -> None:
        started.append(process)
        if len(started) > 1:
            raise OSError(24, "Too many open files")
        start(process)

    monkeypatch.setattr(SpawnProcess, "start", refused)
    assert told(subject(FUSED, Images()), TWO) == (
        "workers: a process cannot be started ([Errno 24] Too many open files), expected all to start; use fewer workers"
    )
    assert {*multiprocessing.active_children()} == before


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("ends_at", [-1, 7])
def test_what_a_data_set_has_forked_is_not_waited_for(ends_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 1000.0)  # longer than that lives
    of = subject(FUSED, Forking(tmp_path, ends_at=ends_at))
    with nullcontext() if ends_at < 0 else pytest.raises(DataError, match="workers: a process ended"):
        calibrate(of, all_taps(of), TWO)
    assert not [*tmp_path.glob("*.ended")]
    forked = [int(note.read_text()) for note in tmp_path.iterdir()]
    assert forked
    for process in forked:
        os.kill(process, signal.SIGKILL)


def test_what_a_process_is_at_is_not_waited_for_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "PATIENCE", 1000.0)
    assert "a broken file" in told(subject(FUSED, Slow(tmp_path / "read", fails_at=7)), TWO)
    assert not (tmp_path / "read").exists()


def test_a_process_that_nobody_listens_to_ends_without_a_word() -> None:
    ours, theirs = multiprocessing.Pipe()
    ours.close()
    before = signal.getsignal(signal.SIGINT)
    try:
        workers._serve(theirs)
    finally:
        signal.signal(signal.SIGINT, before)
    assert theirs.closed


def test_a_script_that_starts_itself_again_in_each_process_is_an_error(tmp_path: Path) -> None:
    script = tmp_path / "unguarded.py"
    script.write_text(
        "import numpy as np\nimport zeropoint as zp\nfrom zeropoint.demo import load_digits\n"
        "digits = load_digits()\ndata = np.concatenate([digits.calibration] * 4)  # more than a pipe takes at once\n"
        'zp.quantize(digits.model, data=data, target="tensorrt", workers=2)\n'
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "if __name__ == '__main__'" in done.stderr, "Python says so in each process"
    assert "DataError: workers: a process ended before its work was done" in done.stderr.splitlines()[-1]


def test_processes_end_where_what_they_saw_cannot_be_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object) -> None:
        raise OutputError("no space left")

    monkeypatch.setattr(calibration, "SECONDS_BETWEEN_SAVES", 0.0)
    monkeypatch.setattr(calibration, "save_statistics", full)
    of, before = subject(FUSED, Images()), {*multiprocessing.active_children()}
    with pytest.raises(OutputError) as caught:
        calibrate(of, all_taps(of), Resources(workers=2, checkpoint=tmp_path / "stats"))
    assert {*multiprocessing.active_children()} == before
    assert str(caught.value) == "no space left"
    assert capfd.readouterr().err == "", "they end without a word"


def test_a_network_that_a_process_cannot_open_is_an_error(tmp_path: Path) -> None:
    of = subject(FUSED, IMAGES)
    [part] = divide(tap(of.model, all_taps(of), of.facts), [all_taps(of)], tmp_path)
    (tmp_path / "part0.onnx").write_bytes(b"")
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model"):
        list(observe_in_processes(Job(part, of.batches, Crew(1), "CPUExecutionProvider"), [0, 1], workers=1))


@pytest.mark.parametrize(("blocks", "count"), [(1, 2), (7, 2), (8, 2), (100, 2), (5000, 2), (5000, 8)])
def test_blocks_are_shared_out_in_chunks(blocks: int, count: int) -> None:
    numbers = np.random.default_rng(0).permutation(blocks).tolist()
    chunks = chunks_of(numbers, count)
    assert [block for chunk in chunks for block in chunk] == numbers
    assert max(map(len, chunks)) <= LONGEST_CHUNK
    assert len(chunks) >= min(blocks, CHUNKS * count) // 2
