from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from tests.report.networks import Subject, chain, subject

from zeropoint import api
from zeropoint.demo import load_digits
from zeropoint.errors import ModelError, RecipeError
from zeropoint.evaluate.evidence import Coverage, Evidence
from zeropoint.evaluate.latency import Latency
from zeropoint.evaluate.layers import LayerComparison
from zeropoint.notes import Note
from zeropoint.plan import Provenance, Scaling, Step
from zeropoint.report import page as pages
from zeropoint.report.figures import Figures
from zeropoint.report.manifest import Command, Manifest
from zeropoint.report.page import Page, Section
from zeropoint.report.quantization import quantization_page
from zeropoint.report.reasons import Reasons
from zeropoint.report.refinements import refinements
from zeropoint.report.table import Table
from zeropoint.summary import summary_rows

pytest.importorskip("altair")
pytest.importorskip("vl_convert")


def page(found: Subject, **changes: Any) -> Page:
    return quantization_page(replace(found, **changes), found.material, samples=2)


def section(page: Page, heading: str) -> Section:
    return next(section for section in page.sections if section.heading == heading)


def figures(evidence: Evidence) -> dict[str, tuple[str, list[tuple[str, float | None]], str]]:
    found = section(quantization_page(replace(subject(2), evidence=evidence), None), "Before and after")
    assert isinstance(found, Figures)
    return {f.label: (f.comparison, [(bar.text, bar.share) for bar in f.bars], f.detail) for f in found.figures}


def test_figures_say_what_was_before_and_after() -> None:
    fidelity = subject().evidence.fidelity
    judged = replace(fidelity[0], sqnr_db=30.0, float_accuracy=0.9, accuracy=0.88, agreement=0.95)
    latency = Latency(runtime="onnxruntime", float_ms=4.0, quantized_ms=1.0, ratio=0.25, rounds=9)
    evidence = Evidence(float_bytes=4_000_000, quantized_bytes=1_000_000, coverage=Coverage(3, 4), fidelity=(judged,), latency=latency)
    found = figures(evidence)
    assert found["Size"][:2] == ("4.0x smaller", [("4.00 MB", 1.0), ("1.00 MB", 0.25)])
    assert found["Latency, onnxruntime"][:2] == ("4.0x faster", [("4.00 ms", 1.0), ("1.00 ms", 0.25)])
    assert found["Fidelity"][:2] == ("30.0 dB SQNR", [("of 60 dB", 0.5)])
    assert found["Same largest class"][:2] == ("95.0%", [("95.00%", 0.95)])
    assert found["Accuracy"][:2] == ("-2.00 points", [("90.00%", 0.9), ("88.00%", 0.88)])
    assert found["Operators in integers"][:2] == ("75%", [("3 of 4", 0.75)])


def test_figures_say_what_was_not_measured_and_why() -> None:
    evidence = Evidence(
        float_bytes=100, quantized_bytes=100, coverage=Coverage(0, 0), notes=(Note("latency", "not measured: no GPU", "run"),)
    )
    found = figures(evidence)
    assert found["Size"][0] == "unchanged"
    assert found["Latency"] == ("", [], "not measured: no GPU")
    assert found["Fidelity"] == found["Accuracy"] == ("", [], "not measured: the networks were not compared on samples")
    assert found["Operators in integers"][:2] == ("none", [("0 of 0", 0.0)])
    assert found["Energy"] == ("", [], "not measurable here")


@pytest.mark.parametrize(
    ("sqnr_db", "comparison", "share"),
    [
        pytest.param(math.inf, "exact", 1.0, id="exact"),
        pytest.param(-math.inf, "-inf dB SQNR", 0.0, id="wrong"),
        pytest.param(-3.0, "-3.0 dB SQNR", 0.0, id="worse-than-nothing"),
        pytest.param(90.0, "90.0 dB SQNR", 1.0, id="better-than-the-scale"),
    ],
)
def test_bars_of_fidelity_stay_in_their_track(sqnr_db: float, comparison: str, share: float) -> None:
    evidence = subject().evidence
    found = figures(replace(evidence, fidelity=(replace(evidence.fidelity[0], sqnr_db=sqnr_db),)))
    assert (found["Fidelity"][0], found["Fidelity"][1][0][1]) == (comparison, share)


