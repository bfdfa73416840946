from __future__ import annotations

import math
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from tests.torch import training_cases  # noqa: E402
from tests.torch.training_cases import CLASSES, SAMPLES, Joined, Stop, drawing, images, learned, noisy, prepared, same, stop  # noqa: E402
from torch.nn import functional  # noqa: E402
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, TensorDataset  # noqa: E402

import zeropoint as zp  # noqa: E402
from zeropoint.torch.finetuning import finetune  # noqa: E402
from zeropoint.torch.preparing import prepare  # noqa: E402
from zeropoint.torch.training_options import Distillation, Finetuned  # noqa: E402

EPOCHS, STEPS = 3, 6  # of noisy()


def batches() -> list[Any]:
    x, y = torch.from_numpy(images()), torch.arange(SAMPLES) % CLASSES
    return list(zip(x.split(8), y.split(8), strict=True))


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.pt"


# --- what training does ----------------------------------------------------------------------------------------------------


def test_the_module_comes_closer_to_the_float_network() -> None:
    module = prepared(bits=4)
    done = finetune(module, batches(), epochs=20, learning_rate=0.01, scale_learning_rate=0.02)
    assert len(done.epochs) == 20
    assert (done.steps, done.resumed_at, done.measures, done.notes) == (120, 0, ("logits",), ())
    assert done.epochs[-1].loss < 0.8 * done.epochs[0].loss
    assert done.epochs[0].task is None


def test_losses_are_means_of_their_parts() -> None:
    weights = Distillation(outputs=0.5, features=2.0)
    done = finetune(prepared(), batches(), loss=functional.cross_entropy, distillation=weights, epochs=2)
    for epoch in done.epochs:
        assert epoch.task is not None
        assert epoch.loss == pytest.approx(epoch.task + 0.5 * epoch.outputs + 2 * epoch.features)
        assert min(epoch.task, epoch.outputs, epoch.features) > 0


def test_the_first_step_moves_each_weight_by_its_share() -> None:
    module, before = prepared(), learned(prepared())
    finetune(module, batches()[:1], epochs=1, warmup=0, learning_rate=1e-2, scale_learning_rate=1e-3, weight_decay=0)
    after = learned(module)
    depth = before["network.depth"].reshape(8, -1)
    sizes = depth.square().mean(1, keepdim=True).sqrt()
    moved = (after["network.depth"].reshape(8, -1) - depth).abs()
    share = torch.exp2(sizes.log2().floor()) * 1e-2  # the first step of Adam has one length
    assert torch.allclose(moved, share.expand_as(moved), rtol=2e-2)
    scales = [name for name in before if name.endswith("scale")]
    assert scales
    for name in scales:
        share = torch.exp2(before[name].log2().floor()) * 1e-3
        assert torch.allclose((after[name] - before[name]).abs(), share, rtol=2e-2)


