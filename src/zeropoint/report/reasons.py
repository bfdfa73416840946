"""What was not done and what to know, grouped by reason."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

from zeropoint.notes import Note, counted

ORDER = ("warning", "float", "network", "run")
TITLES = {
    "warning": "Read this first",
    "float": "Stays in float",
    "network": "About the network",
    "run": "About this run",
}


@dataclass(frozen=True, slots=True)
class Reason:
    """A sentence and the places that it holds for."""

    text: str
    places: tuple[str, ...]

    @property
    def counted(self) -> str:
        """How many places there are."""
        return counted(len(self.places), "place")


@dataclass(frozen=True, slots=True)
class Group:
    """The reasons of one kind, the one that holds for most places first."""

    title: str
    kind: str
    reasons: tuple[Reason, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reasons:
    """Notes under a heading; `empty` is said where there are none."""

    heading: str
    groups: Sequence[Group]
    empty: str = "Nothing was left out, and there is nothing else to know."
    template: ClassVar[str] = "reasons.html"
    draws: ClassVar[bool] = False


def grouped(notes: Iterable[Note]) -> tuple[Group, ...]:
    """Return the notes by kind, those to read first before the others, and within a kind by reason.

    Example:
        >>> [group] = grouped([Note("a", "too few channels", "float"), Note("b", "too few channels", "float")])
        >>> group.title, group.reasons[0].places
        ('Stays in float', ('a', 'b'))
    """
    found: dict[str, dict[str, list[str]]] = {}
    for note in notes:
        places = found.setdefault(note.kind, {}).setdefault(note.reason, [])
        if note.where not in places[-1:]:
            places.append(note.where)
    return tuple(
        Group(TITLES[kind], kind, tuple(sorted((Reason(text, tuple(p)) for text, p in found[kind].items()), key=lambda r: -len(r.places))))
        for kind in ORDER
        if kind in found
    )
