"""What a calibration may take changes nothing of what comes out, and its checkpoint is all that another plan needs."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.graph.networks import Array, network

from zeropoint import api, decide
from zeropoint.api import quantizing
from zeropoint.calibrate import load_statistics
from zeropoint.calibrate.saved import save_statistics
from zeropoint.demo import Digits, load_digits
from zeropoint.errors import DataError, ModelError, RecipeError
from zeropoint.graph.store import serialize
from zeropoint.graph.taps import Taps
from zeropoint.plan import Plan, to_json
from zeropoint.result import Result
from zeropoint.targets import TARGETS

IMAGES: Array = np.random.default_rng(1).normal(0.0, 1.0, (8, 16, 8, 8)).astype(np.float32)
FUSED = network(
    "d = Conv(x, v) a = Conv <pads = [1, 1, 1, 1]> (x, w, b) s = Add(a, d) r = Relu(s) y = Conv(r, v)",
    inputs="float[N,16,8,8] x",
    weights={"w": (16, 16, 3, 3), "b": (16,)},
)


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


def quick(digits: Digits, **options: Any) -> Result:
    """16 digits calibrate, none judge."""
    return api.quantize(digits.model, **{"data": digits.calibration[:16], "target": "tensorrt", "evaluate": False, **options})


@pytest.fixture(scope="module")
def trial(digits: Digits) -> Result:
    return quick(digits)


@pytest.fixture(scope="module")
def kept(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a calibration for TensorRT."""
    path = tmp_path_factory.mktemp("kept") / "digits.stats"
    quick(digits, checkpoint=path)
    return path


def decisions(plan: Plan) -> str:
    """The plan as its file, less how it was made: in how many passes, for example."""
    return to_json(replace(plan, notes=tuple(note for note in plan.notes if note.where != "memory_budget")))


# --- what must not change the answer ---------------------------------------------------------------------------------------

RESOURCES: dict[str, Callable[[Path], dict[str, Any]]] = {
    "workers": lambda _: {"workers": 2},
    "memory budget": lambda _: {"memory_budget": "1MB"},
    "memory budget in bytes": lambda _: {"memory_budget": 1 << 40},
    "provider": lambda _: {"provider": "CPUExecutionProvider"},
}
any_resources = pytest.mark.parametrize("resources", RESOURCES.values(), ids=RESOURCES)


@any_resources
def test_resources_change_nothing(digits: Digits, trial: Result, resources: Callable[[Path], dict[str, Any]], tmp_path: Path) -> None:
    found = quick(digits, **resources(tmp_path))
    assert decisions(found.plan) == decisions(trial.plan)
    assert serialize(found.model) == serialize(trial.model)


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("form", [Path, str], ids=["path", "text"])
def test_a_checkpoint_changes_no_more_than_rounding(target: str, form: Callable[[Path], Path | str], tmp_path: Path) -> None:
    """It taps the tensors of all targets, so that ONNX Runtime may fuse less, and add in another order."""
    plain, kept = (
        api.quantize(FUSED, data=IMAGES, target=target, evaluate=False, samples=8, checkpoint=path).plan
        for path in (None, form(tmp_path / "stats"))
    )
    assert [entry.tensor for entry in kept.entries] == [entry.tensor for entry in plain.entries]
    for found, expected in zip(kept.entries, plain.entries, strict=True):
        assert found.scale == pytest.approx(expected.scale, rel=1e-4)
        assert found.zero_point == expected.zero_point


def test_passes_are_noted(digits: Digits, trial: Result) -> None:
    assert not any(note.where == "memory_budget" for note in trial.notes)
    assert any(note.where == "memory_budget" for note in quick(digits, memory_budget=1).notes)


def test_workers_and_provider_reach_the_calibration(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def calibrate(_: object, taps: object, resources: Any, **__: object) -> Any:
        asked.append(resources)
        raise DataError("enough")

    monkeypatch.setattr(decide, "calibrate", calibrate)
    with pytest.raises(DataError, match="enough"):
        quick(digits, workers=3, memory_budget="2MB", provider="cpu", checkpoint="a.stats")
    [resources] = asked
    assert (resources.workers, resources.memory_budget, resources.provider) == (3, 2_000_000, "CPUExecutionProvider")
    assert resources.checkpoint == Path("a.stats")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers: found 0, expected at least 1 process"),
        ({"memory_budget": "much"}, "memory_budget: found 'much', expected a number of bytes"),
        ({"memory_budget": 0}, "memory_budget: found 0, expected a number of bytes"),
        ({"provider": "abacus"}, "provider: found 'abacus', expected one of .*cpu"),
    ],
    ids=str,
)
def test_impossible_resources_are_an_error(digits: Digits, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        quick(digits, **options)


@pytest.mark.parametrize("options", [{"workers": 2}, {"memory_budget": "2GB"}, {"checkpoint": "a.stats"}], ids=str)
def test_resources_beside_a_plan_is_refused(digits: Digits, trial: Result, options: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=rf"^{next(iter(options))}: found .* beside a plan, with which nothing is calibrated"):
        quick(digits, data=None, plan=trial.plan, **options)


def test_a_checkpoint_that_is_complete_is_not_calibrated_again(digits: Digits, kept: Path) -> None:
    before = kept.read_bytes()
    steps: list[tuple[str, int, int]] = []
    again = quick(digits, effort="fast", checkpoint=kept, progress=lambda *step: steps.append(step))
    assert decisions(again.plan) == decisions(api.solve(kept, digits.model, target="tensorrt").plan)
    assert (kept.read_bytes(), [step[1:] for step in steps]) == (before, [(0, 0)])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 4}, "found batch_size 1, expected 4"),
        ({"samples": 8}, "found data '16 of 16 samples of arrays in memory', expected '8 of 16 samples"),
        ({"data": load_digits().calibration[:17]}, "found data '16 of 16 samples of arrays in memory', expected '17 of 17 samples"),
    ],
    ids=["batch size", "samples", "data"],
)
def test_a_checkpoint_of_something_else_is_refused(digits: Digits, kept: Path, options: dict[str, Any], message: str) -> None:
    before = kept.read_bytes()
    with pytest.raises(DataError, match=rf"checkpoint .*digits\.stats: {message}"):
        quick(digits, checkpoint=kept, **options)
    assert kept.read_bytes() == before