OPTIONS: dict[str, dict[str, Any]] = {
    "epochs": {"epochs": 3},
    "learning rate": {"learning_rate": 2e-3},
    "scale learning rate": {"scale_learning_rate": 2e-3},
    "weight decay": {"weight_decay": 0.5},
    "warmup": {"warmup": 0.5},
    "clip": {"clip": 1e-6},
    "seed": {"seed": 1},
    "bfloat16": {"precision": "bfloat16"},
    "float16": {"precision": "float16"},
    "the task's loss": {"loss": functional.cross_entropy},
    "temperature": {"distillation": Distillation(temperature=4.0)},
    "outputs by their values": {"distillation": Distillation(measure="values")},
    "outputs as probabilities": {"ends": "Sigmoid", "distillation": Distillation(measure="probabilities")},
    "features": {"distillation": Distillation(features=1.0)},
    "features alone": {"distillation": Distillation(features=1.0, outputs=0.0)},
    "weight of the outputs": {"loss": functional.cross_entropy, "distillation": Distillation(outputs=4.0)},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_option_changes_the_weights(options: dict[str, Any]) -> None:
    def weights(**others: Any) -> dict[str, Any]:
        module = prepared(ends=others.pop("ends", ""))
        finetune(module, DataLoader(batches(), batch_size=None, shuffle=True), **{"epochs": 2, **others})
        return learned(module)

    base = {name: options[name] for name in ("ends", "loss") if name in options and len(options) > 1}
    assert not same(weights(**base), weights(**options))


def test_weight_decay_spares_biases_and_scales() -> None:
    still, module = learned(prepared()), prepared()
    finetune(module, batches(), epochs=1, learning_rate=1e-30, scale_learning_rate=0.0, weight_decay=1e29)
    found = learned(module)
    moved = {name for name in found if not torch.allclose(found[name], still[name], rtol=1e-4)}
    assert moved == {"network.first", "network.depth", "network.last"}


def test_zero_points_learn_in_codes() -> None:
    before, module = learned(prepared(bits=4, learning="scale and zero point")), prepared(bits=4, learning="scale and zero point")
    finetune(module, batches()[:1], epochs=1, warmup=0, scale_learning_rate=1e-2)
    after = learned(module)
    points = [name for name in before if name.endswith("zero_point")]
    assert points
    for name in points:
        moved = float((after[name] - before[name]).abs())
        assert moved == 0 or moved == pytest.approx(0.08, rel=2e-2)


def test_rate_of_zero_leaves_scales_as_they_are() -> None:
    module, before = prepared(), learned(prepared())
    finetune(module, batches(), epochs=1, scale_learning_rate=0.0)
    after = learned(module)
    assert all(torch.equal(after[name], before[name]) for name in before if name.endswith("scale"))
    assert not torch.equal(after["network.first"], before["network.first"])


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no epoch": ({"epochs": 0}, "epochs: found 0"),
    "part of an epoch": ({"epochs": 1.5}, "epochs: found 1.5"),
    "negative rate": ({"learning_rate": -1.0}, "learning_rate: found -1.0"),
    "endless scale rate": ({"scale_learning_rate": math.inf}, "scale_learning_rate: found inf"),
    "negative decay": ({"weight_decay": -0.1}, "weight_decay"),
    "warm-up longer than all": ({"warmup": 1.1}, "warmup: found 1.1"),
    "clip at 0": ({"clip": 0.0}, "clip: found 0.0"),
    "other precision": ({"precision": "int8"}, "precision: found 'int8', expected one of float32, bfloat16, float16"),
    "other kernels": ({"kernels": "slow"}, "kernels: found 'slow'"),
    "negative seed": ({"seed": -1}, "seed: found -1"),
    "other loss": ({"loss": "mse"}, "loss: found 'mse'"),
    "no step between checkpoints": ({"checkpoint_steps": 0}, "checkpoint_steps: found 0"),
    "nothing to learn from": ({"distillation": Distillation(outputs=0.0)}, "distillation: found weights of 0"),
    "no such device": ({"device": "cuda:99"}, "device: found 'cuda:99'"),
}


@pytest.mark.parametrize(("options", "message"), BAD.values(), ids=BAD)
def test_impossible_option_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(zp.RecipeError, match=message.replace("(", "\\(")):
        finetune(prepared(), batches(), **options)


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"outputs": -1.0}, "outputs"),
        ({"features": math.nan}, "features"),
        ({"temperature": 0.0}, "temperature"),
        ({"measure": "l1"}, "measure"),
    ],
    ids=["negative weight", "weight that is none", "no temperature", "other measure"],
)
def test_impossible_distillation_is_refused(fields: dict[str, Any], name: str) -> None:
    with pytest.raises(zp.RecipeError, match=f"distillation.{name}"):
        Distillation(**fields)


@pytest.mark.parametrize(("ends", "measure"), [("", "logits"), ("Softmax", "probabilities"), ("Sigmoid", "logits")])
def test_measure_follows_the_outputs(ends: str, measure: str) -> None:
    assert finetune(prepared(ends=ends), batches(), epochs=1).measures == (measure,)


def test_module_that_cannot_learn_is_refused() -> None:
    with pytest.raises(zp.ModelError, match="no weight or scale that requires a gradient"):
        finetune(prepared().requires_grad_(False), batches())


def test_module_that_has_nothing_to_learn_is_refused() -> None:
    with pytest.raises(zp.ModelError, match="no weight or scale that requires a gradient"):
        finetune(prepare(torch.nn.ReLU(), torch.ones(4, 3), target="openvino"), [torch.ones(4, 3)])


def test_module_that_is_not_prepared_is_refused() -> None:
    with pytest.raises(zp.ModelError, match="prepared: found Linear, expected the module that"):
        finetune(torch.nn.Linear(2, 2), [torch.ones(4, 2)])


# --- data ------------------------------------------------------------------------------------------------------------------

