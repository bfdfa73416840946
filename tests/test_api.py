from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper
from PIL import Image

from zeropoint import api, decide
from zeropoint.calibrate import Subject, calibrate
from zeropoint.data import choice
from zeropoint.demo import PIXEL_MEAN, PIXEL_STD, Digits, load_digits
from zeropoint.errors import DataError, ModelError, PlanError, RecipeError
from zeropoint.evaluate import measure
from zeropoint.evaluate.fidelity import compare_outputs
from zeropoint.evaluate.latency import Latency
from zeropoint.graph.store import serialize
from zeropoint.plan import Plan, load_plan, to_json
from zeropoint.result import Result
from zeropoint.rules import Lint
from zeropoint.summary import verdict
from zeropoint.targets import Target

Array = npt.NDArray[Any]
TARGETS = ("tensorrt", "onnxruntime", "openvino")
every_target = pytest.mark.parametrize("target", TARGETS)
HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '


def fake_latency(float_run: Callable[[], object], quantized_run: Callable[[], object], *, runtime: str, meter: object) -> Latency:
    float_run()
    quantized_run()
    return Latency(runtime=runtime, float_ms=2.0, quantized_ms=1.0, ratio=0.5, rounds=1)


@pytest.fixture(scope="module", autouse=True)
def no_stopwatch() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measure, "compare_latency", fake_latency)
        yield


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@dataclass(frozen=True)
class Judged:
    result: Result
    file: Path


@pytest.fixture(scope="module")
def judged(digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Judged]:
    """The demo's network, quantized for each target, judged on 250 test digits, and saved."""
    found = {}
    for target in TARGETS:
        result = api.quantize(
            digits.model, data=digits.calibration, target=target, eval_data=digits.test[::2], labels=digits.test_labels[::2]
        )
        found[target] = Judged(result, result.save(tmp_path_factory.mktemp(target) / "digits.int8.onnx")[0])
    return found


@pytest.fixture(scope="module")
def trial(digits: Digits) -> Result:
    """What `quick` gives without further options."""
    return quick(digits)


def quick(digits: Digits, **options: Any) -> Result:
    """16 digits calibrate, none judge."""
    given = {"data": digits.calibration[:16], "target": "tensorrt", "evaluate": False, **options}
    return api.quantize(given.pop("model", digits.model), **given)


def network(text: str, **weights: Array) -> onnx.ModelProto:
    model = onnx.parser.parse_model(HEAD + text)
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in weights.items())
    return model


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def scales(result: Result) -> Array:
    return np.concatenate([entry.scale for entry in result.plan.entries])


def reasons(result: Result) -> str:
    return "\n".join(map(str, result.notes))


# --- end to end ------------------------------------------------------------------------------------------------------------


@every_target
def test_accuracy_stays_within_a_point(judged: dict[str, Judged], target: str) -> None:
    [logits] = judged[target].result.evidence.fidelity
    assert logits.float_accuracy is not None
    assert logits.accuracy is not None
    assert logits.float_accuracy >= 0.97
    assert abs(logits.accuracy - logits.float_accuracy) <= 0.01
    assert (logits.agreement or 0) >= 0.99
    assert logits.sqnr_db >= 35
    assert logits.sqnr_worst_db <= logits.sqnr_median_db


@every_target
def test_sizes_are_those_of_the_files(judged: dict[str, Judged], digits: Digits, target: str) -> None:
    evidence = judged[target].result.evidence
    assert evidence.float_bytes == pytest.approx(digits.model.stat().st_size, rel=0.01)
    assert evidence.quantized_bytes == judged[target].file.stat().st_size
    assert evidence.size_ratio < 0.33


@every_target
def test_rules_of_the_target_are_kept(judged: dict[str, Judged], target: str) -> None:
    assert judged[target].result.evidence.findings == ()
    assert api.lint(judged[target].file, target=target) == Lint((), quantized=True)
    onnx.checker.check_model(onnx.load(judged[target].file), full_check=True)


@every_target
def test_saved_file_reads_digits_as_well_as_was_measured(judged: dict[str, Judged], digits: Digits, target: str) -> None:
    session = onnxruntime.InferenceSession(judged[target].file, providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(None, {"image": digits.test[::2]})[0])
    [measured] = judged[target].result.evidence.fidelity
    accuracy = (logits.argmax(axis=1) == digits.test_labels[::2]).mean()
    assert accuracy == pytest.approx(measured.accuracy, abs=1 / 250)  # a batch may round one digit otherwise


@every_target
def test_saved_file_runs_in_openvino(judged: dict[str, Judged], digits: Digits, target: str) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(str(judged[target].file), "CPU")
    logits = np.asarray(compiled({"image": digits.test})[0])
    assert (logits.argmax(axis=1) == digits.test_labels).mean() >= 0.97


