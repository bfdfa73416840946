"""Refinements end to end: what they find in networks that are made to need them, and that nothing is kept that does not help."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from tests.graph.networks import Array, network

from zeropoint import api, improve
from zeropoint.data.split import spread
from zeropoint.graph.scaling import scaling
from zeropoint.graph.store import serialize
from zeropoint.improve import EFFORTS, REFINEMENTS, Refinement, is_lower
from zeropoint.plan import Step, from_json, to_json
from zeropoint.refine.smoothing import Scalables, Smoothed
from zeropoint.refine.trial import outputs_of
from zeropoint.result import Result

WIDTH, TOKENS = 32, 6
RNG = np.random.default_rng(0)
WEIGHTS = {"w": (WIDTH, WIDTH), "b": (WIDTH,), "v": (WIDTH, WIDTH), "c": (WIDTH,), "e": np.float32(1e-5)}
NORMAL = "n = LayerNormalization(x, g, h) a = MatMul(n, w) s = Add(a, b) r = Relu(s) m = MatMul(r, v) y = Add(m, c)"


def always(effort: Any, task: Any) -> bool:
    return True


def gains() -> Array:
    gain = np.ones(WIDTH, np.float32)
    gain[[3, 17, 29]] = 40.0
    return gain


def outlier_channels(*, residual: bool = False) -> onnx.ModelProto:
    """A network whose normalization makes three channels 40 times as large as the others, which the weights behind it take back.

    residual: and a later Add, scaled down, reads the normalized tensor too.
    """
    gain = gains()
    w = np.random.default_rng(1).normal(0.0, 0.3, (WIDTH, WIDTH)).astype(np.float32) / gain[:, None]
    end = "m = MatMul(r, v) o = Add(m, c) t = Tanh(n) y = Add(o, t)"
    return network(
        NORMAL.partition("m = ")[0] + end if residual else NORMAL,
        inputs=f"float[N,{TOKENS},{WIDTH}] x",
        weights={**WEIGHTS, "g": gain, "h": np.zeros(WIDTH, np.float32), "w": w},
        opset=17,
    )


def huge_tokens() -> tuple[onnx.ModelProto, Array]:
    """A network that normalizes each token, and data in which the first token of each sample is 60 times as large as the others."""
    body = "a = MatMul(x, w) n = LayerNormalization(a, g, h) m = MatMul(n, v) y = Add(m, c)"
    given = {**WEIGHTS, "g": np.ones(WIDTH, np.float32), "h": np.zeros(WIDTH, np.float32)}
    data = tokens(1)
    data[:, 0] *= 60.0
    return network(body, inputs=f"float[N,{TOKENS},{WIDTH}] x", weights=given, opset=17), data


def tokens(seed: int, count: int = 48) -> Array:
    return np.random.default_rng(seed).normal(0.0, 1.0, (count, TOKENS, WIDTH)).astype(np.float32)


def quantized(model: onnx.ModelProto, data: Array, **given: Any) -> Result:
    options: dict[str, Any] = {"target": "tensorrt", "samples": 48, "eval_data": tokens(7), **given}
    return api.quantize(model, data=data, **options)


def decibels(result: Result) -> float:
    return result.evidence.fidelity[0].sqnr_db


def test_outlier_channels_are_smoothed() -> None:
    model, data = outlier_channels(), tokens(1)
    plain, refined = quantized(model, data, effort="fast"), quantized(model, data)
    assert decibels(refined) > decibels(plain) + 6.0
    [step] = refined.plan.steps
    assert (step.name, step.kept) == ("smoothing", True)
    assert step.after_db > step.before_db + 6.0
    scaling = next(scaling for scaling in refined.plan.scalings if scaling.tied[0].tensor == "n")
    assert {*np.argsort(scaling.factors)[-3:].tolist()} == {3, 17, 29}


def test_what_a_normalization_takes_away_is_clipped() -> None:
    model, data = huge_tokens()
    judges = tokens(7)
    judges[:, 0] *= 60.0
    plain, refined = (quantized(model, data, effort=effort, eval_data=judges) for effort in ("fast", "balanced"))
    assert decibels(refined) > decibels(plain) + 3.0
    changed = refined.plan.entry("x" if "x" in refined.plan.tensors else "x/scaled")
    assert changed.range[1] < 0.6 * plain.plan.entry("x").range[1]
    assert "by what the outputs make of it" in changed.reason or refined.plan.scalings


def behind_gelu() -> onnx.ModelProto:
    body = "a = MatMul(x, w) g = Gelu(a) m = MatMul(g, v) y = Add(m, c)"
    return network(body, inputs=f"float[N,{TOKENS},{WIDTH}] x", weights=WEIGHTS, opset=20)


def test_ranges_are_asymmetric_on_a_target_that_has_only_symmetric_ones() -> None:
    model, data = behind_gelu(), tokens(1, 200)
    plain, refined = (quantized(model, data, effort=effort, samples=200) for effort in ("fast", "balanced"))
    assert decibels(refined) > decibels(plain) + 0.5
    entry = refined.plan.entry("g/scaled")
    [moved] = [scaling for scaling in refined.plan.scalings if scaling.tied[0].tensor == "g" and not scaling.free]
    assert (entry.format, entry.symmetric, entry.zero_point) == ("int8", True, (0,))
    zero = np.float32(-moved.shifts[0]) / np.float32(entry.scale[0])
    assert zero == pytest.approx(round(float(zero)), abs=1e-4)  # so that zero has a code of its own
    assert -128 <= round(float(zero)) < -60
    assert api.lint(serialize(refined.model), target="tensorrt").findings == ()
    assert "g/scaled" not in quantized(model, data, target="onnxruntime").plan.tensors  # its codes have a zero point for that
    kept = quantized(model, data, samples=200, bias="kept").plan
    assert not any(len(scaling.shifts) == 1 for scaling in kept.scalings)


@pytest.mark.parametrize("effort", ["balanced", "best"])
def test_a_plan_alone_gives_the_same_bytes(effort: str) -> None:
    model, data = outlier_channels(), tokens(1)
    refined = quantized(model, data, effort=effort)
    again = api.quantize(model, target="tensorrt", plan=from_json(to_json(refined.plan)), evaluate=False)
    assert serialize(again.model) == serialize(refined.model)


def test_refinements_are_the_same_whatever_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = outlier_channels(), tokens(1)
    first = to_json(quantized(model, data).plan)
    for module in ("zeropoint.refine.smoothing", "zeropoint.refine.trial", "zeropoint.refine.sweep"):
        monkeypatch.setattr(f"{module}.cores", lambda: 5)
    assert to_json(quantized(model, data).plan) == first


def test_nothing_is_fitted_to_what_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, checked = set[bytes](), set[bytes]()

    def refinement(work: improve.Work, _: improve.State) -> None:
        fitted.update(feed["x"].tobytes() for feed in work.feeds(1000))

    def judged(network: Any, feeds: list[dict[str, Array]]) -> Any:
        checked.update(feed["x"].tobytes() for feed in feeds)
        return outputs_of(network, feeds)

    monkeypatch.setattr(improve, "REFINEMENTS", {"smoothing": Refinement(refinement, always)})
    monkeypatch.setattr(improve, "outputs_of", judged)
    quantized(outlier_channels(), tokens(1), without=["rounding"])
    assert (len(fitted), len(checked)) == (36, 12)
    assert fitted.isdisjoint(checked)


@pytest.mark.parametrize("residual", [False, True], ids=["for free", "on a branch"])
def test_ranges_are_of_what_the_scaled_network_computes(residual: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share that was found for a tensor is one of the range that it has got when it was scaled, whatever it is called then."""

    def found(network: object, plan: object, scalables: Scalables, *_: object, **__: object) -> Smoothed:
        one = next(scalable for scalable in scalables.by_channel if scalable.tensors == ("n",))
        assert one.free is not residual
        return Smoothed({"n": 0.5}, (scaling(one, gains(), reason="given"),), {}, {})

    monkeypatch.setattr(improve, "smooth", found)
    monkeypatch.setattr(improve, "is_lower", lambda found, known: True)
    data = tokens(1)
    plan = quantized(outlier_channels(residual=residual), data, solver="minmax", without=["rounding"]).plan
    fitted = data[[i for i in range(48) if i not in spread(48, 12)]]
    normal = (fitted - fitted.mean(-1, keepdims=True)) / np.sqrt(fitted.var(-1, keepdims=True) + 1e-5)
    assert plan.entry("n/scaled" if residual else "n").range[1] == pytest.approx(0.5 * np.abs(normal).max(), rel=1e-3)