SHAPES: dict[str, Callable[[Any, Any], Any]] = {
    "a tensor": lambda x, _: x,
    "with a label": lambda x, y: (x, y),
    "as a list": lambda x, y: [x, y],
    "with two targets": lambda x, y: (x, y, y),
    "by name": lambda x, y: {"label": y, "image": x},
    "by name, with a label": lambda x, y: ({"image": x}, y),
    "in a tuple, with a label": lambda x, y: ((x,), y),
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_batches_of_all_shapes_train_the_same(shape: Callable[[Any, Any], Any]) -> None:
    one, other = prepared(), prepared()
    finetune(one, batches(), epochs=1)
    finetune(other, [shape(x, y) for x, y in batches()], epochs=1)
    assert same(learned(one), learned(other))


@pytest.mark.parametrize("name", ["with a label", "with two targets", "by name", "by name, with a label", "in a tuple, with a label"])
def test_what_is_left_of_a_batch_is_the_target(name: str) -> None:
    seen: list[Any] = []

    def loss(outputs: Any, target: Any) -> Any:
        seen.append(target)
        return outputs.square().mean()

    finetune(prepared(), [SHAPES[name](x, y) for x, y in batches()[:1]], loss=loss, epochs=1)
    expected = batches()[0][1]
    targets = seen[0] if isinstance(seen[0], tuple) else (seen[0],)
    assert len(targets) == (2 if name == "with two targets" else 1)
    assert all(torch.equal(target, expected) for target in targets)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ([], "found no batch"),
        (torch.zeros(5, 3, 6, 6), r"input 'image': found float32 of shape \(3, 6, 6\), expected float32 of shape \(any, 3, 6, 6\)"),
        ([torch.zeros(5, 3, 6, 6, dtype=torch.float64)], r"input 'image': found float64 of shape \(5, 3, 6, 6\), expected float32"),
        ((batch for batch in [1, 2]), "gone through once"),
        ([{"picture": torch.zeros(1)}], "found keys picture, expected tensors for image"),
        ([()], "found a tuple of nothing"),
        ([["text"]], "found a list of str"),
        (["text"], "found str"),
    ],
    ids=["none", "single samples", "another type", "an iterator", "another name", "an empty batch", "text in a list", "text"],
)
def test_data_that_does_not_fit_is_refused(data: Any, message: str) -> None:
    with pytest.raises(zp.DataError, match=message):
        finetune(prepared(), data)


@pytest.mark.parametrize(
    ("loss", "found"),
    [(lambda x, y: functional.cross_entropy(x, y, reduction="none"), r"a tensor of shape \(8,\)"), (lambda x, y: 1.0, "float")],
    ids=["one for each sample", "a number"],
)
def test_loss_that_is_no_scalar_is_refused(loss: Any, found: str) -> None:
    with pytest.raises(zp.RecipeError, match=f"loss: found {found}"):
        finetune(prepared(), batches(), loss=loss)


def test_gradients_from_before_do_not_count() -> None:
    one, other = prepared(), prepared()
    for parameter in one.parameters():
        parameter.grad = torch.ones_like(parameter)
    for module in (one, other):
        finetune(module, batches(), epochs=1)
    assert same(learned(one), learned(other))


def test_loss_without_a_target_is_refused() -> None:
    with pytest.raises(zp.DataError, match="epoch 1, step 1 of 6: found no target"):
        finetune(prepared(), [x for x, _ in batches()], loss=functional.cross_entropy)


def test_data_without_a_length_is_counted() -> None:
    class Endless(IterableDataset):
        def __iter__(self) -> Iterator[Any]:
            return iter(torch.from_numpy(images()))

    one, other = prepared(), prepared()
    assert finetune(one, DataLoader(Endless(), batch_size=8), epochs=2).steps == 12
    finetune(other, batches(), epochs=2)
    assert same(learned(one), learned(other))


def test_sampler_is_told_of_each_epoch() -> None:
    told: list[int] = []

    class Sampler(DistributedSampler):
        def set_epoch(self, epoch: int) -> None:
            told.append(epoch)
            super().set_epoch(epoch)

    data = TensorDataset(torch.from_numpy(images()))
    finetune(prepared(), DataLoader(data, batch_size=8, sampler=Sampler(data, num_replicas=2, rank=0)), epochs=3)
    assert told == [0, 1, 2]


def test_workers_that_live_on_are_noted() -> None:
    data = TensorDataset(torch.from_numpy(images()))
    done = finetune(prepared(), DataLoader(data, batch_size=24, num_workers=1, persistent_workers=True), epochs=1)
    assert [note.where for note in done.notes] == ["data"]