@pytest.mark.parametrize(("target", "is_measured"), [("tensorrt", False), ("onnxruntime", True), ("openvino", True)])
def test_latency_is_measured_where_the_runtime_is_here(judged: dict[str, Judged], target: str, is_measured: bool) -> None:
    if target == "openvino":
        pytest.importorskip("openvino")
    if target == "onnxruntime" and platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("the target is x86")
    result = judged[target].result
    assert (result.evidence.latency is not None) is is_measured
    assert ("not measured: TensorRT 10 or 11 on an NVIDIA GPU is not here" in reasons(result)) is not is_measured


def test_provenance_says_what_the_plan_was_made_from(judged: dict[str, Judged], digits: Digits) -> None:
    provenance = judged["tensorrt"].result.plan.provenance
    assert provenance.model_sha256 == hashlib.sha256(digits.model.read_bytes()).hexdigest()
    assert provenance.calibration_data == "128 of 256 samples of arrays in memory"
    assert (provenance.onnxruntime, provenance.solver) == (onnxruntime.__version__, "auto")
    assert judged["tensorrt"].result.evidence.evaluation_data == "250 of 250 samples of arrays in memory"


def test_operators_left_in_float_are_noted(judged: dict[str, Judged]) -> None:
    result = judged["tensorrt"].result
    assert (result.evidence.coverage.quantized, result.evidence.coverage.candidates) == (8, 10)
    # Where no C compiler was there at installation, a note on the calibration says so.
    assert {note.where for note in result.notes} - {"calibration"} == {"stem.conv", "head", "latency"}


def test_without_evaluation_nothing_is_compared_but_the_rules_are_checked(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    linted: list[str] = []

    def lint_model(model: object, target: Target) -> Lint:
        linted.append(target.name)
        return Lint((), quantized=True)

    monkeypatch.setattr(measure, "lint_model", lint_model)
    evidence = quick(digits).evidence
    assert (evidence.fidelity, evidence.latency, evidence.evaluation_data) == ((), None, "")
    assert linted == ["tensorrt"]


# --- the network -----------------------------------------------------------------------------------------------------------

SOURCES: dict[str, Callable[[Path], Any]] = {
    "path": lambda path: path,
    "text": str,
    "bytes": lambda path: path.read_bytes(),
    "proto": onnx.load,
}


@pytest.mark.parametrize("source", SOURCES.values(), ids=SOURCES)
def test_network_is_taken_in_every_form(digits: Digits, trial: Result, source: Callable[[Path], Any]) -> None:
    assert serialize(quick(digits, model=source(digits.model)).model) == serialize(trial.model)


def test_network_that_was_given_is_not_changed(digits: Digits) -> None:
    before = hashlib.sha256(digits.model.read_bytes()).hexdigest()
    proto = onnx.load(digits.model)
    own = proto.SerializeToString(deterministic=True)
    images = digits.calibration[:20].copy()
    images.flags.writeable = False
    for model in (digits.model, proto):
        api.quantize(model, data=images, target="tensorrt", samples=16)
    assert hashlib.sha256(digits.model.read_bytes()).hexdigest() == before
    assert proto.SerializeToString(deterministic=True) == own


def test_same_inputs_give_the_same_bytes(digits: Digits, trial: Result) -> None:
    again = quick(digits)
    assert serialize(again.model) == serialize(trial.model)
    assert to_json(again.plan) == to_json(trial.plan)


SEVERAL = network(
    "(float[N, 8] left, float[N, 8] right) => (float[N, 3] y) { a = MatMul(left, w) b = MatMul(right, w) c = Concat <axis = 1> (a, b) "
    "r = Relu(c) y = MatMul(r, v) }",
    w=normal(8, 8),
    v=normal(16, 3, seed=1),
)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param({"left": normal(40, 8), "right": normal(40, 8, seed=2)}, id="dict"),
        pytest.param(list(zip(normal(40, 8), normal(40, 8, seed=2), strict=True)), id="tuples-in-order"),
    ],
)
def test_network_of_several_inputs(data: Any) -> None:
    result = api.quantize(SEVERAL, data=data, target="openvino", samples=30)
    assert result.evidence.coverage.quantized == 3
    assert result.evidence.fidelity[0].sqnr_db > 25


def test_network_of_integer_inputs() -> None:
    model = network(
        "(int64[N, 5] tokens) => (float[N, 3] y) { e = Gather(table, tokens) "
        "m = ReduceMean <axes = [1], keepdims = 0> (e) y = MatMul(m, w) }",
        table=normal(100, 16),
        w=normal(16, 3),
    )
    tokens = np.random.default_rng(0).integers(0, 100, (40, 5))
    result = api.quantize(model, data=tokens, target="openvino", samples=30)
    assert result.evidence.coverage.quantized == 1
    assert result.evidence.fidelity[0].sqnr_db > 25
    with pytest.raises(DataError, match=r"input 'tokens': found dtype float64, expected int64"):
        api.quantize(model, data=tokens.astype(np.float64), target="openvino")


