from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.cli.commands import ESTIMATE, QUANTIZE, Place, Zeropoint, interrupt, start

from zeropoint.cli.interruption import interruptible

NOTHING = "interrupted: nothing was written\n"


@pytest.mark.parametrize(
    "moment", ["zeropoint.decide.calibrate", "zeropoint.evaluate.measure.compare_outputs", "zeropoint.result.Session", "os.fsync"]
)
def test_interruption_leaves_nothing_half_written(place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch, moment: str) -> None:
    Path("digits.int8.onnx").write_bytes(b"an earlier result")
    before = place.files
    monkeypatch.setattr(moment, interrupt)
    run = zeropoint(*QUANTIZE)
    assert (run.code, run.out) == (130, "")
    assert ESTIMATE.sub("", run.err) == NOTHING
    assert place.files == before
    assert Path("digits.int8.onnx").read_bytes() == b"an earlier result"


WRITTEN = {
    "the-model-alone": ("zeropoint.result.write_text", "digits.int8.onnx"),
    "both": ("zeropoint.cli.render.show_result", "digits.int8.onnx and digits.int8.onnx.plan.json"),
}


@pytest.mark.parametrize(("moment", "files"), WRITTEN.values(), ids=WRITTEN)
def test_what_was_written_by_then_is_told(
    place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch, moment: str, files: str
) -> None:
    Path("digits.int8.onnx").write_bytes(b"an earlier result")
    monkeypatch.setattr(moment, interrupt)
    run = zeropoint(*QUANTIZE, "--no-evaluate")
    assert (run.code, ESTIMATE.sub("", run.err)) == (130, f"interrupted: wrote {files}\n")
    assert set(files.split(" and ")) == place.files - {"digits.onnx", "few.npy", "labels.npy"}


def test_same_command_goes_on_from_the_checkpoint(place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch) -> None:
    command = (*QUANTIZE, "--effort", "fast", "--checkpoint", "few.stats")
    with monkeypatch.context() as patched:
        patched.setattr("zeropoint.evaluate.measure.compare_outputs", interrupt)
        run = zeropoint(*command)
    assert run.code == 130
    assert ESTIMATE.sub("", run.err) == (
        "interrupted: nothing was written, but few.stats keeps what was seen: the same command goes on from there\n"
    )
    again = zeropoint(*command)
    assert (again.code, again.err) == (0, "")  # there is nothing left to calibrate
    resumed = Path("digits.int8.onnx").read_bytes()
    assert zeropoint(*QUANTIZE, "--effort", "fast", "--checkpoint", "another.stats").code == 0
    assert resumed == Path("digits.int8.onnx").read_bytes()


def test_checkpoint_that_was_not_begun_is_not_promised(place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("zeropoint.decide.calibrate", interrupt)
    run = zeropoint(*QUANTIZE, "--checkpoint", "few.stats")
    assert (run.code, run.err) == (130, NOTHING)


OTHERS = {
    "solve": ("zeropoint.api.solve", ("solve", "few.stats", "digits.onnx", "-t", "tensorrt")),
    "inspect": ("zeropoint.api.inspect", ("inspect", "digits.onnx")),
    "lint": ("zeropoint.api.lint", ("lint", "digits.onnx", "-t", "tensorrt")),
    "while-starting": ("zeropoint.cli._run", ()),
}


@pytest.mark.parametrize(("moment", "arguments"), OTHERS.values(), ids=OTHERS)
def test_every_command_can_be_interrupted(
    place: Place, zeropoint: Zeropoint, monkeypatch: pytest.MonkeyPatch, moment: str, arguments: tuple[str, ...]
) -> None:
    monkeypatch.setattr(moment, interrupt)
    run = zeropoint(*arguments)
    assert (run.code, run.out, run.err) == (130, "", NOTHING)


SLOW_DATA = """
import time
import numpy as np

class Digits:
    def __len__(self):
        return 1000
    def __getitem__(self, index):
        time.sleep(0.05)
        return np.full((1, 28, 28), index, np.float32)
"""


@pytest.mark.parametrize("presses", [1, 5], ids=["pressed-once", "pressed-often"])
def test_real_ctrl_c_ends_the_real_command(place: Place, presses: int) -> None:
    Path("slow.py").write_text(SLOW_DATA)
    process = start(place.folder, "quantize", "digits.onnx", "--data", "slow.py:Digits", "-t", "tensorrt", "--samples", "500")
    before = place.files
    assert process.stderr is not None
    assert ESTIMATE.fullmatch(process.stderr.readline())  # from here on it reads the samples, which takes half a minute
    for _ in range(presses):
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, out, err) == (130, "", NOTHING)
    assert place.files == before
    assert list((place.folder / "tmp").glob("*zeropoint*")) == []  # ONNX Runtime leaves a file of its own


# --- the signal ------------------------------------------------------------------------------------------------------------


TWICE = """
import signal, typer
from zeropoint.cli.interruption import interruptible

signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with interruptible():
        try:
            signal.raise_signal(signal.SIGINT)
        finally:
            signal.raise_signal(signal.SIGINT)
            print("cleaned up")
except typer.Exit as ended:
    print(ended.exit_code)
"""


def test_later_ones_are_ignored_while_the_first_is_cleaned_up_after() -> None:
    done = subprocess.run([sys.executable, "-c", TWICE], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("cleaned up\n130\n", NOTHING)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN, interrupt], ids=["usual", "ignored", "of-a-caller"])
def test_handler_is_as_before_afterwards(handler: signal.Handlers) -> None:
    previous = signal.signal(signal.SIGINT, handler)
    try:
        with interruptible():
            assert (signal.getsignal(signal.SIGINT) is handler) == (handler is not signal.default_int_handler)
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, previous)


def test_thread_may_run_a_command() -> None:
    """Only the main thread can set a handler, and only there a signal is heard."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            with interruptible():
                pass
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert raised == []
