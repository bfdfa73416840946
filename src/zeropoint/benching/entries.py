"""Who takes part in a benchmark: each model on each runtime that is here and runs it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zeropoint.benching.inputs import Shapes, check_shapes, guessed, numbers
from zeropoint.data import Feed
from zeropoint.errors import ModelError, RecipeError
from zeropoint.graph.load import given_size, input_infos, load
from zeropoint.notes import Note
from zeropoint.runtime import RUNTIMES, Session, is_installed, open_runtime
from zeropoint.runtime.onnxruntime import CPU, SUFFIX
from zeropoint.targets import TARGETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What to measure: files, runtimes, and how. Fields as the parameters of `bench`; provider by ONNX Runtime's name."""

    models: tuple[str, ...]
    runtimes: tuple[str, ...]
    threads: int
    batch: int | None
    seconds: float
    shapes: Shapes
    provider: str = CPU

    def __post_init__(self) -> None:
        known = dict.fromkeys((*RUNTIMES, *(target.runtime for target in TARGETS.values())))
        unknown = [name for name in self.runtimes if name not in known]
        if not self.models or not self.runtimes:
            raise RecipeError("models: found no model or no runtime, expected at least one of each")
        if unknown:
            raise RecipeError(f"runtimes: found {unknown[0]!r}, expected one of {', '.join(known)}")
        if self.provider != CPU and self.runtimes != ("onnxruntime",):
            raise RecipeError("provider: found one of ONNX Runtime's beside another runtime, expected it alone; measure the others apart")
        if self.threads < 0:
            raise RecipeError(f"threads: found {self.threads}, expected a number from 0 on, which is the runtime's own choice")
        if self.batch is not None and self.batch < 1:
            raise RecipeError(f"batch: found {self.batch}, expected at least 1")
        if not 0 < self.seconds < float("inf"):
            raise RecipeError(f"seconds: found {self.seconds}, expected more than 0: how long each model is timed on each runtime")

    @property
    def provider_word(self) -> str:
        """The provider as it is typed, such as "cpu"."""
        return self.provider.removesuffix(SUFFIX).lower()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Subject:
    """One model, and what it is fed. guessed: inputs of which an axis is 1 for want of anything better."""

    file: str
    bytes: int
    feed: Feed = field(repr=False)
    batch: int
    guessed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """A model that was loaded on a runtime, and ran there once."""

    subject: Subject
    runtime: str
    session: Session = field(repr=False)
    is_first: bool

    def run(self) -> object:
        """Run it once."""
        return self.session.run(self.subject.feed)


def read_subjects(request: Request) -> list[Subject]:
    """Read what the models take as input, and make it.

    Raises:
        ModelError: a file is no ONNX network.
        RecipeError: a shape or the batch does not fit.
    """
    inputs = [input_infos(load(file)) for file in request.models]
    check_shapes(inputs, request.shapes)
    made = [
        numbers(of_model, shapes=request.shapes, batch=request.batch, file=file)
        for file, of_model in zip(request.models, inputs, strict=True)
    ]
    return [
        Subject(file=file, bytes=given_size(Path(file)), feed=feed, batch=batch, guessed=guessed(of_model, request.shapes))
        for file, of_model, (feed, batch) in zip(request.models, inputs, made, strict=True)
    ]


def open_entries(request: Request, subjects: Sequence[Subject]) -> tuple[list[Entry], list[Note]]:
    """Load each model on each runtime, and return those that run, and notes on the others.

    Raises:
        ModelError: none runs on any.
    """
    entries: list[Entry] = []
    notes = [Note(name, _absence(name, request.models), kind="warning") for name in request.runtimes if not is_installed(name)]
    for name in dict.fromkeys(filter(is_installed, request.runtimes)):
        for number, subject in enumerate(subjects):
            try:
                entries.append(_open(subject, name, request, is_first=number == 0))
            except ModelError as error:
                notes.append(Note(f"{subject.file} on {name}", f"not measured: {error}", kind="warning"))
    if not entries:
        raise ModelError(f"no model runs on any of the runtimes: {'; '.join(map(str, notes))}{_advice(subjects, request)}")
    return entries, [*notes, *_without_baseline(entries, subjects), *_with_guesses(subjects)]


def _open(subject: Subject, name: str, request: Request, *, is_first: bool) -> Entry:
    session = open_runtime(name, Path(subject.file), threads=request.threads, provider=request.provider)
    assert session is not None  # it is installed
    entry = Entry(subject=subject, runtime=name, session=session, is_first=is_first)
    entry.run()
    return entry


def _absence(runtime: str, models: Iterable[str]) -> str:
    if runtime in RUNTIMES:
        return f"not measured: it is not here; pip install zeropoint[{runtime}]"
    commands = "; ".join(_commands(runtime, models))
    return f"not measured: zeropoint cannot run it; where it is installed, run by hand: {commands}"


def _commands(runtime: str, models: Iterable[str]) -> Iterator[str]:
    target = next(target for target in TARGETS.values() if target.runtime == runtime)
    for file in models:
        model, stem = (shlex.quote(str(name)) for name in (file, Path(file).with_suffix("")))
        yield target.next_command.format(model=model, stem=stem)


def _without_baseline(entries: Sequence[Entry], subjects: Sequence[Subject]) -> Iterator[Note]:
    first = {entry.runtime for entry in entries if entry.is_first}
    for name in dict.fromkeys(entry.runtime for entry in entries):
        if name not in first and len(subjects) > 1:
            yield Note(name, f"there is no ratio: the first model, {subjects[0].file}, does not run there", kind="warning")


def _with_guesses(subjects: Sequence[Subject]) -> Iterator[Note]:
    for subject in subjects:
        if subject.guessed:
            fed = ", ".join(f"{name} {subject.feed[name].shape}" for name in subject.guessed)
            reason = f"dynamic axes were taken as 1: it was fed {fed}, which may be far from real inputs; give their shapes"
            yield Note(subject.file, reason, kind="warning")


def _advice(subjects: Sequence[Subject], request: Request) -> str:
    shapes = ", ".join(dict.fromkeys(f"{name} {array.shape}" for subject in subjects for name, array in subject.feed.items()))
    return f"; it was fed {shapes}: give the shapes of inputs with dynamic axes" if not request.shapes else ""