def test_bad_news_colours_the_verdict() -> None:
    found = subject()
    assert page(found).tone == "good"
    worse = replace(found.evidence, coverage=Coverage(0, 4))
    bad = page(found, evidence=worse)
    assert (bad.tone, bad.verdict.startswith("tensorrt: NOTHING QUANTIZED")) == ("bad", True)


def test_manifest_tells_with_what_and_how_to_make_it_again() -> None:
    found = subject()
    made = Provenance(
        zeropoint="9.9", onnxruntime="8.8", model_sha256="cd" * 32, calibration_data="some", solver="mse", effort="best", seed=3
    )
    manifest = section(page(found, plan=replace(found.plan, provenance=replace(made, without=("rounding",)))), "Manifest")
    assert isinstance(manifest, Manifest)
    facts = dict(manifest.facts)
    assert (facts["model's sha256"], facts["zeropoint"], facts["seed"]) == ("cd" * 32, "9.9", "3")
    assert facts["options"] == "--solver mse --effort best --seed 3 --without rounding"
    again = shlex.split(manifest.commands[0].line)
    assert again[:2] == ["zeropoint", "quantize"]
    assert again[-8:] == ["--solver", "mse", "--effort", "best", "--seed", "3", "--without", "rounding"]


def test_energy_is_shown_where_it_was_measured() -> None:
    latency = Latency(runtime="onnxruntime", float_ms=4.0, quantized_ms=1.0, ratio=0.25, rounds=9)
    evidence = Evidence(float_bytes=4, quantized_bytes=1, coverage=Coverage(3, 4), latency=latency)
    assert figures(evidence)["Energy"] == ("", [], "not measurable here")
    metered = replace(evidence, latency=replace(latency, float_joules=2.0, quantized_joules=0.5))
    assert figures(metered)["Energy for one run"][:2] == ("4.0x less", [("2.00 J", 1.0), ("500 mJ", 0.25)])
    assert [row.comparison for row in summary_rows(metered) if row.what == "energy for one run"] == ["0.25 of float"]
    assert "energy for one run" not in [row.what for row in summary_rows(evidence)]


def test_what_was_typed_is_shown() -> None:
    found = subject()
    manifest = section(quantization_page(found, found.material, command="zeropoint quantize 'a b.onnx' --data x"), "Manifest")
    assert isinstance(manifest, Manifest)
    assert manifest.commands[0].line == "zeropoint quantize 'a b.onnx' --data x"
    assert [command.purpose for command in manifest.commands[1:]] == [command.purpose for command in _manifest_commands(found)[1:]]


def _manifest_commands(found: Subject) -> Sequence[Command]:
    manifest = section(page(found), "Manifest")
    assert isinstance(manifest, Manifest)
    return manifest.commands


def test_notes_on_layers_are_among_the_notes(monkeypatch: pytest.MonkeyPatch) -> None:
    told = Note("middle", "cannot be compared by itself")
    monkeypatch.setattr("zeropoint.report.quantization.compare_layers", lambda *_, **__: LayerComparison((), (told,)))
    notes = section(page(subject()), "Notes")
    assert isinstance(notes, Reasons)
    assert "cannot be compared by itself" in [reason.text for group in notes.groups for reason in group.reasons]


