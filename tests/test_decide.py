from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tests.graph.networks import Array, network

from zeropoint import decide as module
from zeropoint.calibrate import Resources, Subject, calibrate, load_statistics
from zeropoint.data import Samples, open_data
from zeropoint.decide import Observed, decide, observe_network
from zeropoint.errors import DataError
from zeropoint.graph.load import input_infos, load
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.graph.store import serialize
from zeropoint.graph.taps import Taps
from zeropoint.notes import Note
from zeropoint.plan import Plan, Provenance, from_json, to_json
from zeropoint.recipe import Recipe
from zeropoint.statistics.network import Statistics
from zeropoint.targets import TARGETS, get_target

FREE, FIXED = "float[N,16] x", "float[4,16] x"
GEMMS = "a = Gemm(x, w, b) r = Relu(a) y = Gemm(r, v)"
WEIGHTS = {"w": (16, 16), "v": (16, 16), "b": (16,)}
DATA = (np.random.default_rng(0).normal(0.5, 1.0, (40, 16))).astype(np.float32)
PLAIN = Recipe(solver="minmax")


def prepared(body: str = GEMMS, inputs: str = FREE, weights: Mapping[str, object] = WEIGHTS) -> Model:
    model = load(network(body, inputs=inputs, weights=weights))
    prepare(model)
    return model


def samples(model: Model, data: object = DATA) -> Samples:
    return open_data(data, input_infos(model))


def seen(
    model: Model, recipe: Recipe = PLAIN, *, data: object = DATA, target: str = "tensorrt", checkpoint: Path | None = None, **given: Any
) -> Observed:
    resources, goal = Resources(checkpoint=checkpoint), get_target(target)
    return observe_network(
        model, samples(model, data), sha256=lambda: "of the file", target=goal, recipe=recipe, resources=resources, **given
    )


def decided(model: Model, recipe: Recipe = PLAIN, *, target: str = "tensorrt", **given: Any) -> Plan:
    return decide(model, seen(model, recipe, target=target, **given), get_target(target), recipe)


def float_range(model: onnx.ModelProto, tensor: str, data: Array) -> tuple[float, float]:
    """The least and the largest value that ONNX Runtime computes for `tensor`."""
    shown = onnx.ModelProto()
    shown.CopyFrom(model)
    shown.graph.output.append(onnx.helper.make_empty_tensor_value_info(tensor))
    session = onnxruntime.InferenceSession(shown.SerializeToString(), providers=["CPUExecutionProvider"])
    values = np.asarray(session.run([tensor], {"x": data})[0])
    return float(values.min()), float(values.max())


# --- what is decided -------------------------------------------------------------------------------------------------------


def test_ranges_are_those_of_the_whole_data() -> None:
    plan = decided(prepared())
    for tensor in ("x", "r"):
        lo, hi = float_range(network(GEMMS, inputs=FREE, weights=WEIGHTS), tensor, DATA)
        assert plan.entry(tensor).range == pytest.approx((-max(-lo, hi), max(-lo, hi)), rel=1e-5)


def test_provenance_holds_the_recipe_and_the_versions() -> None:
    recipe = Recipe(solver="percentile:99", weight_solver="minmax", bias="kept", without=("rounding",), batch_size=3, seed=5)
    assert decided(prepared(), recipe).provenance == Provenance(
        zeropoint=version("zeropoint"),
        onnxruntime=onnxruntime.__version__,
        model_sha256="of the file",
        calibration_data="40 of 40 samples of arrays in memory",
        batch_size=3,
        solver="percentile:99",
        weight_solver="minmax",
        weight_format="int8",
        weight_granularity="channel",
        bias="kept",
        effort="balanced",
        without=("rounding",),
        seed=5,
    )


def test_the_plan_is_the_same_every_time_and_after_its_file() -> None:
    plan = decided(prepared())
    assert decided(prepared()) == plan
    assert from_json(to_json(plan)) == plan


def test_the_network_is_not_changed() -> None:
    model = prepared()
    before = serialize(model)
    decided(model)
    assert serialize(model) == before


