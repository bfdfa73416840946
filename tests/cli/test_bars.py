from __future__ import annotations

import io
import re
from collections.abc import Callable

import pytest
from rich.console import Console
from rich.progress import Progress, Task

from zeropoint.cli import bars, render

CALIBRATING = "calibrating (about 334 MB)"
PASSES = "calibrating in 12 passes (about 1410 MB)"


def after(seconds: float, done: int, total: int) -> Task:
    """A stage of so many steps, as it stands after so many seconds."""
    times = iter([0.0])
    progress = Progress(auto_refresh=False, get_time=lambda: next(times, seconds))
    task = progress.add_task("stage", total=total)
    progress.update(task, completed=done)
    return progress.tasks[0]


# seconds, done, total -> rate, time left
TOLD = {
    "nothing-yet": ((3.0, 0, 8), "", ""),
    "at-once": ((0.0, 1, 8), "", ""),
    "slow": ((40.0, 3, 8), "0.07/s", "1:06 left"),
    "some-a-second": ((4.0, 10, 40), "2.5/s", "0:12 left"),
    "many-a-second": ((2.0, 500, 501), "250/s", "0:00 left"),
    "minutes": ((10.0, 10, 700), "1.0/s", "11:30 left"),
    "hours": ((10.0, 10, 8000), "1.0/s", "2:13:10 left"),
    "finished": ((65.0, 130, 130), "2.0/s", "1:05 in all"),
}


@pytest.mark.parametrize(("stage", "rate", "left"), TOLD.values(), ids=TOLD)
def test_rate_and_time_left(stage: tuple[float, int, int], rate: str, left: str) -> None:
    assert (bars.rate(after(*stage), unit="/s"), bars.time_left(after(*stage))) == (rate, left)


def test_memory_is_that_of_now(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bars, "resident_bytes", lambda: 345_600_000)
    assert [bars.memory(after(4.0, done, 8)) for done in (0, 7, 8)] == ["346 MB", "346 MB", ""]


Screen = Callable[..., io.StringIO]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    def switched_on(*, width: int = 80, is_terminal: bool = True) -> io.StringIO:
        shown = io.StringIO()
        console = Console(file=shown, width=width, force_terminal=is_terminal, color_system=None, highlight=False)
        monkeypatch.setattr(render, "errors", console)
        return shown

    return switched_on


def lines(shown: io.StringIO) -> list[str]:
    """What was drawn, without what moves the cursor."""
    return [line.rstrip() for line in re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "\n", shown.getvalue())) if line.strip()]


@pytest.mark.parametrize("stage", [CALIBRATING, PASSES, "evaluating"])
@pytest.mark.parametrize(("width", "unit"), [(80, "/s"), (99, "/s"), (100, " batches/s"), (160, " batches/s")])
def test_stage_is_one_line_of_all_that_there_is_to_know(screen: Screen, stage: str, width: int, unit: str) -> None:
    shown = screen(width=width)
    with bars.progress(shown=True) as report:
        report(stage, 0, 128)
        report(stage, 90, 128)
    drawn = lines(shown)
    assert all(len(line) <= width for line in drawn)
    assert re.fullmatch(rf"{re.escape(stage)} [━╸╺ ]+  ?90/128 +[\d.]+{unit} \d+:\d\d left +\d+ MB", drawn[-1])


@pytest.mark.parametrize("width", [40, 60, 79])
def test_narrow_terminal_shows_a_stage_in_several_lines(screen: Screen, width: int) -> None:
    shown = screen(width=width)
    with bars.progress(shown=True) as report:
        report(CALIBRATING, 0, 8)
        report(CALIBRATING, 3, 8)
    drawn = lines(shown)
    assert all(len(line) <= width for line in drawn)
    assert any(re.search(r"3/8 +[\d.]+/s \d+:\d\d left +\d+ MB", line) for line in drawn)


def test_stages_stand_below_each_other_and_vanish_in_the_end(screen: Screen) -> None:
    shown = screen()
    with bars.progress(shown=True) as report:
        for done in range(3):
            report("calibrating", done, 2)
        report("evaluating", 1, 4)
    before_last, last = lines(shown)[-2:]
    assert re.fullmatch(r"calibrating ━+ 2/2 +[\d.]+/s 0:00 in all", before_last)
    assert re.fullmatch(r"evaluating +[━╸╺ ]+ 1/4 +[\d.]+/s +0:00 left +\d+ MB", last)
    assert shown.getvalue().endswith("\x1b[1A\x1b[2K")  # the lines are taken back


def test_name_that_looks_like_markup_is_drawn_as_it_is(screen: Screen) -> None:
    shown = screen()
    with bars.progress(shown=True) as report:
        report("[bold]calibrating[/]", 0, 2)
    assert "[bold]calibrating[/]" in shown.getvalue()


def test_stage_that_has_nothing_to_do_is_not_drawn(screen: Screen) -> None:
    shown = screen()
    with bars.progress(shown=True) as report:
        report(CALIBRATING, 0, 0)
    assert lines(shown) == []


REPORTS = ((CALIBRATING, 0, 2), (CALIBRATING, 1, 2), (CALIBRATING, 2, 2), ("evaluating", 1, 1))
WITHOUT_TERMINAL = {
    "estimate": (True, REPORTS, f"{CALIBRATING}\n"),
    "long": (True, (("long " * 30, 0, 2),), "long " * 30 + "\n"),
    "nothing-to-do": (True, ((CALIBRATING, 0, 0),), ""),
    "quiet": (False, REPORTS, ""),
}


@pytest.mark.parametrize(("wanted", "reports", "shown"), WITHOUT_TERMINAL.values(), ids=WITHOUT_TERMINAL)
def test_log_gets_the_estimate_and_nothing_else(
    screen: Screen, wanted: bool, reports: tuple[tuple[str, int, int], ...], shown: str
) -> None:
    log = screen(is_terminal=False)
    with bars.progress(shown=wanted) as report:
        for each in reports:
            report(*each)
    assert log.getvalue() == shown


def test_quiet_command_draws_nothing_in_a_terminal(screen: Screen) -> None:
    shown = screen()
    with bars.progress(shown=False) as report:
        for each in REPORTS:
            report(*each)
    assert shown.getvalue() == ""
