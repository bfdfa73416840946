"""What was not done, where, and why: the value by which nothing degrades silently."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One thing that a user should know: `where` is a node, tensor or file, `reason` a sentence."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"
