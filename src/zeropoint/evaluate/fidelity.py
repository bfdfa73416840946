"""Compare the outputs of two networks over the same feeds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.data.inputs import Feed
from zeropoint.errors import DataError

Array = npt.NDArray[np.generic]
Run = Callable[[Feed], Mapping[str, Array]]
Labels = npt.NDArray[np.int64]
LOGITS_RANK = 2
WORST_PERCENTILE = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputFidelity:
    """How near one output stays to the float network's, over all samples: the rows along its axis 0, one where it has none.

    sqnr_db: 10 log10 of signal over error energy; median and worst are of the samples' own values, the worst being their 1st
    percentile, both the lower of two neighbours. agreement: share of samples with the same largest class; accuracies: share that
    equals the label; None where the output does not look like logits, or has not one row for each label.
    incomparable: samples whose shape differs between the networks, or that hold NaN or infinity in either. Their error counts as
    infinite, so that with a single one sqnr_db is -inf, max_error inf and cosine NaN; a NaN agrees with no class and no label.
    sample_db: each sample's own SQNR, (samples,), in the order of the feeds; classes: the largest class of each in the float and in the
    quantized network, (samples, 2), below 0 for NaN, None where the output does not look like logits. Neither is compared or printed.
    """

    output: str
    sqnr_db: float
    sqnr_median_db: float
    sqnr_worst_db: float
    cosine: float
    max_error: float
    incomparable: int
    agreement: float | None
    float_accuracy: float | None
    accuracy: float | None
    sample_db: npt.NDArray[np.float64] | None = field(default=None, repr=False, compare=False)
    classes: npt.NDArray[np.int64] | None = field(default=None, repr=False, compare=False)


@dataclass(slots=True)
class _Sums:
    signal: list[float] = field(default_factory=list)  # per sample
    error: list[float] = field(default_factory=list)
    dot: float = 0.0
    energy: float = 0.0
    max_error: float = 0.0
    predictions: list[tuple[int, int]] = field(default_factory=list)  # float's and quantized's largest class
    is_logits: bool = True
    classes: int = 0


def compare_outputs(reference: Run, quantized: Run, feeds: Iterable[Feed], *, labels: Labels | None = None) -> tuple[OutputFidelity, ...]:
    """Run both networks on all `feeds` and return the fidelity of each output that is a float or integer tensor, if any is.

    `labels` (samples,) are class indices in the order of the feeds; accuracy is judged on outputs that look like logits: of shape
    (samples, classes) and not of unit length, as embeddings are.

    Raises:
        DataError: there are no feeds, or not as many labels as samples.
    """
    sums: dict[str, _Sums] = {}
    found_none = True
    for feed in feeds:
        found_none = False
        ours = quantized(feed)
        for name, theirs in reference(feed).items():
            # Sequences and optionals come back as lists and None, whatever the runtime's signature says.
            if hasattr(theirs, "dtype") and theirs.dtype.kind in "fiu":
                _add(sums.setdefault(name, _Sums()), theirs, ours[name])
    if found_none:
        raise DataError(
            "evaluation data: found no samples, expected at least one; give some to judge by, or more samples than calibration takes"
        )
    _check_labels(sums, labels)
    return tuple(_fidelity(name, found, labels) for name, found in sums.items())


def _add(sums: _Sums, reference: Array, actual: Array) -> None:
    samples = max(1, reference.shape[0]) if reference.ndim else 1
    ref = reference.astype(np.float64).reshape(samples, -1)
    same_shape = actual.shape == reference.shape
    act = actual.astype(np.float64).reshape(samples, -1) if same_shape else np.full_like(ref, np.nan)
    with np.errstate(over="ignore", invalid="ignore"):
        signal, energy, error = (np.square(values).sum(axis=1) for values in (ref, act, ref - act))
        comparable = np.isfinite(signal + energy + error) & same_shape
    sums.signal += np.where(comparable, signal, 0.0).tolist()
    sums.error += np.where(comparable, error, np.inf).tolist()
    sums.dot += float((ref[comparable] * act[comparable]).sum())
    sums.energy += float(energy[comparable].sum())
    sums.max_error = max(sums.max_error, float(np.abs(ref - act).max(initial=0.0)) if comparable.all() else np.inf)
    sums.is_logits &= _looks_like_logits(reference)
    if sums.is_logits:
        sums.classes = ref.shape[1]
        sums.predictions += zip(_classes(ref, nothing=-1), _classes(act, nothing=-2), strict=True)


def _classes(rows: npt.NDArray[np.float64], *, nothing: int) -> list[int]:
    """The largest class of each row, and `nothing` where a NaN makes it none."""
    return [int(best) for best in np.where(np.isnan(rows).any(axis=1), nothing, rows.argmax(axis=1))]


def _looks_like_logits(output: npt.NDArray[Any]) -> bool:
    if output.ndim != LOGITS_RANK or output.shape[0] == 0 or output.shape[1] < 2 or output.dtype.kind != "f":
        return False
    return not np.allclose(np.square(output.astype(np.float64)).sum(axis=1), 1.0, atol=1e-3) or bool((output >= 0).all())


def _check_labels(sums: Mapping[str, _Sums], labels: Labels | None) -> None:
    counts = [len(found.predictions) for found in sums.values() if found.is_logits]
    if labels is not None and counts and len(labels) not in counts:
        raise DataError(f"labels: found {len(labels)} for {counts[0]} samples, expected one for each")


def _fidelity(name: str, sums: _Sums, labels: Labels | None) -> OutputFidelity:
    signal, error = np.asarray(sums.signal), np.asarray(sums.error)
    per_sample = _decibels(signal, error)
    ours = np.asarray(sums.predictions, np.int64).reshape(-1, 2) if sums.is_logits else None
    judged = ours is not None and labels is not None and len(labels) == len(ours) and int(labels.max(initial=0)) < sums.classes
    incomparable = int(np.isinf(error).sum())
    worst, median = np.percentile(per_sample, (WORST_PERCENTILE, 50.0), method="lower").tolist()
    return OutputFidelity(
        output=name,
        sqnr_db=float(_decibels(signal.sum(), error.sum())),
        sqnr_median_db=median,
        sqnr_worst_db=worst,
        cosine=np.nan if incomparable else _cosine(sums.dot, signal.sum(), sums.energy),
        max_error=sums.max_error,
        incomparable=incomparable,
        agreement=float((ours[:, 0] == ours[:, 1]).mean()) if ours is not None else None,
        float_accuracy=float((ours[:, 0] == labels).mean()) if judged else None,  # type: ignore[index]
        accuracy=float((ours[:, 1] == labels).mean()) if judged else None,  # type: ignore[index]
        sample_db=per_sample,
        classes=ours,
    )


def _cosine(dot: float, energy_a: float, energy_b: float) -> float:
    if energy_a == 0.0 or energy_b == 0.0:
        return float(energy_a == energy_b)
    return dot / float(np.sqrt(energy_a * energy_b))


def _decibels(signal: npt.ArrayLike, error: npt.ArrayLike) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        decibels = 10.0 * np.log10(np.asarray(signal, np.float64) / np.asarray(error, np.float64))
    return np.where(np.asarray(error) == 0.0, np.inf, decibels)