def test_what_does_not_help_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = outlier_channels(), tokens(1)
    plain = quantized(model, data, effort="fast").plan

    def worse(work: object, state: improve.State) -> improve.State:
        halved = tuple(e if e.role != "activation" else _narrow(e) for e in state.plan.entries)
        return improve.State(replace(state.plan, entries=halved), state.network, state.observed, "made worse")

    def _narrow(entry: Any) -> Any:
        return replace(entry, scale=(entry.scale[0] / 8,), range=())

    monkeypatch.setattr(
        improve, "REFINEMENTS", {"smoothing": Refinement(worse, always), "rounding": Refinement(lambda work, state: None, always)}
    )
    plan = quantized(model, data).plan
    assert plan.entries == plain.entries
    [step] = plan.steps
    assert (step.name, step.kept, step.detail) == ("smoothing", False, "made worse")
    assert step.after_db < step.before_db


def test_fast_refines_nothing() -> None:
    plan = quantized(outlier_channels(), tokens(1), effort="fast").plan
    assert (plan.steps, plan.scalings, plan.roundings) == ((), (), ())


@pytest.mark.parametrize("effort", ["fast", "balanced", "best"])
def test_biases_are_kept_where_that_was_asked_for(effort: str) -> None:
    plan = quantized(outlier_channels(), tokens(1), effort=effort, bias="kept", weight_format="int4").plan
    assert plan.corrections == ()
    assert bool(plan.roundings) is (effort != "fast")