# --- data ------------------------------------------------------------------------------------------------------------------


def npy(images: Array, folder: Path) -> Path:
    np.save(folder / "images.npy", images)
    return folder / "images.npy"


def npz(images: Array, folder: Path) -> Path:
    np.savez(folder / "images.npz", image=images)
    return folder / "images.npz"


def folder_of_npy(images: Array, folder: Path) -> Path:
    for index, image in enumerate(images):
        np.save(folder / f"{index:04}.npy", image)
    return folder


def code(images: Array, folder: Path) -> str:
    npy(images, folder)
    (folder / "own.py").write_text(
        "from pathlib import Path\nimport numpy as np\ndef load():\n    return np.load(Path(__file__).with_name('images.npy'))\n"
    )
    return f"{folder / 'own.py'}:load"


FORMS: dict[str, Callable[[Array, Path], Any]] = {
    "array": lambda images, _: images,
    "dict": lambda images, _: {"image": images},
    "list-of-arrays": lambda images, _: list(images),
    "list-of-dicts": lambda images, _: [{"image": image[np.newaxis]} for image in images],
    "list-of-batches": lambda images, _: np.split(images, 4),
    "generator": lambda images, _: (image for image in images),
    "function": lambda images, _: lambda: images,
    "npy": npy,
    "npz": npz,
    "folder-of-npy": folder_of_npy,
    "module:function": code,
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_data_is_taken_in_every_form(digits: Digits, trial: Result, tmp_path: Path, form: Callable[[Array, Path], Any]) -> None:
    given = form(digits.calibration[:16], tmp_path)
    assert quick(digits, data=given, samples=16).plan.entries == trial.plan.entries


def write_images(digits: Digits, folder: Path, count: int, name: Callable[[int, int], str]) -> tuple[Path, Path]:
    """Write digits as grey images and the preprocessing that brings them back; return both paths."""
    pixels = np.rint((digits.test[:count, 0] * PIXEL_STD + PIXEL_MEAN) * 255).astype(np.uint8)
    for index, image in enumerate(pixels):
        path = folder / "images" / name(index, int(digits.test_labels[index]))
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    toml = folder / "preprocess.toml"
    toml.write_text(f'order = "gray"\nscale = {1 / 255}\nmean = [{PIXEL_MEAN}]\nstd = [{PIXEL_STD}]\n')
    return folder / "images", toml


@pytest.mark.parametrize(
    ("labels", "name"),
    [
        pytest.param("folder", lambda index, label: f"{label}/{index:03}.png", id="folder"),
        pytest.param("stem", lambda index, label: f"{index:03}/{label}.png", id="stem"),
    ],
)
def test_folder_of_images_with_labels(digits: Digits, tmp_path: Path, labels: str, name: Callable[[int, int], str]) -> None:
    images, preprocess = write_images(digits, tmp_path, 40, name)
    result = api.quantize(digits.model, data=images, target="tensorrt", samples=20, preprocess=preprocess, labels=labels)
    [logits] = result.evidence.fidelity
    assert (logits.float_accuracy or 0) >= 0.9
    assert (logits.accuracy or 0) >= 0.9
    assert result.evidence.evaluation_data.startswith("20 of 40 samples of")
    assert "gray" in result.plan.provenance.calibration_data


def label_csv(labels: Array, folder: Path) -> Path:
    (folder / "labels.csv").write_text("file,label\n" + "".join(f"data[{i}],{label}\n" for i, label in enumerate(labels)))
    return folder / "labels.csv"


def label_txt(labels: Array, folder: Path) -> Path:
    (folder / "labels.txt").write_text("\n".join(map(str, labels)))
    return folder / "labels.txt"


def label_npy(labels: Array, folder: Path) -> str:
    np.save(folder / "labels.npy", labels)
    return str(folder / "labels.npy")


LABELS: dict[str, Callable[[Array, Path], Any]] = {
    "array": lambda labels, _: labels,
    "list": lambda labels, _: labels.tolist(),
    "csv": label_csv,
    "txt": label_txt,
    "npy": label_npy,
}


@pytest.mark.parametrize(
    ("form", "held_out"), [*((form, True) for form in LABELS.values()), (LABELS["list"], False)], ids=[*LABELS, "list-for-eval-data"]
)
def test_labels_are_taken_in_every_form(digits: Digits, tmp_path: Path, form: Callable[[Array, Path], Any], held_out: bool) -> None:
    wrong = digits.test_labels[:30].copy()
    wrong[::2] = (wrong[::2] + 1) % 10  # half of the labels are wrong, so that nothing but the right order gives the number
    options = {"data": digits.test[:30], "samples": 20} if held_out else {"data": digits.calibration[:8], "eval_data": digits.test[:30]}
    [logits] = quick(digits, evaluate=True, labels=form(wrong, tmp_path), **options).evidence.fidelity
    judged = [i for i in range(30) if not held_out or i not in {(2 * k + 1) * 30 // 40 for k in range(20)}]
    session = onnxruntime.InferenceSession(digits.model, providers=["CPUExecutionProvider"])
    classes = np.asarray(session.run(None, {"image": digits.test[judged]})[0]).argmax(axis=1)
    assert logits.float_accuracy == (classes == wrong[judged]).mean()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(
            {},
            r"data: found none to calibrate with, expected samples of what the network sees in use; 'random' makes a trial",
            id="nothing",
        ),
        pytest.param({"evaluate": False}, r"data: found none to calibrate with", id="nothing-to-judge-either"),
        pytest.param({"eval_data": "random"}, r"data: found none to calibrate with", id="only-data-to-judge"),
        pytest.param({"data": ""}, r"data: found '', expected a folder of images or arrays", id="empty-text"),
        pytest.param({"data": []}, r"gave no samples, expected at least one", id="empty-list"),
        pytest.param({"data": "random", "labels": [1, 2]}, r"labels: found 2 labels, expected 1128", id="too-few-labels"),
    ],
)
def test_missing_data_is_an_error(digits: Digits, options: Mapping[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        api.quantize(digits.model, target="tensorrt", **options)


@pytest.mark.parametrize(
    ("options", "where"),
    [
        pytest.param({"data": "random"}, ["calibration", "evaluation"], id="both"),
        pytest.param({"data": "random", "evaluate": False}, ["calibration"], id="calibration"),
        pytest.param({"eval_data": "random"}, ["evaluation"], id="evaluation"),
    ],
)
def test_random_data_is_said_to_be_random(
    digits: Digits, options: Mapping[str, Any], where: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(choice, "MOST_EVALUATED", 16)
    result = quick(digits, samples=16, **{"evaluate": True, **options})
    assert verdict(result).startswith("tensorrt: ONLY A TRIAL: on random numbers, not real data")
    assert [note.where for note in result.notes if "random numbers, not real data" in note.reason] == where
    assert ("not real data" in to_json(result.plan)) is ("calibration" in where)
    assert ("not real data" in result.evidence.evaluation_data) is ("evaluation" in where)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": "stem"}, "labels: found 'stem', but evaluation is turned off; turn it on, or leave this out"),
        ({"labels": [1, 2]}, "labels: found a list, but evaluation is turned off"),
        ({"eval_data": "random"}, "eval_data: found 'random', but evaluation is turned off"),
    ],
    ids=["labels", "labels-in-memory", "eval-data"],
)
def test_something_to_judge_by_without_evaluation_is_an_error(digits: Digits, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        quick(digits, **options)


def test_plan_made_from_random_data_says_so_wherever_it_is_used(digits: Digits) -> None:
    plan = quick(digits, data="random", samples=4).plan
    assert "ONLY A TRIAL" in verdict(quick(digits, data=None, plan=plan))


def test_held_out_samples_do_not_calibrate(digits: Digits, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, list[bytes]] = {"calibrate": [], "compare_outputs": []}

    def spied(subject: Subject, *rest: Any, **options: Any) -> Any:
        seen["calibrate"] += [feed["image"].tobytes() for block in subject.batches for feed in block]
        return calibrate(subject, *rest, **options)

    def judged_on(feeds: Iterable[dict[str, Array]]) -> Iterator[dict[str, Array]]:
        for feed in feeds:
            seen["compare_outputs"].append(feed["image"].tobytes())
            yield feed

    monkeypatch.setattr(decide, "calibrate", spied)
    monkeypatch.setattr(measure, "compare_outputs", lambda a, b, feeds, **k: compare_outputs(a, b, judged_on(feeds), **k))
    api.quantize(digits.model, data=digits.calibration[:50], target="tensorrt", samples=30)
    assert {stage: len(set(feeds)) for stage, feeds in seen.items()} == {"calibrate": 30, "compare_outputs": 20}
    assert set(seen["calibrate"]).isdisjoint(seen["compare_outputs"])


@pytest.mark.parametrize(
    ("count", "calibrating", "judging"),
    [(1, 1, 0), (2, 2, 0), (5, 4, 0), (10, 8, 2), (16, 13, 3), (21, 16, 5)],
    ids="{0}".format,
)
def test_few_samples_are_shared_and_noted(digits: Digits, count: int, calibrating: int, judging: int) -> None:
    result = api.quantize(digits.model, data=digits.calibration[:count], target="tensorrt", samples=16)
    assert result.plan.provenance.calibration_data.startswith(f"{calibrating} of {count} samples")
    found = "1 sample" if calibrating == 1 else f"{calibrating} samples"
    assert (f"calibration: {found}, where 16 were asked for" in reasons(result)) is (calibrating < 16)
    assert ("too few samples were left to judge by" in reasons(result)) is (judging == 0)
    assert result.evidence.evaluation_data.startswith(f"{judging} of {count} samples" if judging else "")
    assert (result.evidence.fidelity == ()) is (judging == 0)


# --- a batch axis that is fixed --------------------------------------------------------------------------------------------

FIXED = network(
    "(float[4, 8] x) => (float[4, 8] y) { a = MatMul(x, w) r = Relu(a) y = MatMul(r, v) }", w=np.eye(8, dtype=np.float32), v=normal(8, 8)
)


def float_classes(model: onnx.ModelProto, batches: Sequence[Array]) -> list[int]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [int(best) for batch in batches for best in np.asarray(session.run(None, {"x": batch})[0]).argmax(axis=1)]


@pytest.mark.parametrize("target", ["tensorrt", "onnxruntime"])  # the second also measures latency, on a whole batch
@pytest.mark.parametrize("count", [40, 43], ids=["whole-batches", "ragged"])
def test_labels_follow_the_batches_that_a_fixed_network_takes(target: str, count: int) -> None:
    samples = normal(count, 8)
    padded = np.concatenate([samples, samples[:1]]) if count % 4 else samples
    labels = float_classes(FIXED, np.split(padded, len(padded) // 4))[:count]
    result = api.quantize(FIXED, data=normal(8, 8, seed=1), eval_data=samples, labels=labels, target=target)
    assert result.evidence.fidelity[0].float_accuracy == 1.0
    assert (f"3 of {count} samples left out: they fill no batch of 4" in reasons(result)) is (count == 43)


OF_ANY_LENGTH = network(
    "(float[2, T, 8] x) => (float[2, 8] y) { m = ReduceMax <axes = [1], keepdims = 0> (x) a = MatMul(m, w) r = Relu(a) y = MatMul(r, v) }",
    w=np.eye(8, dtype=np.float32),
    v=normal(8, 8),
)


def of_lengths(*lengths: int) -> list[Array]:
    return [normal(length, 8, seed=length * 100 + i) for i, length in enumerate(lengths)]


def test_labels_follow_where_whole_batches_have_other_shapes() -> None:
    samples = of_lengths(3, 3, 5, 5, 3, 3, 4)
    classes = [float_classes(OF_ANY_LENGTH, [np.stack([sample, sample])])[0] for sample in samples]
    result = api.quantize(OF_ANY_LENGTH, data=normal(8, 4, 8), eval_data=samples, labels=classes, target="tensorrt")
    assert result.evidence.fidelity[0].float_accuracy == 1.0
    assert "1 of 7 samples left out" in reasons(result)


@pytest.mark.parametrize("option", ["data", "eval_data"])
def test_another_shape_within_a_batch_that_is_fixed_is_an_error(option: str) -> None:
    given: dict[str, Any] = {"data": normal(8, 4, 8), "eval_data": normal(8, 4, 8), option: of_lengths(3, 3, 5, 3)}
    with pytest.raises(DataError, match=r"batch 1: found samples of .* expected one shape, since the network takes batches of 2"):
        api.quantize(OF_ANY_LENGTH, target="tensorrt", **given)


def test_too_few_samples_for_one_batch_is_an_error() -> None:
    with pytest.raises(DataError, match="found too few samples to fill a batch, expected at least 4"):
        api.quantize(FIXED, data=normal(3, 8), target="tensorrt")


# --- what no number can be given for ---------------------------------------------------------------------------------------


def test_output_whose_shape_differs_is_noted() -> None:
    model = network(
        "(float[N, 16] x) => (float[N, 16] y, int64[2, K] places) "
        "{ a = MatMul(x, w) b = Relu(a) y = MatMul(b, v) c = Sub(y, limit) r = Relu(c) places = NonZero(r) }",
        w=normal(16, 16),
        v=normal(16, 16, seed=1),
        limit=np.array(0.02, np.float32),
    )
    result = api.quantize(model, data=normal(160, 16), target="tensorrt", samples=60)
    logits, places = result.evidence.fidelity
    assert (logits.incomparable, places.incomparable > 0, places.sqnr_db) == (0, True, -np.inf)
    assert f"places: infinitely wrong in {places.incomparable} samples: another shape than in float" in reasons(result)
    assert "samples of places CANNOT BE COMPARED with float" in verdict(result)


@pytest.mark.parametrize(
    ("outputs", "last", "skipped"),
    [
        pytest.param("seq(float[N, 3]) s", "s = SequenceConstruct(y)", ["s"], id="only-a-sequence"),
        pytest.param("bool[N, 3] s", "z = Neg(y) s = Less(y, z)", ["s"], id="only-bool"),
        pytest.param("float[N, 3] y, bool[N, 3] s", "z = Neg(y) s = Less(y, z)", ["s"], id="logits-and-bool"),
        pytest.param("float[N, 3] y", "", [], id="logits"),
    ],
)
def test_outputs_that_are_not_compared_are_noted(outputs: str, last: str, skipped: list[str]) -> None:
    model = network(f"(float[N, 16] x) => ({outputs}) {{ y = MatMul(x, w) {last} }}", w=normal(16, 3))
    result = api.quantize(model, data=normal(20, 16), target="onnxruntime-arm")
    assert [note.where for note in result.notes if "this output was not compared" in note.reason] == skipped


def test_labels_without_an_output_that_has_classes_are_noted() -> None:
    model = network(
        "(float[N, 16] x) => (float[N, 3, 1] y) { m = MatMul(x, w) y = Unsqueeze(m, last) }", w=normal(16, 3), last=np.array([2])
    )
    result = api.quantize(model, data=normal(20, 16), labels=[0] * 20, target="openvino")
    assert result.evidence.fidelity[0].accuracy is None
    assert "labels: accuracy was not measured: no output has the shape of logits" in reasons(result)


# --- the plan, fed back ----------------------------------------------------------------------------------------------------


@every_target
@pytest.mark.parametrize("form", ["object", "path", "text"])
def test_plan_alone_gives_the_same_model(judged: dict[str, Judged], digits: Digits, target: str, form: str) -> None:
    first = judged[target]
    path = first.file.with_name(f"{first.file.name}.plan.json")
    forms: dict[str, Plan | Path | str] = {"object": first.result.plan, "path": path, "text": str(path)}
    again = api.quantize(digits.model, plan=forms[form], target=target, evaluate=False)
    assert serialize(again.model) == first.file.read_bytes()
    assert again.plan == first.result.plan


@pytest.mark.parametrize(
    ("option", "value"),
    [("solver", "minmax"), ("weight_solver", "minmax"), ("exclude", ["Gemm"]), ("include", ["Gemm"]), ("bias", "kept")],
    ids="{0}".format,
)
def test_option_that_a_plan_has_decided_is_refused(digits: Digits, trial: Result, option: str, value: Any) -> None:
    with pytest.raises(RecipeError, match=f"{option}: found .* beside a plan, which has decided that"):
        quick(digits, data=None, plan=trial.plan, **{option: value})


def test_plan_of_another_file_is_the_first_thing_said(digits: Digits, trial: Result) -> None:
    model = onnx.load(digits.model)
    weights = next(tensor for tensor in model.graph.initializer if tensor.name == "stage1.first.conv.weight")
    weights.CopyFrom(numpy_helper.from_array(50.0 * numpy_helper.to_array(weights), weights.name))
    other = quick(digits, model=model, data=None, plan=trial.plan)
    assert "PLAN OF ANOTHER FILE" in verdict(other)
    assert "PLAN OF ANOTHER FILE" not in verdict(quick(digits, data=None, plan=trial.plan))
    assert any(note.where == "plan" and "made from another file" in note.reason for note in other.notes)


def test_preprocessing_of_what_is_no_image_is_refused(digits: Digits) -> None:
    with pytest.raises(RecipeError, match="preprocess: found it with arrays in memory, expected images"):
        quick(digits, preprocess="imagenet")


def test_plan_is_judged_on_data_without_calibrating(digits: Digits, trial: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decide, "calibrate", None)
    result = api.quantize(digits.model, plan=trial.plan, eval_data=digits.test[:20], target="tensorrt")
    assert (result.evidence.fidelity[0].agreement or 0) > 0.9


def test_edited_plan_is_followed(digits: Digits, trial: Result, tmp_path: Path) -> None:
    path = tmp_path / "edited.plan.json"
    path.write_text(to_json(trial.plan))
    edited = replace(load_plan(path).entries[0], range=(), scale=(0.5,))
    path.write_text(to_json(replace(trial.plan, entries=(edited, *trial.plan.entries[2:]))))
    before, after = (_constants(result) for result in (trial, quick(digits, data=None, plan=path)))
    left_out = trial.plan.entries[1].tensor
    assert after[f"{edited.tensor}/scale"] == 0.5
    assert {name for name in before if name not in after} == {f"{left_out}/scale", f"{left_out}/zero_point"}


def _constants(result: Result) -> dict[str, Array]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(serialize(result.model)).graph.initializer}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"target": "openvino"}, r"plan: found target 'openvino', expected 'tensorrt'; quantize for that target", id="target"),
        pytest.param({"entries": "renamed"}, r"plan: tensor 'no/such' is not in the network.*was it made for another one", id="tensor"),
    ],
)
def test_plan_that_does_not_fit_is_an_error(digits: Digits, trial: Result, change: dict[str, Any], message: str) -> None:
    fields = {**change, **({"entries": (replace(trial.plan.entries[0], tensor="no/such"),)} if "entries" in change else {})}
    with pytest.raises(PlanError, match=message):
        quick(digits, data=None, plan=replace(trial.plan, **fields))


