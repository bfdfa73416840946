"""What was not done, where, and why: the value by which nothing degrades silently."""

from __future__ import annotations

from dataclasses import dataclass

# Where a note is about the run and not about the network, these stand for the part of the run.
STAGES = frozenset({"calibration", "evaluation", "labels", "latency"})


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One thing that a user should know: `where` is a node, tensor or file, `reason` a sentence."""

    where: str
    reason: str

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def counted(count: int, what: str) -> str:
    """Write how many there are of `what`.

    Example:
        >>> counted(1, "sample"), counted(2, "sample")
        ('1 sample', '2 samples')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
