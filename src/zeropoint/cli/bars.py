"""Draw on standard error how far long work has come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TaskID, TextColumn
from rich.table import Column
from rich.text import Text

from zeropoint.cli import render
from zeropoint.progress import Progress as Report
from zeropoint.progress import silent
from zeropoint.runtime.machine import resident_bytes

MEGABYTE = 1e6
ROOMY, TIGHT = 100, 80  # columns of a terminal in which units can be written out, and below which stages take several lines
DRAWN_PER_SECOND = 4  # it runs beside the network, and takes a part of a processor


@contextmanager
def progress(*, shown: bool, unit: str = "batches") -> Iterator[Report]:
    """Give a progress callback that draws a bar for each stage, for as long as it lasts; `unit` is what its steps are.

    Where standard error is no terminal, it prints a line of what the run is about to take, and nothing of how far it has come.
    """
    console = render.errors
    if not shown:
        yield silent
    elif not console.is_terminal:
        yield _announce
    else:
        with _bars(console, unit) as bars:
            tasks: dict[str, TaskID] = {}

            def report(stage: str, done: int, total: int) -> None:
                if not total:  # a checkpoint has it all
                    return
                if stage not in tasks:
                    tasks[stage] = bars.add_task(stage, total=total)
                bars.update(tasks[stage], completed=done, total=total)

            yield report


def _announce(stage: str, done: int, total: int) -> None:
    if done == 0 and total:
        render.errors.print(Text(stage), soft_wrap=True)


def _bars(console: Console, steps: str) -> Progress:
    unit = f" {steps}/s" if console.width >= ROOMY else "/s"
    return Progress(
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=console.width >= TIGHT)),
        BarColumn(bar_width=None),
        MofNCompleteColumn(table_column=Column(no_wrap=True)),
        Told(lambda task: rate(task, unit=unit)),
        Told(time_left),
        Told(memory),
        console=console,
        transient=True,
        expand=True,
        refresh_per_second=DRAWN_PER_SECOND,
    )


class Told(ProgressColumn):
    """What a function has to say about a stage: rich asks for it each time that it draws."""

    def __init__(self, tell: Callable[[Task], str]) -> None:
        """Draw what `tell` returns."""
        super().__init__(table_column=Column(no_wrap=True))
        self.tell = tell

    def render(self, task: Task) -> Text:
        """Return it as rich wants it."""
        return Text(self.tell(task), justify="right")


def rate(task: Task, *, unit: str) -> str:
    """Return how many steps a second were done, from the beginning of the stage: worker processes report theirs in bursts."""
    speed = _speed(task)
    return f"{speed:.{0 if speed >= 100 else 1 if speed >= 1 else 2}f}{unit}" if speed else ""


def time_left(task: Task) -> str:
    """Return how long the stage still takes at that rate, or how long it took."""
    speed = _speed(task)
    if not speed:
        return ""
    seconds = int(_seconds(task) if task.finished else ((task.total or 0) - task.completed) / speed)
    minutes, hours = seconds // 60, seconds // 3600
    clock = f"{hours}:{minutes % 60:02}" if hours else f"{minutes}"
    return f"{clock}:{seconds % 60:02} {'in all' if task.finished else 'left'}"


def _speed(task: Task) -> float:
    return task.completed / _seconds(task) if task.completed and _seconds(task) else 0.0


def _seconds(task: Task) -> float:
    return (task.finished_time if task.finished else task.elapsed) or 0.0


def memory(task: Task) -> str:
    """Return what this process takes now, where the stage still runs."""
    return "" if task.finished else f"{resident_bytes() / MEGABYTE:.0f} MB"