def test_targets_share_what_they_see_and_differ_in_what_they_make_of_it() -> None:
    plans = [decided(prepared(), target=target) for target in ("tensorrt", "openvino", "onnxruntime")]
    assert [plan.target for plan in plans] == ["tensorrt", "openvino", "onnxruntime"]
    assert [plan.entry("r").format for plan in plans] == ["int8", "uint8", "uint8"]
    assert {plan.entry("r").range[1] for plan in plans} == {plans[0].entry("r").range[1]}


@pytest.mark.parametrize(
    ("recipe", "readers"),
    [
        pytest.param(PLAIN, {"a", "y"}, id="all"),
        pytest.param(replace(PLAIN, exclude=("a",)), {"y"}, id="excluded by name"),
        pytest.param(replace(PLAIN, exclude=("Gemm",)), set(), id="excluded by type"),
    ],
)
def test_the_recipe_decides_which_operators_read_codes(recipe: Recipe, readers: set[str]) -> None:
    plan = decided(prepared(), recipe)
    biases = {"a": "b", "y": "y/bias"}
    assert {reader.node for entry in plan.entries for reader in entry.readers} == readers
    assert {correction.tensor for correction in plan.corrections} == {biases[node] for node in readers}


# --- biases ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Taps]:
    """The taps of each calibration."""
    taps: list[Taps] = []

    def spy(subject: Subject, wanted: Taps, resources: Resources, **rest: Any) -> tuple[Statistics, tuple[Note, ...]]:
        taps.append(wanted)
        return calibrate(subject, wanted, resources, **rest)

    monkeypatch.setattr(module, "calibrate", spy)
    return taps


@pytest.mark.parametrize(("bias", "axes", "corrected"), [("corrected", (("x", 1), ("r", 1)), ["b", "y/bias"]), ("kept", (), [])])
def test_channel_means_are_taken_only_where_biases_are_corrected(
    bias: Any, axes: tuple[tuple[str, int], ...], corrected: list[str], asked: list[Taps]
) -> None:
    plan = decided(prepared(), replace(PLAIN, bias=bias))
    assert asked == [Taps(("x", "r"), axes)]
    assert [correction.tensor for correction in plan.corrections] == corrected


def test_batches_do_not_change_the_corrections() -> None:
    # The first operator reads the input itself, which no forward pass rounds otherwise.
    added = [decided(prepared(), replace(PLAIN, batch_size=size)).corrections for size in (1, 7, 40)]
    assert added[0] == added[1] == added[2]


# --- notes -----------------------------------------------------------------------------------------------------------------


def test_notes_tell_of_placement_then_of_biases_then_of_data_each_once() -> None:
    model = prepared("a = MatMul(x, w) r = Relu(a) c = MatMul(r, v) y = MatMul(c, u)", FIXED, {"w": (16, 16), "v": (16, 20), "u": (20, 3)})
    plan = decided(model, data=DATA[:14])
    assert [note.where for note in plan.notes] == ["y", "a", "c", "arrays in memory"]
    assert "below 16" in plan.notes[0].reason
    assert [note.reason for note in plan.notes[1:3]] == ["MatMul has no constant bias of its own, so that its mean error stays"] * 2
    assert plan.notes[3].reason == "2 of 14 samples left out: they fill no batch of 4"


def test_nothing_to_tell_gives_no_notes() -> None:
    model = prepared("a = Gemm(x, w, b) y = Softmax(a)")
    assert decided(model).notes == ()


# --- data ------------------------------------------------------------------------------------------------------------------


def test_samples_of_other_shapes_are_seen_too() -> None:
    model = prepared("a = MatMul(x, w) y = Softmax(a)", "float[N,T,16] x", {"w": (16, 16)})
    items = [np.full((length, 16), float(length), np.float32) for length in (3, 5, 4)]
    assert decided(model, data=items).entry("x").range == (-5.0, 5.0)