# --- the same again --------------------------------------------------------------------------------------------------------


def states(generator: Any) -> list[Any]:
    key = dict(np.random.get_state(legacy=False))["state"]["key"]
    return [torch.get_rng_state().tolist(), key.tolist(), random.getstate(), generator.get_state().tolist()]


def test_same_seed_gives_the_same_weights_and_leaves_random_states_alone() -> None:
    generator, found = torch.Generator().manual_seed(5), []
    for _ in range(2):
        module, before = prepared(), states(generator)
        loader = DataLoader(training_cases.Noisy(), batch_size=8, shuffle=True, generator=generator)
        finetune(module, loader, epochs=2)
        assert states(generator) == before
        found.append(learned(module))
        torch.rand(3, generator=generator)
        torch.rand(3)
    assert same(*found)


@pytest.mark.parametrize(("kernels", "inside"), [("deterministic", True), ("fastest", False)])
def test_kernels_are_deterministic_for_as_long_as_it_trains(kernels: Any, inside: bool) -> None:
    seen: set[bool] = set()

    def loss(outputs: Any, _: Any) -> Any:
        seen.add(torch.are_deterministic_algorithms_enabled())
        return outputs.square().mean()

    finetune(prepared(), batches(), loss=loss, epochs=1, kernels=kernels)
    assert seen == {inside}
    assert not torch.are_deterministic_algorithms_enabled()
    assert "CUBLAS_WORKSPACE_CONFIG" not in os.environ


def test_operator_without_a_deterministic_kernel_is_told() -> None:
    def loss(outputs: Any, _: Any) -> Any:
        raise RuntimeError("put_ does not have a deterministic implementation, but you set ...")

    with pytest.raises(zp.RecipeError, match=r'put_ does not have a deterministic implementation.*kernels="fastest"'):
        finetune(prepared(), batches(), loss=loss)


# --- checkpoints -----------------------------------------------------------------------------------------------------------


def run(module: Any, data: Any, path: Path | None, **options: Any) -> Finetuned:
    given = {"loss": drawing, "epochs": EPOCHS, "checkpoint": path, "checkpoint_steps": 2, "distillation": Distillation(features=1.0)}
    return finetune(module, data, **{**given, **options})


@cache
def whole(**options: Any) -> tuple[dict[str, Any], Finetuned]:
    module = prepared()
    done = run(module, noisy(), None, **options)
    return learned(module), done


CUTS = {
    "in the first step": (3, 0),
    "behind the first step": (12, 0),
    "behind a checkpoint": (8 * 2 + 1, 2),
    "a step after one": (8 * 3 + 5, 2),
    "at an epoch's end": (8 * 6 + 1, 6),
    "in the last step": (8 * 18, 16),
}


@pytest.mark.parametrize("module", ["another", "the same"])
@pytest.mark.parametrize(("at", "held"), CUTS.values(), ids=CUTS)
def test_resumed_training_ends_at_the_same_bits(path: Path, at: int, held: int, module: str) -> None:
    weights, done = whole()
    first = prepared()
    with pytest.raises(Stop):
        run(first, noisy(at, stop), path)
    second = prepared() if module == "another" else first
    torch.manual_seed(at)
    np.random.seed(at)
    random.seed(at)
    again = run(second, noisy(), path)
    assert again.resumed_at == held
    assert same(learned(second), weights)
    assert again.epochs == done.epochs


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_resumed_training_of_mixed_precision_ends_at_the_same_bits(path: Path, precision: str) -> None:
    large = Distillation(outputs=1e7, features=1.0)  # float16 overflows, and takes another scale of the loss
    weights, _ = whole(precision=precision, distillation=large)
    with pytest.raises(Stop):
        run(prepared(), noisy(60, stop), path, precision=precision, distillation=large)
    scale = torch.load(path, weights_only=True)["scaler"].get("scale")
    assert scale is None if precision == "bfloat16" else 1 < scale < 65536
    module = prepared()
    run(module, noisy(), path, precision=precision, distillation=large)
    assert same(learned(module), weights)


