"""Ctrl-C: one line on what it leaves behind, and exit code 130."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import typer
from rich.text import Text

from zeropoint.cli import render

INTERRUPTED = 130  # 128 + SIGINT, as a shell has it


@contextmanager
def interruptible(*, writes: Sequence[Path] = (), checkpoint: Path | None = None) -> Iterator[None]:
    """Turn Ctrl-C into a line that says which of the files that a command `writes` it has written, and where to go on."""
    before = [_state(path) for path in writes]
    try:
        with _first_one_alone():
            yield
    except KeyboardInterrupt:
        written = [str(path) for path, state in zip(writes, before, strict=True) if _state(path) != state]
        said = f"wrote {' and '.join(written)}" if written else "nothing was written"
        if checkpoint is not None and checkpoint.exists():
            said += f", but {checkpoint} keeps what was seen: the same command goes on from there"
        render.errors.print(Text.assemble(("interrupted: ", "bold red"), said), soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _first_one_alone() -> Iterator[None]:
    """Ignore all but the first Ctrl-C, so that what it makes the library clean up is cleaned up."""
    hears = threading.current_thread() is threading.main_thread()  # no other thread does
    if not hears or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:  # a background job's is ignored: let it be
        yield
        return

    def interrupt(number: int, _: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def _state(path: Path) -> tuple[int, int] | None:
    """Return what changes when a file is written anew; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns
