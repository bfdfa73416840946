"""What a network is for, as a figure: largest classes that are right, texts misread, boxes found.

Each judge takes the outputs of all evaluation samples and what is known of them, and knows nothing of the network that gave them, so
that float networks and all quantizers' files are judged by the same lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float32]
Boxes = npt.NDArray[np.float32]  # (boxes, 4): left, top, right, bottom, as shares of the photo's width and height

LEAST_SCORE = 0.001  # of a box: what lies below moves no figure, and costs time
SUPPRESSED = 0.45  # boxes of a class that overlap a better one by more than this are the same thing
MATCHED = 0.5  # the overlap from which a box is found: the 50 in AP50
RECALLS = np.linspace(0.0, 1.0, 101)  # at which COCO reads the precision
PHOTO, CLASS = 0, 1  # the columns of labels before those of the box


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """What a detector says it sees in one photo: boxes with their classes (boxes,) and scores (boxes,) in 0..1, best first."""

    boxes: Boxes
    classes: npt.NDArray[np.int64]
    scores: FloatArray


# --- classes and texts -----------------------------------------------------------------------------------------------------


def top1(outputs: Sequence[FloatArray], labels: npt.NDArray[np.generic]) -> float:
    """Return the share of samples whose largest class is the label; outputs: (1, classes) each; a NaN is no class."""
    predicted = np.array([-1 if np.isnan(output).any() else output[0].argmax() for output in outputs])
    return float(np.mean(predicted == labels))


def character_error_rate(outputs: Sequence[FloatArray], labels: Sequence[str], alphabet: Sequence[str]) -> float:
    """Return how many characters of the texts have to be mended for each that `labels` have; outputs: (1, time, characters) each."""
    wrong = sum(edit_distance(ctc_text(output[0], alphabet), label) for output, label in zip(outputs, labels, strict=True))
    return wrong / sum(map(len, labels))


def ctc_text(scores: FloatArray, alphabet: Sequence[str]) -> str:  # (time, characters)
    """Return the text of the best character at each time, repetitions taken once; the alphabet's first entry is the blank."""
    best = scores.argmax(-1)
    kept = best[np.flatnonzero(np.diff(best, prepend=-1))]
    return "".join(alphabet[i] for i in kept).strip()


def edit_distance(a: str, b: str) -> int:
    """Return how many characters to insert, delete or replace to turn `a` into `b` (Levenshtein).

    Example:
        >>> edit_distance("kitten", "sitting")
        3
    """
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        previous, row = row, [i]
        for j, y in enumerate(b, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (x != y)))
    return row[-1]


# --- boxes -----------------------------------------------------------------------------------------------------------------


def average_precision(outputs: Sequence[FloatArray], labels: npt.NDArray[np.float32]) -> float:
    """Return AP50 of FastestDet: the precision at COCO's 101 recalls, averaged over them and over the classes that `labels` have.

    outputs: (1, 85, H, W) for each photo. labels: (boxes, 6): the photo's place in `outputs`, the class, the box's left, top, right
    and bottom.
    """
    found = [detections(output[0]) for output in outputs]
    classes = np.unique(labels[:, CLASS]).astype(int)
    return float(np.mean([_precision_of(int(one), found, labels[labels[:, CLASS] == one]) for one in classes]))


def detections(output: FloatArray) -> Detections:
    """Return what FastestDet's output (85, H, W) says: in each cell whether there is something, where, and what it is."""
    thing, (tx, ty, tw, th), shares = output[0], output[1:5], output[5:]
    rows, columns = thing.shape
    y, x = np.mgrid[:rows, :columns]
    cx, cy, w, h = (x + np.tanh(tx)) / columns, (y + np.tanh(ty)) / rows, _sigmoid(tw), _sigmoid(th)
    # Rounding may leave a share a little below 0, of which there is no such power; nor is NaN a score.
    scores = np.nan_to_num(np.maximum(thing, 0.0) ** 0.6 * np.maximum(shares.max(axis=0), 0.0) ** 0.4)
    boxes = np.stack([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], axis=-1)
    order = np.argsort(-scores, axis=None, kind="stable")
    order = order[scores.reshape(-1)[order] > LEAST_SCORE]
    ranked = boxes.reshape(-1, 4)[order], shares.argmax(axis=0).reshape(-1)[order], scores.reshape(-1)[order]
    kept = _without_repetitions(*ranked[:2])
    return Detections(*(array[kept] for array in ranked))


def _sigmoid(array: FloatArray) -> FloatArray:
    half = np.float32(0.5)
    return np.asarray(half * (np.tanh(half * array) + 1), np.float32)  # as exp would have it, but never overflows


def _without_repetitions(boxes: Boxes, classes: npt.NDArray[np.int64]) -> list[int]:
    """Return which boxes, best first, overlap none of their class that is better and kept."""
    repeated = (overlaps(boxes, boxes) > SUPPRESSED) & (classes[:, None] == classes)
    kept: list[int] = []
    for i in range(len(boxes)):
        if not repeated[i, kept].any():
            kept.append(i)
    return kept


def overlaps(a: Boxes, b: Boxes) -> npt.NDArray[np.float32]:  # (A, 4), (B, 4) -> (A, B)
    """Return the intersection over the union of each box of `a` with each of `b`; 0 where neither has an area."""
    low, high = np.maximum(a[:, None, :2], b[:, :2]), np.minimum(a[:, None, 2:], b[:, 2:])
    shared = np.maximum(high - low, 0).prod(axis=-1)
    union = _areas(a)[:, None] + _areas(b) - shared
    return np.asarray(np.divide(shared, union, out=np.zeros_like(shared), where=union > 0))


def _areas(boxes: Boxes) -> FloatArray:
    return np.asarray((boxes[:, 2:] - boxes[:, :2]).prod(axis=-1))


def _precision_of(one: int, found: Sequence[Detections], labels: npt.NDArray[np.float32]) -> float:
    """Return the average precision of a class, of whose boxes there is at least one."""
    ranked: list[tuple[float, bool]] = []
    for photo, seen in enumerate(found):
        mine = seen.classes == one
        hits = _hits(seen.boxes[mine], labels[labels[:, PHOTO] == photo, 2:])
        ranked += zip(seen.scores[mine].tolist(), hits, strict=True)
    ranked.sort(key=lambda pair: -pair[0])
    right = np.cumsum([hit for _, hit in ranked])
    precision = np.append(np.maximum.accumulate((right / np.arange(1, len(ranked) + 1))[::-1])[::-1], 0.0)
    return float(precision[np.searchsorted(right / len(labels), RECALLS)].mean())


def _hits(boxes: Boxes, labels: Boxes) -> list[bool]:
    """Say of each box, best first, whether the label that it overlaps most, of those that no better box has taken, is its own."""
    free, hits = overlaps(boxes, labels), []
    for i in range(len(boxes)):
        best = int(free[i].argmax()) if len(labels) else -1
        hits.append(best >= 0 and bool(free[i, best] >= MATCHED))
        if hits[-1]:
            free[:, best] = 0.0
    return hits
