"""Sample by sample: those of which the quantized network says something else, or that lie furthest from the float network."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from zeropoint.data import Samples, fed
from zeropoint.data.pictures import has_pictures, picture
from zeropoint.evaluate.fidelity import Labels, OutputFidelity
from zeropoint.notes import counted
from zeropoint.progress import Progress
from zeropoint.report.table import Cell, Column, Row, Table, decibels

MOST_PICTURES = 24
MOST_ROWS = 50
SIDE = 208  # pixels of a thumbnail, of which a page shows about as many


@dataclass(frozen=True, slots=True)
class Answer:
    """What a network, or the label, says of a sample; `tone` tells whether it is right, where that is known."""

    who: str
    text: str
    tone: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A sample's picture as a data: URI, and the answers."""

    name: str
    uri: str
    width: int
    height: int
    answers: tuple[Answer, ...]
    sqnr: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    """Pictures of samples, or a table of them, under a sentence that says what is shown of how many."""

    heading: str = "Samples"
    lead: str
    pictures: Sequence[Shown] = ()
    table: Table
    template: ClassVar[str] = "samples.html"
    draws: ClassVar[bool] = False


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """One output, sample by sample: names, SQNR in dB, both networks' classes (samples, 2) and labels where there are any."""

    samples: Samples
    decibels: npt.NDArray[np.float64]
    classes: npt.NDArray[np.int64] | None
    labels: Labels | None

    def answers(self, position: int) -> tuple[Answer, ...]:
        """What both networks say of a sample, and its label."""
        if self.classes is None:
            return ()
        label = int(self.labels[position]) if self.labels is not None else None
        said = zip(("float", "quantized"), self.classes[position].tolist(), strict=True)
        answers = [Answer(who, _class(found), "" if label is None else "good" if found == label else "bad") for who, found in said]
        return (*answers, *([Answer("label", str(label))] if label is not None else []))


def sample_view(samples: Samples | None, fidelity: Sequence[OutputFidelity], labels: Labels | None, *, progress: Progress) -> SampleView:
    """Return the samples of the output that looks like logits, else of the one that is furthest from the float network."""
    judged, said = _judged(samples, fidelity, labels)
    if judged is None:
        return SampleView(lead=said, table=_table([], judged))
    worst = np.argsort(judged.decibels, kind="stable")
    if judged.classes is None:
        lead = f"{said}: the {min(MOST_ROWS, len(worst))} furthest from the float network."
        return SampleView(lead=lead, table=_table(worst[:MOST_ROWS], judged))
    changed = [int(position) for position in worst if judged.classes[position, 0] != judged.classes[position, 1]]
    told = f"{len(changed)} of {counted(len(worst), 'sample')} changed the largest class"
    if not changed:
        lead = f"None of {counted(len(worst), 'sample')} changed the largest class. The {min(MOST_ROWS, len(worst))} furthest from float:"
        return SampleView(lead=lead, table=_table(worst[:MOST_ROWS], judged))
    if not has_pictures(judged.samples):
        return SampleView(lead=f"{told}, the furthest from float first.", table=_table(changed[:MOST_ROWS], judged))
    chosen = changed[:MOST_PICTURES]
    pictures = []
    for done, position in enumerate(chosen, start=1):
        pictures.append(_shown(judged, position))
        progress("drawing samples", done, len(chosen))
    shown = "" if len(chosen) == len(changed) else f" {len(chosen)} of these are shown."
    return SampleView(lead=f"{told}, the furthest from float first.{shown}", pictures=pictures, table=_table([], judged))


def _judged(samples: Samples | None, fidelity: Sequence[OutputFidelity], labels: Labels | None) -> tuple[Answers | None, str]:
    """Return what can be shown sample by sample, or None, and a sentence on it."""
    if samples is None or not fidelity:
        return None, "The networks were not compared on samples."
    samples = fed(samples)
    fitting = [output for output in fidelity if output.sample_db is not None and len(output.sample_db) == len(samples)]
    if not fitting:
        return None, "No output has a row for each sample, so that they cannot be told apart."
    logits = [output for output in fitting if output.classes is not None]
    output = logits[0] if logits else min(fitting, key=lambda found: found.sqnr_db)
    assert output.sample_db is not None
    known = labels if labels is not None and len(labels) == len(samples) else None
    told = f"{counted(len(samples), 'sample')} by output {output.output}"
    return Answers(samples, output.sample_db, output.classes, known), told


def _shown(judged: Answers, position: int) -> Shown:
    name = judged.samples.source.name(judged.samples.indices[position])
    small = picture(judged.samples, position, side=SIDE)
    uri = f"data:{small.media_type};base64,{b64encode(small.content).decode()}"
    return Shown(name, uri, small.width, small.height, judged.answers(position), decibels(float(judged.decibels[position])).text)


def _table(positions: Sequence[int] | npt.NDArray[np.intp], judged: Answers | None) -> Table:
    names = [Column(title="Sample"), Column(title="SQNR", align="right")]
    answers = () if judged is None or judged.classes is None else judged.answers(0)
    columns = [*names, *(Column(title=answer.who, align="right") for answer in answers)]
    rows = [Row(_cells(judged, int(position))) for position in positions] if judged is not None else []
    return Table(heading="Samples by SQNR", columns=columns, rows=rows)


def _cells(judged: Answers, position: int) -> list[Cell]:
    name = judged.samples.source.name(judged.samples.indices[position])
    answers = [Cell(answer.text, _number(answer.text), "bad" if answer.tone == "bad" else "") for answer in judged.answers(position)]
    return [Cell(name, None, "code"), decibels(float(judged.decibels[position])), *answers]


def _class(found: int) -> str:
    return str(found) if found >= 0 else "none (NaN)"


def _number(text: str) -> float:
    return float(text) if text.isdigit() else math.nan
