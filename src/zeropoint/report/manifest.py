"""With what a result was made, and the commands that make it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, slots=True)
class Command:
    """A line for a shell, and what it does."""

    purpose: str
    line: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """Names with their values, and commands."""

    heading: str
    facts: Sequence[tuple[str, str]]
    commands: Sequence[Command] = ()
    template: ClassVar[str] = "manifest.html"
    draws: ClassVar[bool] = False
