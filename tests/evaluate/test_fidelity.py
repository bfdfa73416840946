"""The oracle is the definition, in loops over Python floats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from zeropoint.errors import DataError
from zeropoint.evaluate.fidelity import OutputFidelity, compare_outputs

Array = npt.NDArray[Any]
Outputs = dict[str, Any]


def f32(values: object) -> Array:
    return np.array(values, np.float32)


def runner(outputs: Sequence[Outputs]) -> Callable[[dict[str, Array]], Outputs]:
    return lambda feed: outputs[int(feed["index"])]


def compare(reference: Sequence[Outputs], quantized: Sequence[Outputs], labels: Sequence[int] | None = None) -> tuple[OutputFidelity, ...]:
    feeds = ({"index": np.asarray(i)} for i in range(len(reference)))
    known = None if labels is None else np.asarray(labels, np.int64)
    return compare_outputs(runner(reference), runner(quantized), feeds, labels=known)


def compare_one(reference: Sequence[Array], quantized: Sequence[Array], labels: Sequence[int] | None = None) -> OutputFidelity:
    [fidelity] = compare([{"y": array} for array in reference], [{"y": array} for array in quantized], labels)
    assert fidelity.output == "y"
    return fidelity


def rows(arrays: Sequence[Array]) -> Iterator[list[float]]:
    """Every sample as a flat list: along axis 0, or the scalar alone."""
    for array in arrays:
        for sample in array if array.ndim else [array]:
            yield [float(value) for value in np.asarray(sample).ravel()]


def decibels(signal: float, error: float) -> float:
    return math.inf if error == 0 else -math.inf if signal == 0 else 10 * math.log10(signal / error)


def percentile(values: Sequence[float], percent: int) -> float:
    return sorted(values)[(len(values) - 1) * percent // 100]


def slow_fidelity(reference: Sequence[Array], quantized: Sequence[Array]) -> dict[str, float]:
    signal = error = energy = dot = largest = 0.0
    each = []
    for ref, act in zip(rows(reference), rows(quantized), strict=True):
        own_signal = sum(r * r for r in ref)
        own_error = sum((r - a) ** 2 for r, a in zip(ref, act, strict=True))
        each.append(decibels(own_signal, own_error))
        signal, error, energy = signal + own_signal, error + own_error, energy + sum(a * a for a in act)
        dot += sum(r * a for r, a in zip(ref, act, strict=True))
        largest = max(largest, *(abs(r - a) for r, a in zip(ref, act, strict=True)))
    return {
        "sqnr_db": decibels(signal, error),
        "sqnr_median_db": percentile(each, 50),
        "sqnr_worst_db": percentile(each, 1),
        "cosine": dot / math.sqrt(signal * energy),
        "max_error": largest,
        "incomparable": 0,
    }


def noisy(array: Array, seed: int, noise: float = 0.05) -> Array:
    return np.asarray(array + noise * np.random.default_rng(seed).standard_normal(array.shape)).astype(array.dtype)


def outputs(*shapes: tuple[int, ...], dtype: Any = np.float32, seed: int = 1, scale: float = 3.0) -> list[Array]:
    generator = np.random.default_rng(seed)
    arrays = [np.asarray(scale * generator.standard_normal(shape)).astype(dtype) for shape in shapes]
    for array in arrays:
        array.flags.writeable = False
    return arrays


@pytest.mark.parametrize(
    ("reference", "noise"),
    [
        pytest.param(outputs(*[(1, 10)] * 20), 0.05, id="one-sample-per-feed"),
        pytest.param(outputs(*[(7, 10)] * 5), 0.05, id="several-samples-per-feed"),
        pytest.param(outputs((4, 3), (4, 3), (1, 3)), 0.05, id="ragged-last-batch"),
        pytest.param(outputs(*[(2, 3, 4, 4)] * 3), 0.05, id="feature-maps"),
        pytest.param(outputs(*[()] * 9), 0.05, id="scalars"),
        pytest.param(outputs(*[(3,)] * 4), 0.05, id="vectors-are-a-number-per-sample"),
        pytest.param(outputs((1, 2), (3, 5), (2, 4)), 0.05, id="shapes-that-follow-the-data"),
        pytest.param(outputs(*[(2, 6)] * 4, dtype=np.int64, scale=50.0), 5.0, id="int64"),
        pytest.param(outputs(*[(2, 6)] * 4, dtype=np.int8, scale=30.0), 5.0, id="int8-does-not-wrap"),
        pytest.param(outputs(*[(2, 6)] * 4, dtype=np.float16, scale=300.0), 5.0, id="float16-does-not-overflow"),
        pytest.param(outputs(*[(1, 4)] * 301), 0.5, id="worst-is-the-1st-percentile-of-many"),
    ],
)
def test_numbers_are_those_of_the_definition(reference: list[Array], noise: float) -> None:
    quantized = [noisy(array, seed, noise) for seed, array in enumerate(reference)]
    found = compare_one(reference, quantized)
    expected = slow_fidelity(reference, quantized)
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=1e-9)
    assert math.isfinite(found.sqnr_db)


def test_each_output_is_judged_by_itself() -> None:
    near, far = outputs((3, 4), (3, 4)), outputs((3, 2, 2), (3, 2, 2), seed=2)
    quantized = [{"far": noisy(f, 1, 0.5), "near": noisy(n, 2, 0.01)} for n, f in zip(near, far, strict=True)]
    found = compare([{"near": n, "far": f} for n, f in zip(near, far, strict=True)], quantized)
    assert [output.output for output in found] == ["near", "far"]
    for name, output in zip(("near", "far"), found, strict=True):
        expected = slow_fidelity({"near": near, "far": far}[name], [each[name] for each in quantized])
        assert output.sqnr_db == pytest.approx(expected["sqnr_db"])


@pytest.mark.parametrize("batch", [1, 4, 20], ids=lambda batch: f"batch-{batch}")
def test_agreement_and_accuracy_count_largest_classes(batch: int) -> None:
    [everything] = outputs((20, 5), seed=3)
    changed = noisy(everything, 4, noise=2.0)
    labels = [int(label) for label in np.random.default_rng(6).integers(0, 5, 20)]
    found = compare_one(np.split(everything, 20 // batch), np.split(changed, 20 // batch), labels)
    best = [max(range(5), key=row.__getitem__) for row in everything.tolist()]
    best_changed = [max(range(5), key=row.__getitem__) for row in changed.tolist()]
    assert found.agreement == sum(a == b for a, b in zip(best, best_changed, strict=True)) / 20
    assert found.float_accuracy == sum(a == b for a, b in zip(best, labels, strict=True)) / 20
    assert found.accuracy == sum(a == b for a, b in zip(best_changed, labels, strict=True)) / 20
    assert len({found.agreement, found.float_accuracy, found.accuracy, 0.0, 1.0}) == 5  # no case is trivial


UNIT = np.linalg.qr(np.random.default_rng(0).standard_normal((4, 4)))[0].astype(np.float32)


@pytest.mark.parametrize(
    ("output", "is_logits"),
    [
        pytest.param(f32([[1, -2, 3]]), True, id="logits"),
        pytest.param(f32([[0.1, 0.2, 0.7]]), True, id="probabilities"),
        pytest.param(f32([[0, 1, 0]]), True, id="certain-probabilities-have-unit-length"),
        pytest.param(UNIT, False, id="unit-length-embeddings"),
        pytest.param(f32([[1.5]]), False, id="one-column"),
        pytest.param(f32([1, 2, 3]), False, id="vector"),
        pytest.param(np.zeros((1, 3, 2), np.float32), False, id="rank-3"),
        pytest.param(np.array([[1, 2, 3]]), False, id="integers"),
        pytest.param(np.zeros((0, 3), np.float32), False, id="no-rows"),
    ],
)
def test_classes_are_compared_only_in_what_looks_like_logits(output: Array, is_logits: bool) -> None:
    found = compare_one([output], [output], [0] * len(output))
    assert [found.agreement, found.float_accuracy is None, found.accuracy is None] == (
        [1.0, False, False] if is_logits else [None, True, True]
    )


def test_one_feed_unlike_logits_is_enough_to_judge_no_classes() -> None:
    arrays = [f32([[1, -2]]), f32([[0.6, -0.8]]), f32([[3, 1]])]
    assert compare_one(arrays, arrays).agreement is None


@pytest.mark.parametrize("side", ["float", "quantized", "both"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=str)
def test_sample_with_a_number_that_is_not_finite_is_infinitely_wrong(side: str, value: float) -> None:
    reference, quantized = f32([[1, 2], [3, 4], [5, 6]]), f32([[1, 2], [3, 4.5], [5, 6.5]])
    if side != "quantized":
        reference[1, 0] = value
    if side != "float":
        quantized[1, 0] = value
    found = compare_one([reference], [quantized], [1, 0, 1])
    assert (found.sqnr_db, found.sqnr_worst_db, found.max_error, found.incomparable) == (-math.inf, -math.inf, math.inf, 1)
    assert math.isnan(found.cosine)
    assert found.sqnr_median_db == pytest.approx(10 * math.log10(61 / 0.25))


@pytest.mark.parametrize(
    ("side", "expected"),
    [
        pytest.param("float", (2 / 3, 2 / 3, 1.0), id="in-the-float-network"),
        pytest.param("quantized", (2 / 3, 1.0, 2 / 3), id="in-the-quantized-network"),
        pytest.param("both", (2 / 3, 2 / 3, 2 / 3), id="in-both"),
    ],
)
def test_nan_agrees_with_no_class_and_no_label(side: str, expected: tuple[float, ...]) -> None:
    clean = f32([[1, 2], [3, 4], [5, 6]])
    broken = clean.copy()
    broken[1, 1] = np.nan
    found = compare_one([clean if side == "quantized" else broken], [clean if side == "float" else broken], [1, 1, 1])
    assert (found.agreement, found.float_accuracy, found.accuracy) == expected


@pytest.mark.parametrize(
    ("reference", "quantized", "samples"),
    [
        pytest.param((3, 2), (2, 2), 3, id="fewer-detections"),
        pytest.param((2, 2), (3, 2), 2, id="more-detections"),
        pytest.param((0, 2), (1, 2), 1, id="a-detection-from-nothing"),
        pytest.param((1, 2), (0, 2), 1, id="nothing-from-a-detection"),
        pytest.param((2, 3), (2, 4), 2, id="other-columns"),
        pytest.param((2, 0), (2, 3), 2, id="columns-from-nothing"),
        pytest.param((4,), (4, 1), 4, id="other-rank-that-would-broadcast"),
    ],
)
@pytest.mark.parametrize("dtype", [np.float32, np.int64], ids=lambda dtype: dtype.__name__)
def test_another_shape_is_infinitely_wrong(reference: tuple[int, ...], quantized: tuple[int, ...], samples: int, dtype: type) -> None:
    same: Array = np.ones((1, 2), dtype)
    found = compare_one([same, np.ones(reference, dtype)], [same, np.ones(quantized, dtype)])
    assert (found.sqnr_db, found.max_error, found.incomparable) == (-math.inf, math.inf, samples)
    assert math.isnan(found.cosine)
    assert found.agreement in (None, 1 / (1 + samples))


def test_nothing_found_by_either_network_is_no_error() -> None:
    nothing = np.zeros((0, 7), np.float32)
    found = compare_one([nothing, np.ones((2, 7), np.float32)], [nothing, np.ones((2, 7), np.float32)])
    assert (found.sqnr_db, found.incomparable, found.cosine, found.max_error) == (math.inf, 0, pytest.approx(1.0), 0.0)


@pytest.mark.parametrize(
    ("reference", "quantized", "sqnr_db", "cosine"),
    [
        pytest.param([[0, 0]], [[0, 0]], math.inf, 1.0, id="zero-kept"),
        pytest.param([[0, 0]], [[0, 1]], -math.inf, 0.0, id="zero-lost"),
        pytest.param([[3, 4]], [[0, 0]], 0.0, 0.0, id="all-lost"),
        pytest.param([[3, 4]], [[3, 4]], math.inf, 1.0, id="equal"),
        pytest.param([[3, 4]], [[-3, -4]], -20 * math.log10(2), -1.0, id="opposite"),
    ],
)
def test_extreme_signals(reference: list[list[int]], quantized: list[list[int]], sqnr_db: float, cosine: float) -> None:
    found = compare_one([f32(reference)], [f32(quantized)])
    assert (found.sqnr_db, found.sqnr_median_db, found.sqnr_worst_db) == pytest.approx((sqnr_db,) * 3)
    assert (found.cosine, found.incomparable) == (pytest.approx(cosine), 0)


SKIPPED = [
    pytest.param([np.ones(3)], id="sequence"),
    pytest.param(None, id="empty-optional"),
    pytest.param(np.array([True]), id="bool"),
    pytest.param(np.array(["text"]), id="text"),
]


@pytest.mark.parametrize("other", SKIPPED)
def test_what_is_no_tensor_of_numbers_is_skipped(other: object) -> None:
    both = [{"other": other, "y": np.ones((1, 2), np.float32)}]
    assert [output.output for output in compare(both, both)] == ["y"]


@pytest.mark.parametrize("other", SKIPPED)
def test_network_without_numbers_has_no_fidelity(other: object) -> None:
    assert compare([{"other": other}], [{"other": other}]) == ()


def test_no_samples_is_an_error() -> None:
    with pytest.raises(DataError, match=r"evaluation data: found no samples, expected at least one; give some to judge by"):
        compare([], [])


@pytest.mark.parametrize("count", [0, 2, 4])
def test_other_number_of_labels_is_an_error(count: int) -> None:
    with pytest.raises(DataError, match=f"labels: found {count} for 3 samples, expected one for each"):
        compare_one(outputs((3, 2)), outputs((3, 2)), [0] * count)


def test_labels_are_for_the_output_that_has_a_row_for_each() -> None:
    both = [{"boxes": boxes, "classes": classes} for boxes, classes in zip(outputs((6, 4), (6, 4)), outputs((1, 3), (1, 3)), strict=True)]
    boxes, classes = compare(both, both, [0, 1])
    assert (boxes.accuracy, classes.agreement) == (None, 1.0)
    assert classes.accuracy == sum(int(o["classes"].argmax()) == label for label, o in enumerate(both)) / 2


@pytest.mark.parametrize(("highest", "judged"), [(4, True), (5, False), (999, False)], ids=["fits", "one-too-many", "other-classes"])
def test_labels_beyond_the_classes_judge_nothing(highest: int, judged: bool) -> None:
    logits = np.random.default_rng(3).standard_normal((4, 5)).astype(np.float32)
    found = compare_one([logits], [logits], [0, 1, 2, highest])
    assert (found.accuracy is not None, found.float_accuracy is not None, found.agreement) == (judged, judged, 1.0)


def test_each_sample_is_kept_by_itself_but_neither_printed_nor_compared() -> None:
    reference = [f32([[1, 2], [3, 1]]), f32([[0, 4]])]
    quantized = [f32([[1, 2], [3, 4]]), f32([[np.nan, 4]])]
    found = compare_one(reference, quantized)
    assert found.sample_db is not None and found.classes is not None
    assert found.sample_db.tolist() == [math.inf, pytest.approx(10 * math.log10(10 / 9)), -math.inf]
    assert found.classes.tolist() == [[1, 1], [0, 1], [1, -2]]
    assert "sample_db" not in repr(found) and "classes" not in repr(found)
    assert found == compare_one(reference, quantized)
    assert compare_one([np.ones((1, 3, 2), np.float32)], [np.ones((1, 3, 2), np.float32)]).classes is None