def test_layers_are_judged_on_samples_spread_over_all(monkeypatch: pytest.MonkeyPatch) -> None:
    digits = load_digits()
    result = api.quantize(digits.model, data=digits.calibration[:16], target="tensorrt", effort="fast", eval_data=digits.test[:60])
    compared: list[tuple[int, ...]] = []

    def compare(a: Any, b: Any, samples: Any, *, progress: Any) -> LayerComparison:
        compared.append(samples.indices)
        return LayerComparison((), ())

    monkeypatch.setattr("zeropoint.report.quantization.compare_layers", compare)
    quantization_page(result, result.material, samples=3)
    [indices] = compared
    assert len(indices) == 3
    assert max(indices) - min(indices) >= 30


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"solver": "minmax"}, id="solver"),
        pytest.param({"exclude": ["Gemm"], "samples": 5}, id="exclude and samples"),
        pytest.param({"weight_storage": "float"}, id="storage"),
    ],
)
def test_commands_make_the_same_file_again(options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from zeropoint.cli.app import app

    monkeypatch.chdir(tmp_path)
    digits = load_digits()
    Path("a network.onnx").write_bytes(digits.model.read_bytes())
    np.save("DATA.npy", digits.calibration[:8])
    result = api.quantize("a network.onnx", data="DATA.npy", target="tensorrt", effort="fast", evaluate=False, **options)
    result.save("first.onnx")
    Path("PLAN.json").write_bytes(Path("first.onnx.plan.json").read_bytes())
    manifest = section(quantization_page(result, result.material), "Manifest")
    assert isinstance(manifest, Manifest)
    for command, output in zip(manifest.commands[:2], ("from-data.onnx", "from-plan.onnx"), strict=True):
        line = command.line.replace("DATA", "DATA.npy --no-evaluate")
        run = CliRunner().invoke(app, [*shlex.split(line)[1:], "--no-report", "--quiet", "-o", output])
        assert run.exit_code == 0, run.output
        assert Path(output).read_bytes() == Path("first.onnx").read_bytes()


def test_layers_are_compared_with_a_network_that_is_scaled_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    found = subject()
    scaling = Scaling(tied=(), readers=(), free=True, factors=(2.0,), reason="smoother")
    candidate = replace(found.material.candidate, plan=replace(found.plan, scalings=(scaling,)))
    scaled: list[tuple[Any, Any]] = []
    compared: list[tuple[Any, Any]] = []

    def compare(a: Any, b: Any, samples: Any, *, progress: Any) -> LayerComparison:
        compared.append((a, b))
        return LayerComparison((), ())

    monkeypatch.setattr("zeropoint.report.quantization.apply_scalings", lambda model, scalings: scaled.append((model, scalings)))
    monkeypatch.setattr("zeropoint.report.quantization.compare_layers", compare)
    quantization_page(found, replace(found.material, candidate=candidate))
    [(model, scalings)], [(reference, quantized)] = scaled, compared
    assert (model is reference, scalings, quantized is candidate.quantized) == (True, (scaling,), True)
    assert reference is not candidate.prepared  # which other readers have, and which stays as it is
    quantization_page(found, found.material)
    assert (len(scaled), compared[1][0] is candidate.prepared) == (1, True)


def test_network_of_a_fixed_batch_is_compared_on_a_whole_one() -> None:
    model = chain(4)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 5
    data = np.random.default_rng(0).random((20, 4), np.float32)
    result = api.quantize(onnx.ModelProto.FromString(model.SerializeToString()), data=data, target="tensorrt", samples=5)
    table = section(quantization_page(result, result.material, samples=2), "Layers")
    assert isinstance(table, Table)
    assert "SQNR on 5 samples" in table.lead


def test_layers_that_do_not_run_are_no_reason_to_give_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise ModelError("there is no kernel for it")

    monkeypatch.setattr("zeropoint.report.quantization.compare_layers", fails)
    table = section(page(subject()), "Layers")
    assert isinstance(table, Table)
    assert table.lead.endswith("The layers have no SQNR: there is no kernel for it")
    assert len(table.rows) == 7


def test_result_without_material_says_so() -> None:
    found = quantization_page(subject(), None)
    assert [section.heading for section in found.sections] == ["Before and after", "Layers", "Refinements", "Notes", "Manifest"]


def test_progress_is_reported() -> None:
    stages: dict[str, int] = {}
    found = subject()
    quantization_page(found, found.material, samples=2, progress=lambda stage, done, total: stages.update({stage: total - done}))
    assert stages == {"comparing layers": 0, "drawing tensors": 0}


def test_missing_library_is_found_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LIBRARIES", ("not_here",))
    monkeypatch.setattr("zeropoint.report.quantization.compare_layers", None)
    with pytest.raises(RecipeError, match="not_here not found"):
        page(subject())


def test_refinements_that_were_not_kept_are_shown_too() -> None:
    steps = (
        Step(name="smoothing", before_db=20.0, after_db=30.0, samples=1, kept=True, detail="3 tensors"),
        Step(name="rounding", before_db=30.0, after_db=-math.inf, samples=8, kept=False),
    )
    found = refinements(replace(subject().plan, steps=steps)).steps
    assert [(step.name, step.kept, [bar.share for bar in step.bars]) for step in found] == [
        ("smoothing", True, [pytest.approx(2 / 3), 1.0]),
        ("rounding", False, [1.0, 0.0]),
    ]
    assert found[0].told == "SQNR of the outputs on 1 calibration sample set aside. 3 tensors"