def test_too_few_samples_are_told() -> None:
    result = quantized(outlier_channels(), tokens(1, 5), samples=5)
    assert any(note.where == "effort" and "found 5" in note.reason for note in result.notes)
    assert result.plan.steps == ()


@pytest.mark.parametrize(
    ("without", "made"),
    [((), ["smoothing", "rounding"]), (("smoothing",), ["rounding"]), (("rounding",), ["smoothing"]), (("rounding", "smoothing"), [])],
    ids=lambda names: " and ".join(names) or "none",
)
def test_what_is_to_be_left_out_is_not_tried(without: tuple[str, ...], made: list[str]) -> None:
    plan = quantized(outlier_channels(), tokens(1), effort="best", without=without).plan
    assert [step.name for step in plan.steps] == made
    assert {step.samples for step in plan.steps} <= {12}
    assert plan.provenance.without == without


@pytest.mark.parametrize(
    ("effort", "without"),
    [
        pytest.param("best", ["smoothing", "rounding"], id="what is left needs PyTorch"),
        pytest.param("balanced", ["smoothing"], id="what is left is for 4 bits"),
    ],
)
def test_where_no_refinement_applies_few_samples_are_enough(effort: Any, without: list[str]) -> None:
    result = quantized(outlier_channels(), tokens(1, 5), samples=5, effort=effort, without=without)
    assert [note for note in result.notes if note.where == "effort"] == []


def test_what_memory_has_no_room_for_is_not_tried_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = outlier_channels(), tokens(1)
    plain = quantized(model, data, effort="fast")
    monkeypatch.setattr(improve, "ROOM", 2 * 3 * 4 * TOKENS * WIDTH)
    result = quantized(model, data)
    assert result.plan.entries == plain.plan.entries
    assert any(note.where == "effort" and "no refinement was tried: 3 samples" in note.reason for note in result.notes)


def test_samples_are_as_many_as_memory_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []

    def refinement(work: Any, _: Any) -> None:
        read.append(work.effort.probed)

    monkeypatch.setattr(improve, "REFINEMENTS", {"smoothing": Refinement(refinement, always)})
    for room in (2_000_000_000, 40_000, 30_000):
        monkeypatch.setattr(improve, "ROOM", room)
        quantized(outlier_channels(), tokens(1), without=["rounding"])
    assert read[0] == EFFORTS["balanced"].probed
    assert read == sorted(read, reverse=True)
    assert read[-1] < read[0]


def test_every_effort_names_refinements_that_there_are() -> None:
    assert {name for effort in EFFORTS.values() for name in effort.refinements} <= set(REFINEMENTS)


@pytest.mark.parametrize(
    ("found", "lower"),
    [
        pytest.param([0.5, 0.6, 0.4, 0.5], True, id="each sample by half"),
        pytest.param([1.0, 1.0, 1.0, 1.0], False, id="the same"),
        pytest.param([0.1, 1.3, 1.3, 1.2], False, id="one sample alone"),
        pytest.param([0.9, 0.9, 0.9, 9.0], False, id="one destroyed"),
        pytest.param([0.0, 0.0, 0.0, 0.0], True, id="no error left"),
        pytest.param([np.inf, 0.1, 0.1, 0.1], False, id="one infinitely wrong"),
    ],
)
def test_errors_are_lower_only_beyond_chance(found: list[float], lower: bool) -> None:
    assert is_lower(np.array(found), np.ones(4)) is lower


def test_a_step_survives_json() -> None:
    plan = quantized(outlier_channels(), tokens(1)).plan
    assert from_json(to_json(plan)).steps == plan.steps
    assert all(isinstance(step, Step) for step in plan.steps)


@pytest.mark.parametrize("granularity", ["channel", "block:8"])
@pytest.mark.parametrize("effort", ["balanced", "best"])
def test_weights_of_4_bits_are_rounded_by_the_output_error(effort: str, granularity: str) -> None:
    model, data = outlier_channels(), tokens(1)
    given = {"weight_format": "int4", "weight_granularity": granularity}
    plain, refined = quantized(model, data, effort="fast", **given), quantized(model, data, effort=effort, **given)
    step = next(step for step in refined.plan.steps if step.name == "rounding")
    assert step.kept
    assert {rounding.tensor for rounding in refined.plan.roundings} <= refined.plan.tensors
    assert decibels(refined) > decibels(plain) + 2.0
    again = api.quantize(model, target="tensorrt", plan=from_json(to_json(refined.plan)), evaluate=False)
    assert serialize(again.model) == serialize(refined.model)


@pytest.mark.parametrize(("effort", "tried"), [("balanced", False), ("best", True)])
def test_weights_of_8_bits_are_rounded_anew_at_the_best_effort_only(effort: str, tried: bool) -> None:
    plan = quantized(outlier_channels(), tokens(1), effort=effort).plan
    assert ("rounding" in {step.name for step in plan.steps}) == tried
