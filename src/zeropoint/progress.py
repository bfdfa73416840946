"""How long work reports where it stands."""

from __future__ import annotations

from collections.abc import Callable

# stage, steps done, steps in all. A stage may begin with 0 done, before anything runs: its text then tells what the run is about to take.
# Calls of one run come from one thread.
Progress = Callable[[str, int, int], None]


def silent(stage: str, done: int, total: int) -> None:
    """Report no progress."""
