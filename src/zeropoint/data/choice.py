"""Choose the samples of one run: those that calibrate and those that, held out, judge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zeropoint.data.batches import fed, feed_count
from zeropoint.data.inputs import InputInfo
from zeropoint.data.labels import Labels, load_labels
from zeropoint.data.open import open_data
from zeropoint.data.preprocess import Preprocess
from zeropoint.data.random import NOT_REAL
from zeropoint.data.samples import Samples
from zeropoint.data.split import split
from zeropoint.errors import DataError, RecipeError
from zeropoint.notes import Note, counted
from zeropoint.recipe import Recipe

MOST_EVALUATED = 1000
HELD_OUT_SHARE = 5  # where calibration could use up the data, one sample in five is kept to judge by


@dataclass(frozen=True, slots=True)
class Request:
    """What a user said of the data: `data` calibrates, `eval_data` judges, and what it leaves out is None."""

    data: object
    eval_data: object
    labels: object
    preprocess: Preprocess | None
    recipe: Recipe
    inputs: tuple[InputInfo, ...]

    def open(self, data: object, limit: int) -> Samples:
        """Open up to `limit` samples of `data`, where that can be read only once or is drawn."""
        return open_data(data, self.inputs, preprocess=self.preprocess, limit=limit, seed=self.recipe.seed)


@dataclass(frozen=True, slots=True)
class Choice:
    """The samples of one run, and the labels of those that judge."""

    calibration: Samples | None
    evaluation: Samples | None
    labels: Labels | None
    notes: tuple[Note, ...] = ()


def choose_samples(request: Request, *, calibrate: bool, evaluate: bool) -> Choice:
    """Open the data and divide it: as many samples as the recipe says calibrate, those of `eval_data` or those left judge.

    What is not asked for is None. Where a plan takes the place of calibration, the same samples judge as beside it.

    Raises:
        DataError: what is asked for is not there, or samples or labels cannot be read or do not fit the network.
        RecipeError: there is something to judge by, but nothing is to be judged.
    """
    _check_given(request, calibrate=calibrate, evaluate=evaluate)
    wanted = request.recipe.samples
    calibration = evaluation = labels = None
    if evaluate and request.eval_data is None:
        found = request.open(request.data, wanted + MOST_EVALUATED)
        calibration, evaluation = split(found, min(wanted, max(1, len(found) - len(found) // HELD_OUT_SHARE)), MOST_EVALUATED)
    elif evaluate:
        evaluation = split(request.open(request.eval_data, MOST_EVALUATED), MOST_EVALUATED, 1)[0]
    if not calibrate:
        calibration = None
    elif calibration is None:
        calibration = split(request.open(request.data, wanted), wanted, 1)[0]
    if evaluation is not None and feed_count(evaluation, 1) == 0:  # too few for one batch, where that is fixed
        evaluation = evaluation[:0]
    if request.labels is not None and evaluation:
        labels = load_labels(request.labels, fed(evaluation))
    notes = _notes(calibration, evaluation, wanted)
    if calibration is not None and evaluation and _same(request.data, request.eval_data):
        notes += (
            Note("held-out", "the samples that calibrate also judge; give others as evaluation data, or leave it out", kind="warning"),
        )
    return Choice(calibration, evaluation or None, labels, notes)


def _check_given(request: Request, *, calibrate: bool, evaluate: bool) -> None:
    if request.data is None and (calibrate or (evaluate and request.eval_data is None)):
        what = "calibrate with" if calibrate else "judge by"
        other = "" if calibrate else ", or evaluation turned off"
        raise DataError(
            f"data: found none to {what}, expected samples of what the network sees in use{other}; 'random' makes a trial on random numbers"
        )
    for option, given in (("eval_data", request.eval_data), ("labels", request.labels)):
        if given is not None and not evaluate:
            raise RecipeError(f"{option}: found {_text(given)}, but evaluation is turned off; turn it on, or leave this out")


def _same(data: object, eval_data: object) -> bool:
    if isinstance(data, str | Path) and isinstance(eval_data, str | Path):
        return str(data) != "random" and Path(data).absolute() == Path(eval_data).absolute()
    return data is eval_data


def _text(given: object) -> str:
    return repr(given) if isinstance(given, str) else f"a {type(given).__name__}"


def _notes(calibration: Samples | None, evaluation: Samples | None, wanted: int) -> tuple[Note, ...]:
    notes = [
        Note(stage, f"on {NOT_REAL}: a trial, which says nothing of how the network does in use", kind="warning")
        for stage, part in (("calibration", calibration), ("evaluation", evaluation))
        if part is not None and NOT_REAL in part.description
    ]
    if calibration is not None and len(calibration) < wanted:
        notes.append(Note("calibration", f"{counted(len(calibration), 'sample')}, where {wanted} were asked for", kind="run"))
    if evaluation is not None and len(evaluation) == 0:
        notes.append(Note("evaluation", "too few samples were left to judge by; give more, or evaluation data of their own", kind="run"))
    return tuple(notes)