@pytest.mark.parametrize(("inputs", "batch_size", "steps"), [(FREE, 1, 10), (FREE, 4, 3), (FIXED, 1, 2), (FIXED, 10, 2)], ids=str)
def test_progress_counts_batches(inputs: str, batch_size: int, steps: int) -> None:
    told: list[tuple[str, int, int]] = []
    recipe = replace(PLAIN, batch_size=batch_size)
    decided(prepared(inputs=inputs), recipe, data=DATA[:10], progress=lambda *step: told.append(step))
    assert [step[1:] for step in told] == [(done, steps) for done in range(steps + 1)]
    assert all(step[0].startswith("calibrating (about ") for step in told)


def test_data_that_fills_no_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="found too few samples to fill a batch"):
        decided(prepared(inputs=FIXED), data=DATA[:3])


def test_a_network_with_nothing_to_quantize_gives_an_empty_plan() -> None:
    plan = decided(prepared("y = Softmax(x)", FREE, {}))
    assert (plan.entries, plan.corrections, plan.notes) == ((), (), ())
    assert plan.provenance.calibration_data == "40 of 40 samples of arrays in memory"


# --- what is kept for later ------------------------------------------------------------------------------------------------


def test_what_was_observed_tells_of_the_calibration(tmp_path: Path) -> None:
    found = seen(prepared(), replace(PLAIN, batch_size=7), data=DATA[:20], checkpoint=tmp_path / "stats")
    source = found.source
    assert (source.model_sha256, source.data, source.blocks, source.batch_size) == (
        "of the file",
        "20 of 20 samples of arrays in memory",
        3,
        7,
    )
    assert (source.zeropoint, source.onnxruntime) == (version("zeropoint"), onnxruntime.__version__)
    assert len(source.data_sha256) == 64
    assert found.facts["x"].shape == (7, 16)
    assert list(found.statistics.tensors) == ["x", "r"]
    assert not seen(prepared(), data=DATA[:20]).source.data_sha256  # nobody asks for it


def test_other_samples_of_the_same_data_are_told_apart(tmp_path: Path) -> None:
    model = prepared()
    goal, all = get_target("tensorrt"), samples(model)
    hashes = {
        observe_network(
            model, chosen, sha256=str, target=goal, recipe=PLAIN, resources=Resources(checkpoint=tmp_path / name)
        ).source.data_sha256
        for name, chosen in (("a", all[:4]), ("b", all[4:8]), ("c", all[:8:2]), ("d", all[:4]))
    }
    assert len(hashes) == 3


def test_a_checkpoint_holds_what_every_target_needs(tmp_path: Path, asked: list[Taps]) -> None:
    model = prepared()
    seen(model, checkpoint=tmp_path / "stats")
    [kept] = asked
    for target in TARGETS:
        asked.clear()
        seen(model, target=target)
        assert asked[0].less(kept) == Taps(())
    assert load_statistics(tmp_path / "stats").whole.taps.less(kept) == Taps(())


@pytest.mark.parametrize("target", TARGETS)
def test_a_plan_is_made_from_what_a_checkpoint_holds(target: str, tmp_path: Path) -> None:
    model = prepared()
    seen(model, checkpoint=tmp_path / "stats")
    kept = load_statistics(tmp_path / "stats")
    goal = get_target(target)
    plan = decide(model, Observed(kept.source, kept.facts, kept.whole.statistics), goal, PLAIN)
    assert plan == decided(model, target=target)


def test_a_tensor_that_was_not_observed_is_an_error() -> None:
    model = prepared()
    found = seen(model, replace(PLAIN, exclude=("a",)))
    with pytest.raises(DataError, match=r"^statistics: found none of 'x', expected those of every tensor that tensorrt quantizes"):
        decide(model, found, get_target("tensorrt"), PLAIN)
    nothing = replace(found, statistics=Statistics({}, {}))
    with pytest.raises(DataError, match=r"^statistics: found none of 'x' and 1 more, expected"):
        decide(model, nothing, get_target("tensorrt"), PLAIN)


def test_notes_of_the_calibration_reach_the_plan() -> None:
    model = prepared()
    note = Note("memory_budget", "the data was run twice", kind="run")
    assert decide(model, replace(seen(model), notes=(note,)), get_target("tensorrt"), PLAIN).notes == (note,)