def test_plan_without_data_cannot_be_judged(digits: Digits, trial: Result) -> None:
    with pytest.raises(DataError, match="data: found none"):
        quick(digits, data=None, plan=trial.plan, evaluate=True)


# --- every option changes the answer ---------------------------------------------------------------------------------------

CHANGES: dict[str, tuple[dict[str, Any], Callable[[Result], object]]] = {
    "exclude-by-name": ({"exclude": ["stage1.*"]}, lambda result: result.evidence.coverage.quantized),
    "exclude-by-type": ({"exclude": ["Conv"]}, lambda result: result.evidence.coverage.quantized),
    "weight-storage": ({"weight_storage": "float"}, lambda result: result.evidence.quantized_bytes),
    "weight-solver": ({"weight_solver": "minmax"}, lambda result: scales(result).tolist()),
    "solver": ({"solver": "minmax"}, lambda result: result.plan.entry("stem.relu").scale),
    "solver-with-a-parameter": ({"solver": "percentile:99"}, lambda result: result.plan.entry("stem.relu").scale),
    "bias": ({"bias": "kept"}, lambda result: result.plan.corrections),
    "samples": ({"samples": 8}, lambda result: scales(result).tolist()),
    "batch-size": ({"batch_size": 4}, lambda result: result.plan.provenance.batch_size),
    "weight-format": ({"weight_format": "int4"}, lambda result: result.evidence.quantized_bytes),
    "weight-format-recorded": ({"weight_format": "int4"}, lambda result: result.plan.provenance.weight_format),
    "weight-granularity": ({"weight_granularity": "tensor"}, lambda result: scales(result).tolist()),
    "weight-granularity-of-blocks": ({"weight_granularity": "block:16"}, lambda result: scales(result).tolist()),
    "weight-granularity-recorded": ({"weight_granularity": "block:16"}, lambda result: result.plan.provenance.weight_granularity),
    "effort": ({"effort": "fast"}, lambda result: result.plan.provenance.effort),
    "without": ({"without": ["smoothing"]}, lambda result: [step.name for step in result.plan.steps]),
    "without-recorded": ({"without": ["smoothing"]}, lambda result: result.plan.provenance.without),
    "target": ({"target": "openvino"}, lambda result: result.plan.entry("stem.relu").format),
}