def test_loader_with_workers_resumes_to_the_same_bits(path: Path) -> None:
    def loader() -> DataLoader:
        return DataLoader(training_cases.Noisy(), batch_size=16, shuffle=True, num_workers=1, generator=torch.Generator())

    one, other = prepared(), prepared()
    run(one, loader(), None, epochs=2)

    def progress(_: str, done: int, __: int) -> None:
        if done == 5:
            raise Stop

    with pytest.raises(Stop):
        run(prepared(), loader(), path, epochs=2, progress=progress)
    run(other, loader(), path, epochs=2)
    assert same(learned(one), learned(other))


def test_killed_process_resumes_to_the_same_bits(path: Path) -> None:
    script = "import sys; from tests.torch.training_cases import train_and_die; train_and_die(sys.argv[1])"
    result = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    one, other = prepared(), prepared()
    finetune(one, noisy(), epochs=3)
    assert finetune(other, noisy(), epochs=3, checkpoint=path, checkpoint_steps=2).resumed_at == 8
    assert same(learned(one), learned(other))


def test_finished_training_is_not_done_again(path: Path) -> None:
    first, second = prepared(), prepared()
    done = run(first, noisy(), path)
    again = run(second, noisy(1, stop), path)
    assert (again.resumed_at, again.epochs) == (EPOCHS * STEPS, done.epochs)
    assert same(learned(first), learned(second))


def test_interruption_leaves_a_checkpoint_of_the_step(path: Path) -> None:
    weights, _ = whole()
    with pytest.raises(KeyboardInterrupt):
        run(prepared(), noisy(60, lambda: os.kill(os.getpid(), signal.SIGINT)), path, checkpoint_steps=1000)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    module = prepared()
    assert run(module, noisy(), path).resumed_at == 8
    assert same(learned(module), weights)


def test_interruption_amidst_the_last_evaluation_is_not_lost(path: Path) -> None:
    weights, _ = whole()

    def evaluate(_: Any) -> float:
        if torch.load(path, weights_only=True)["epoch"] == EPOCHS - 1:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.0

    module, again = prepared(), prepared()
    with pytest.raises(KeyboardInterrupt):
        run(module, noisy(), path, evaluate=evaluate)
    assert run(again, noisy(), path).resumed_at == EPOCHS * STEPS
    assert same(learned(again), weights)


def test_checkpoint_appears_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stop):
        run(prepared(), noisy(30, stop), path)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(zp.OutputError, match="No space left"):
        patch.setattr("os.replace", full)
        run(prepared(), noisy(), path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(zp.OutputError, match="missing"):
        run(prepared(), noisy(), tmp_path / "missing" / "run.pt")


def test_checkpoint_is_read_without_running_code(path: Path) -> None:
    module = prepared()
    run(module, noisy(), path, evaluate=lambda m: {"right": 0.5})
    content = torch.load(path, weights_only=True)
    assert same({name: content["model"][name] for name in learned(module)}, learned(module))
    assert {"optimizer", "scaler", "random", "epoch", "step", "told"} <= content.keys()
    assert [epoch["evaluation"] for epoch in content["history"]] == [{"right": 0.5}] * EPOCHS


OTHERS: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "rate": (prepared, {"learning_rate": 0.5}, "learning_rate: found 0.001, expected 0.5"),
    "epochs": (prepared, {"epochs": 4}, "epochs: found 3, expected 4"),
    "loss": (prepared, {"loss": functional.cross_entropy}, "loss: found drawing, expected cross_entropy"),
    "distillation": (prepared, {"distillation": Distillation()}, "distillation.features: found 1.0, expected 0.0"),
    "weights": (lambda: prepared(seed=3), {}, "network: found"),
    "layers": (lambda: prepared(ends="Sigmoid"), {}, "network: found"),
}


@pytest.mark.parametrize(("module", "options", "message"), OTHERS.values(), ids=OTHERS)
def test_checkpoint_of_another_run_is_refused(path: Path, module: Callable[[], Any], options: dict[str, Any], message: str) -> None:
    run(prepared(), noisy(), path)
    before = path.read_bytes()
    with pytest.raises(zp.RecipeError, match=message):
        run(module(), noisy(), path, **options)
    assert path.read_bytes() == before