# --- solve -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"weight_format": "int4", "weight_granularity": "block:16"}], ids=["8 bits", "4 bits in blocks"])
@pytest.mark.parametrize("target", TARGETS)
def test_solving_gives_the_plan_that_quantizing_gives(
    digits: Digits, kept: Path, tmp_path: Path, target: str, options: dict[str, Any]
) -> None:
    expected = quick(digits, target=target, effort="fast", checkpoint=tmp_path / "stats", **options)
    found = api.solve(kept, digits.model, target=target, **options)
    assert decisions(found.plan) == decisions(expected.plan)
    assert serialize(found.model) == serialize(expected.model)
    assert found.evidence.fidelity == ()
    assert found.evidence.coverage == expected.evidence.coverage
    assert (tmp_path / "stats").read_bytes() == kept.read_bytes(), "one checkpoint serves all targets"


OPTIONS: dict[str, tuple[dict[str, Any], Callable[[Result], object]]] = {
    "solver": ({"solver": "minmax"}, lambda result: result.plan.entry("stem.relu").scale),
    "solver with a parameter": ({"solver": "percentile:99"}, lambda result: result.plan.entry("stem.relu").scale),
    "weight solver": ({"weight_solver": "minmax"}, lambda result: [entry.scale for entry in result.plan.entries]),
    "exclude": ({"exclude": ["stage1.*"]}, lambda result: result.evidence.coverage.quantized),
    "bias": ({"bias": "kept"}, lambda result: result.plan.corrections),
    "weight format": ({"weight_format": "int4"}, lambda result: result.evidence.quantized_bytes),
    "weight granularity": ({"weight_granularity": "block:16"}, lambda result: [entry.scale_shape for entry in result.plan.entries]),
    "weight storage": ({"weight_storage": "float"}, lambda result: result.evidence.quantized_bytes),
    "target": ({"target": "openvino"}, lambda result: result.plan.entry("stem.relu").format),
}


@pytest.mark.parametrize(("options", "answer"), OPTIONS.values(), ids=OPTIONS)
def test_every_option_of_solving_changes_the_answer(
    digits: Digits, kept: Path, options: dict[str, Any], answer: Callable[[Result], object]
) -> None:
    plain, other = (api.solve(kept, digits.model, **{"target": "tensorrt", **given}) for given in ({}, options))
    assert answer(plain) != answer(other)


def test_solving_refines_nothing_for_it_has_no_data(digits: Digits, kept: Path) -> None:
    assert api.solve(kept, digits.model, target="tensorrt").plan.provenance.effort == "fast"


def test_solving_includes_what_was_observed_for_it(tmp_path: Path) -> None:
    body = "up = ConvTranspose(x, w) y = Neg(up)"
    model = network(body, inputs="float[N,16,8,8] x")
    given: dict[str, Any] = {"data": IMAGES, "target": "tensorrt", "evaluate": False, "samples": 8}
    for include, name in (([], "without"), (["up"], "with")):
        api.quantize(model, **given, include=include, checkpoint=tmp_path / name)
    counts = [
        api.solve(tmp_path / "with", model, target="tensorrt", include=include).evidence.coverage.quantized
        for include in ([], ["up"], ["ConvTranspose"])
    ]
    assert counts == [0, 1, 1]


def test_solving_for_what_was_not_observed_is_an_error(digits: Digits, tmp_path: Path) -> None:
    model = network("a = Relu(x) y = Conv(a, w)", inputs="float[N,16,8,8] x")
    api.quantize(model, data=IMAGES, target="tensorrt", evaluate=False, samples=8, checkpoint=tmp_path / "some.stats")
    saved = load_statistics(tmp_path / "some.stats")
    [part] = saved.parts
    without = part.only(Taps(tuple(tensor for tensor in part.taps.tensors if tensor != "a"), part.taps.channels))
    save_statistics(replace(saved, parts=(without,)), tmp_path / "some.stats")
    with pytest.raises(DataError, match=r"^statistics: found none of 'a', expected those of every tensor that tensorrt quantizes"):
        api.solve(tmp_path / "some.stats", model, target="tensorrt")


