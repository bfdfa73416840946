"""Compare a benchmark with an earlier one: may they be compared, and what became slower."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import get_args

from zeropoint.benching.bench import Bench, Figure, Machine, Regression, Timing
from zeropoint.benching.entries import Entry, Request
from zeropoint.benching.saved import load_bench
from zeropoint.errors import ModelError, RecipeError
from zeropoint.notes import Note
from zeropoint.runtime import version

WHERE = "against"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guard:
    """What an earlier benchmark is compared by. source: what to call it. tolerance: by what share a figure may grow."""

    before: Bench
    source: str
    tolerance: float
    by: tuple[Figure, ...]

    @classmethod
    def of(cls, against: Bench | str | Path | None, *, tolerance: float, by: tuple[Figure, ...]) -> Guard | None:
        """Read the earlier benchmark, where there is one.

        Raises:
            DataError: the file holds none.
            RecipeError: an option has an impossible value.
        """
        if not 0 <= tolerance < float("inf"):
            raise RecipeError(f"tolerance: found {tolerance}, expected a share from 0 on, such as 0.1 for 10 %")
        wrong = [figure for figure in by if figure not in get_args(Figure)]
        if wrong or not by:
            raise RecipeError(f"by: found {wrong[0] if wrong else 'nothing'!r}, expected {' or '.join(get_args(Figure))}, or both")
        if against is None:
            return None
        before = against if isinstance(against, Bench) else load_bench(against)
        return cls(before=before, source="a benchmark" if isinstance(against, Bench) else str(against), tolerance=tolerance, by=by)

    def check_machine(self, now: Machine) -> tuple[Note, ...]:
        """Return a note where the earlier benchmark is of another machine, and only ratios are compared.

        Raises:
            RecipeError: it is of another machine, and milliseconds are to be compared.
        """
        differing = [field.name for field in fields(Machine) if getattr(self.before.machine, field.name) != getattr(now, field.name)]
        if not differing:
            return ()
        there, here = (", ".join(f"{name} {getattr(machine, name)}" for name in differing) for machine in (self.before.machine, now))
        if "latency" in self.by:
            raise RecipeError(
                f"{WHERE}: found a benchmark of another machine ({there}), expected one of this ({here}); "
                "milliseconds of two machines do not compare: compare by ratio alone, or measure the earlier models again here"
            )
        return (_warning(f"the earlier benchmark is of another machine ({there}; here {here}): only ratios are compared"),)

    def check_entries(self, entries: Sequence[Entry], request: Request) -> tuple[Note, ...]:
        """Return notes on what has nothing to be compared with, and on another runtime or provider where only ratios are compared.

        Raises:
            ModelError: what the earlier benchmark has of these models and runtimes does not run now.
            RecipeError: it was timed on other shapes or with other threads, has none of the models, or ratios to another model, or there
                is no figure to compare, or milliseconds are compared of another version of a runtime or another provider.
        """
        earlier, here = _by_key(self.before.timings), {(entry.subject.file, entry.runtime): entry for entry in entries}
        lost = [key for key in earlier if key[0] in request.models and key[1] in request.runtimes and key not in here]
        if lost:
            raise ModelError(f"{WHERE}: {lost[0][0]} ran on {lost[0][1]} in {self.source}, but does not now: there is nothing to compare")
        if earlier.keys().isdisjoint(here):
            found = ", ".join(f"{file} on {runtime}" for file, runtime in earlier)
            raise RecipeError(f"{WHERE}: found {found} in {self.source}, expected one of the models, by the path that they are given here")
        shared = here.keys() & earlier.keys()
        if "ratio" in self.by:
            self._check_first(request.models[0], {runtime for _, runtime in shared})
        if "latency" not in self.by and all(earlier[key].ratio is None for key in shared):
            raise RecipeError(
                f"{WHERE}: found no ratio in {self.source} of a model that runs here, expected at least one to compare; "
                "compare by latency, or give the first model and another one, both times"
            )
        notes = [
            _warning(f"{file} on {runtime} is new: there is nothing to compare it with") for file, runtime in here.keys() - earlier.keys()
        ]
        for key in shared:
            notes += self._check(earlier[key], here[key], request)
        return tuple(sorted(set(notes)))

    def _check_first(self, first: str, runtimes: Iterable[str]) -> None:
        for runtime in sorted(runtimes):
            there = [timing for timing in self.before.timings if timing.runtime == runtime]
            baseline = next((timing.file for timing in there if timing.ratio is None), first)
            # where there are no ratios at all, the first model did not run there or was alone
            if baseline != first and any(timing.ratio is not None for timing in there):
                raise RecipeError(
                    f"{WHERE}: found ratios to {baseline} on {runtime} in {self.source}, expected ratios to {first}, which is first here; "
                    f"give {baseline} as the first model, or compare by latency alone"
                )

    def _check(self, before: Timing, entry: Entry, request: Request) -> list[Note]:
        where = f"{WHERE}: {before.file} on {before.runtime}"
        shapes = {name: array.shape for name, array in entry.subject.feed.items()}
        for what, there, here in (("threads", before.threads, request.threads), ("shapes", before.shapes, shapes)):
            if there != here:
                raise RecipeError(f"{where}: found {what} {there} there and {here} here, expected the same; measure both alike")
        notes = []
        of_runtime = (entry.runtime, before.runtime_version, version(entry.runtime))
        for what, earlier, now in (of_runtime, ("provider", before.provider, request.provider_word)):
            if earlier == now:
                continue
            found = f"{what} {earlier} there and {now} here"
            if "latency" in self.by:
                raise RecipeError(f"{where}: found {found}, expected the same; compare by ratio alone, or measure the earlier models again")
            notes.append(_warning(f"{found}: only ratios are compared"))
        return notes

    def regressions(self, now: Iterable[Timing]) -> tuple[Regression, ...]:
        """Return each figure that is larger than it was by more than the tolerance; what only one of the two has is left out."""
        earlier, found = _by_key(self.before.timings), []
        for timing in now:
            for figure in self.by:
                before, after = _figure(earlier.get((timing.file, timing.runtime)), figure), _figure(timing, figure)
                if before is not None and after is not None and after > before * (1 + self.tolerance):
                    found.append(
                        Regression(
                            file=timing.file,
                            runtime=timing.runtime,
                            figure=figure,
                            before=before,
                            after=after,
                            tolerance=self.tolerance,
                        )
                    )
        return tuple(found)


def _figure(timing: Timing | None, figure: Figure) -> float | None:
    if timing is None or figure == "latency":
        return None if timing is None else timing.median_ms
    return None if timing.ratio is None else timing.ratio.value


def _by_key(timings: Iterable[Timing]) -> dict[tuple[str, str], Timing]:
    return {(timing.file, timing.runtime): timing for timing in timings}


def _warning(reason: str) -> Note:
    return Note(WHERE, reason, kind="warning")