def test_checkpoint_of_other_data_is_refused(path: Path) -> None:
    run(prepared(), batches(), path)
    with pytest.raises(zp.RecipeError, match="batches in an epoch: found 6, expected 5"):
        run(prepared(), batches()[:5], path)


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 broken"], ids=["empty", "text", "broken"])
def test_file_that_is_no_checkpoint_is_refused(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(zp.RecipeError, match="cannot be read as one"):
        run(prepared(), noisy(), path)
    assert path.read_bytes() == content


# --- what goes wrong -------------------------------------------------------------------------------------------------------


def broken(kind: str) -> Callable[[Any, Any], Any]:
    calls: list[int] = []

    def loss(outputs: Any, _: Any) -> Any:
        calls.append(1)
        plain = outputs.square().mean()
        if len(calls) != 9:
            return plain
        if kind == "loss":
            return plain * math.nan
        return plain + (outputs - outputs.detach()).abs().sqrt().sum()  # finite, its gradient is not

    return loss


@pytest.mark.parametrize(("kind", "found"), [("loss", "a loss of nan"), ("gradient", "gradients that are not finite")])
def test_divergence_is_told_and_leaves_the_last_good_weights(path: Path, kind: str, found: str) -> None:
    module, good = prepared(), prepared()
    with pytest.raises(zp.ModelError, match=f"epoch 2, step 3 of 6: found {found}.*Lower learning_rate"):
        run(module, batches(), path, loss=broken(kind))
    with pytest.raises(Stop):
        run(good, batches(), None, loss=broken("never"), progress=lambda _, done, __: stop() if done == 8 else None)
    assert same(learned(module), learned(good))
    assert torch.load(path, weights_only=True)["step"] == 2


# --- what stands around ----------------------------------------------------------------------------------------------------


def test_evaluation_is_called_at_each_end_in_its_mode() -> None:
    module, seen = prepared(), []

    def evaluate(given: Any) -> float:
        seen.append((given is module, given.training, torch.is_grad_enabled()))
        return len(seen) / 2

    module.eval()
    done = finetune(module, batches(), epochs=2, evaluate=evaluate)
    assert seen == [(True, False, False)] * 2
    assert [epoch.evaluation for epoch in done.epochs] == [0.5, 1.0]
    assert not module.training


def test_progress_is_told_from_where_it_resumes(path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    with pytest.raises(Stop):
        run(prepared(), noisy(8 * 8 + 1, stop), path)
    run(prepared(), noisy(), path, progress=lambda *told: seen.append(told))
    assert seen == [("fine-tuning", done, 18) for done in range(8, 19)]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_resumed_training_on_a_gpu_ends_at_the_same_bits(path: Path, precision: str) -> None:
    one, other = prepared(), prepared()
    run(one, noisy(), None, device="cuda", precision=precision)
    with pytest.raises(Stop):
        run(prepared(), noisy(60, stop), path, device="cuda", precision=precision)
    run(other, noisy(), path, device="cuda", precision=precision)
    assert next(other.parameters()).device.type == "cuda"
    assert same(learned(one), learned(other))


# --- several processes -----------------------------------------------------------------------------------------------------


TWO_GPUS = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")


@pytest.mark.parametrize(("backend", "device"), [("gloo", "cpu"), pytest.param("nccl", "cuda", marks=TWO_GPUS)], ids=["CPUs", "GPUs"])
def test_two_processes_do_what_one_does_on_the_joint_batches(tmp_path: Path, backend: str, device: str) -> None:
    torch.multiprocessing.spawn(training_cases.train_in_parallel, args=(str(tmp_path), backend), nprocs=2)
    (*first, resumed), (*second, resumed_too) = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert resumed
    assert resumed_too
    module = prepared()
    done = finetune(module, Joined(16), loss=functional.cross_entropy, distillation=training_cases.BY_VALUES, epochs=2, device=device)
    for one, other in zip(first, second, strict=True):  # the module, and it in a DistributedDataParallel
        assert same(one["weights"], other["weights"])
        for name, tensor in learned(module).items():
            assert torch.allclose(tensor, one["weights"][name], rtol=1e-3, atol=1e-5 if device == "cpu" else 1e-3), name
        assert one["losses"] == other["losses"] == pytest.approx([epoch.loss for epoch in done.epochs], rel=1e-4)
        assert one["seen"] == list(range(7))
        assert other["seen"] == []
    assert {file.name for file in tmp_path.iterdir()} >= {"plain.checkpoint", "wrapped.checkpoint"}


@pytest.mark.parametrize(("rate", "expected"), [(0.01, False), (3.0, True)], ids=["towards it", "steps as large as the weights"])
def test_a_training_that_leads_away_is_told(rate: float, expected: bool) -> None:
    done = finetune(prepared(), batches(), epochs=20, learning_rate=rate, scale_learning_rate=0.02)
    assert any("ended farther from the float network" in note.reason for note in done.notes) == expected