@pytest.mark.parametrize("form", ["path", "text", "bytes", "proto"])
def test_solving_takes_the_network_in_every_form(digits: Digits, kept: Path, form: str) -> None:
    proto = onnx.load(digits.model)
    forms: dict[str, Any] = {"path": digits.model, "text": str(digits.model), "bytes": digits.model.read_bytes(), "proto": proto}
    if form == "proto" and proto.SerializeToString(deterministic=True) != digits.model.read_bytes():
        pytest.skip("this onnx writes the network in other bytes than it was given in")
    plan = api.solve(str(kept), forms[form], target="tensorrt").plan
    assert plan.entries == api.solve(kept, digits.model, target="tensorrt").plan.entries


def test_solving_takes_no_data(digits: Digits, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("plan_network", "choose_samples"):
        monkeypatch.setattr(quantizing, name, None)
    monkeypatch.setattr("zeropoint.graph.taps.Session", None)
    assert api.solve(kept, digits.model, target="tensorrt").plan.entries


def test_statistics_of_another_model_are_refused(digits: Digits, kept: Path) -> None:
    with pytest.raises(
        DataError, match=r"^statistics .*digits\.stats: found those of a model with SHA-256 \w{64}, expected \w{64}; give that"
    ):
        api.solve(kept, FUSED, target="tensorrt")


def test_statistics_that_are_not_complete_are_refused(digits: Digits, kept: Path, tmp_path: Path) -> None:
    saved = load_statistics(kept)
    [part] = saved.parts
    save_statistics(replace(saved, parts=(replace(part, done=frozenset(range(9))),)), tmp_path / "begun.stats")
    with pytest.raises(DataError, match=r"^statistics .*begun\.stats: found 9 of 16 batches in it, expected all; quantize with the same"):
        api.solve(tmp_path / "begun.stats", digits.model, target="tensorrt")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"statistics": "no.stats"}, DataError, r"^statistics no\.stats: cannot be read"),
        ({"model": "no.onnx"}, ModelError, r"no\.onnx: cannot be read"),
        ({"target": "cuda"}, RecipeError, "target: found 'cuda'"),
        ({"solver": "mean"}, RecipeError, "mean"),
        ({"weight_solver": "mean"}, RecipeError, "weight_solver: found 'mean'"),
        ({"exclude": ["none.*"]}, RecipeError, "exclude: found"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_be_solved_is_an_error(
    digits: Digits, kept: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    given: dict[str, Any] = {"statistics": kept, "model": digits.model, "target": "tensorrt", **change}
    with pytest.raises(error, match=message):
        api.solve(given.pop("statistics"), given.pop("model"), **given)


# --- what a review found ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("changed", [0, 3, 7], ids=["the first", "one between", "the last"])
def test_a_checkpoint_of_other_arrays_is_refused(changed: int, tmp_path: Path) -> None:
    """Their names are only their places."""
    other = IMAGES.copy()
    other[changed] *= 100
    given: dict[str, Any] = {"target": "tensorrt", "evaluate": False, "samples": 8, "checkpoint": tmp_path / "stats"}
    api.quantize(FUSED, data=IMAGES, **given)
    with pytest.raises(DataError, match=r"found data_sha256 .* it is of another calibration"):
        api.quantize(FUSED, data=other, **given)


@pytest.mark.skipif(os.name != "posix", reason="names of files are bytes there")
def test_names_of_files_may_be_any_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    try:
        for place, image in enumerate(IMAGES[:2]):
            with open(os.path.join(os.fsencode(folder), b"\xff%d.npy" % place), "wb") as file:
                np.save(file, image[None])
    except OSError:
        pytest.skip("this file system wants text")
    found = api.quantize(FUSED, data=folder, target="tensorrt", evaluate=False, checkpoint=tmp_path / "stats")
    assert found.plan.entries


@pytest.mark.parametrize(("target", "exclude"), [("openvino", "conv2"), ("onnxruntime", "conv1")])
def test_solving_derives_from_what_is_excluded(target: str, exclude: str, tmp_path: Path) -> None:
    """What was observed stands for what only reorders it, also where it takes no Q/DQ pair itself."""
    body = "conv1 = Conv(x, w) s = Sigmoid(conv1) conv2 = Conv(s, v) f = Reshape(s, k) y = MatMul(f, m)"
    weights = {"k": np.array([0, -1]), "m": (16 * 8 * 8, 4)}
    model = network(body, inputs="float[N,16,8,8] x", outputs="conv2, y", weights=weights)
    api.quantize(model, data=IMAGES, target="tensorrt", evaluate=False, samples=8, checkpoint=tmp_path / "stats")
    assert api.solve(tmp_path / "stats", model, target=target, exclude=[exclude]).plan.entry("f").scale