@pytest.mark.parametrize(("options", "answer"), CHANGES.values(), ids=CHANGES)
def test_option_changes_the_answer(digits: Digits, trial: Result, options: dict[str, Any], answer: Callable[[Result], object]) -> None:
    assert answer(quick(digits, **options)) != answer(trial)


def test_include_quantizes_what_the_target_holds_back() -> None:
    model = network("(float[N, 16, 4, 4] x) => (float[N, 16, 4, 4] y) { [up] a = ConvTranspose(x, w) y = Neg(a) }", w=normal(16, 16, 1, 1))
    covered = [
        api.quantize(model, data=normal(4, 16, 4, 4), target="tensorrt", evaluate=False, include=include).evidence.coverage.quantized
        for include in ([], ["up"], ["ConvTranspose"], ["u*"])
    ]
    assert covered == [0, 1, 1, 1]


@pytest.mark.parametrize("what", ["seed", "nothing"])
def test_seed_draws_other_random_numbers(digits: Digits, what: str) -> None:
    first, second = (quick(digits, data="random", samples=4, seed=seed) for seed in (0, 1 if what == "seed" else 0))
    assert (first.plan.entries != second.plan.entries) is (what == "seed")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"solver": "mean"}, RecipeError, "mean"),
        ({"solver": "percentile:101"}, RecipeError, "101"),
        ({"weight_solver": "mean"}, RecipeError, "weight_solver: found 'mean', expected one of mse, minmax"),
        ({"weight_storage": "int4"}, RecipeError, "weight_storage: found 'int4', expected one of integer, float"),
        ({"weight_format": "int2"}, RecipeError, "weight_format: found 'int2', expected one of int8, int4"),
        ({"weight_granularity": "row"}, RecipeError, "weight_granularity: found 'row', expected channel, tensor or block:N"),
        ({"effort": "slow"}, RecipeError, "effort: found 'slow', expected one of fast, balanced, best"),
        (
            {"without": ["bias"]},
            RecipeError,
            "without: found 'bias', expected names of refinements, which are smoothing, rounding and reconstruction",
        ),
        ({"include": ["up"]}, RecipeError, "include: found 'up', which fits no node and no operator type"),
        ({"exclude": ["stage9.*"]}, RecipeError, r"exclude: found 'stage9\.\*', .* or one of Add, Conv,"),
        ({"samples": 0}, RecipeError, "samples: found 0, expected at least 1"),
        ({"batch_size": 0}, RecipeError, "batch_size: found 0, expected at least 1"),
        ({"target": "cuda"}, RecipeError, "target: found 'cuda', expected one of tensorrt"),
        ({"preprocess": "no-such"}, RecipeError, "preprocess: found 'no-such', expected imagenet"),
        ({"plan": "no-such.json"}, PlanError, r"plan no-such\.json: cannot be read"),
        ({"model": "no-such.onnx"}, ModelError, r"no-such\.onnx: cannot be read"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_impossible_value_is_an_error(digits: Digits, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        quick(digits, **options)


# --- what must not change the answer ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def one_by_one(digits: Digits) -> Result:
    return quick(digits, data=digits.calibration[:64], samples=64, effort="fast")


@pytest.mark.parametrize(
    ("batch_size", "shuffled"), [(7, False), (64, False), (1, True), (7, True)], ids=["batch-7", "batch-64", "shuffled", "shuffled-batch-7"]
)
def test_batch_size_and_order_hardly_move_the_scales(digits: Digits, one_by_one: Result, batch_size: int, shuffled: bool) -> None:
    order = np.random.default_rng(0).permutation(64) if shuffled else np.arange(64)
    result = quick(digits, data=digits.calibration[order], samples=64, batch_size=batch_size, effort="fast")
    np.testing.assert_allclose(scales(result), scales(one_by_one), rtol=1e-4)


def stages(steps: list[tuple[str, int, int]]) -> list[tuple[str, int, int]]:
    """The steps, less the memory that a calibration tells of before it begins."""
    return [(re.sub(r" \(about \d+ MB\)$", "", stage), done, total) for stage, done, total in steps]


@pytest.mark.parametrize(("batch_size", "blocks"), [(1, 16), (7, 3)], ids=["one-by-one", "batches"])
def test_progress_counts_to_the_end_of_each_stage(digits: Digits, batch_size: int, blocks: int) -> None:
    steps: list[tuple[str, int, int]] = []
    options: dict[str, Any] = {"batch_size": batch_size, "eval_data": digits.test[:3], "evaluate": True, "effort": "fast"}
    quick(digits, **options, progress=lambda *step: steps.append(step))
    expected = [*(("calibrating", done, blocks) for done in range(blocks + 1)), *(("evaluating", done, 3) for done in (1, 2, 3))]
    assert stages(steps) == expected


@pytest.mark.parametrize(
    ("effort", "expected"),
    [("balanced", ["calibrating", "smoothing"]), ("best", ["calibrating", "smoothing", "calibrating what was scaled", "rounding"])],
)
def test_progress_counts_to_the_end_of_each_refinement(digits: Digits, effort: str, expected: list[str]) -> None:
    steps: list[tuple[str, int, int]] = []
    quick(digits, effort=effort, progress=lambda *step: steps.append(step))
    found = [(stage, [*group]) for stage, group in groupby(stages(steps), key=lambda step: step[0])]
    assert [stage for stage, _ in found][: len(expected)] == expected
    for _, group in found:
        total = group[0][2]
        assert [(done, of) for _, done, of in group] == [(done, total) for done in range(group[0][1], total + 1)]
        assert group[0][1] in (0, 1)


def test_progress_counts_the_batches_of_a_fixed_network() -> None:
    steps: list[tuple[str, int, int]] = []
    api.quantize(FIXED, data=normal(14, 8), samples=8, batch_size=1, target="tensorrt", progress=lambda *step: steps.append(step))
    assert stages(steps) == [*(("calibrating", done, 2) for done in range(3)), ("evaluating", 1, 1)]


# --- the small functions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["onnxruntime", "openvino"])
def test_lint_finds_what_another_target_minds(judged: dict[str, Judged], target: str) -> None:
    other = judged["tensorrt" if target == "onnxruntime" else "onnxruntime"].file
    assert api.lint(other.read_bytes(), target=target) == api.lint(other, target=target) != Lint((), True)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"solver": "minmax", "symmetric": False}, (-2.0, 3.0), id="minmax"),
        pytest.param({"solver": "minmax"}, (-3.0, 3.0), id="symmetric"),
        pytest.param({"solver": "minmax", "symmetric": False, "format": "uint8"}, (-2.0, 3.0), id="uint8"),
    ],
)
def test_solve_range_spans_the_values(options: dict[str, Any], expected: tuple[float, float]) -> None:
    found = api.solve_range([[-2.0, 0.5], [1.0, 3.0]], **options)
    assert (found.lo, found.hi) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("solver", ["auto", "mse", "entropy", "percentile:99"])
def test_solve_range_clips_one_outlier_among_many(solver: str) -> None:
    values = np.append(normal(400_000), 40.0)
    assert api.solve_range(values, solver=solver).hi < api.solve_range(values, solver="minmax").hi / 2


@pytest.mark.parametrize(
    ("array", "options", "error"),
    [
        pytest.param([], {}, DataError, id="nothing"),
        pytest.param([np.nan, np.inf], {}, DataError, id="nothing-finite"),
        pytest.param([1.0], {"solver": "mean"}, RecipeError, id="solver"),
        pytest.param([1.0], {"format": "int3"}, RecipeError, id="format"),
    ],
)
def test_solve_range_refuses(array: list[float], options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        api.solve_range(array, **options)
