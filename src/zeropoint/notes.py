"""What was not done, where, and why: the value by which nothing degrades silently."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True, order=True)
class Note:
    """One thing that a user should know: `where` is a node, tensor, file or part of the run, `reason` a sentence.

    kind: "float" where the node `where` stays in float, "run" where the note is about this run and not about the network, and
    "warning" where nobody should use the result before having read it.
    """

    where: str
    reason: str
    kind: Literal["network", "float", "run", "warning"] = field(default="network", compare=False)

    def __str__(self) -> str:
        return f"{self.where}: {self.reason}"


def counted(count: int, what: str) -> str:
    """Write how many there are of `what`.

    Example:
        >>> counted(1, "sample"), counted(2, "sample")
        ('1 sample', '2 samples')
    """
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
