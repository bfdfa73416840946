"""The training loop of `finetune`: steps, epochs, and what happens between them."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from zeropoint.data.inputs import InputInfo
from zeropoint.errors import DataError, ModelError, RecipeError
from zeropoint.notes import Note
from zeropoint.progress import Progress
from zeropoint.torch import checkpoints, processes, randomness
from zeropoint.torch.batches import counted, doubts, epoch_batches, generators, moved, split
from zeropoint.torch.capture import evaluating
from zeropoint.torch.checkpoints import State
from zeropoint.torch.distillation import feature_distance, output_distance, yardstick
from zeropoint.torch.learning import learner
from zeropoint.torch.quantized import device_of, quantized_module
from zeropoint.torch.schedules import cosine
from zeropoint.torch.training_options import Epoch, Evaluation, Finetuned, Options

Tensor = Any  # of PyTorch, which has no types here
STAGE = "fine-tuning"
LOSSES = 4  # the whole loss, the task's, the outputs' and the features'
OUTPUTS = 2  # the place of the outputs' among them
FARTHER = 1.5  # times the distance at the beginning, which one batch tells: more is worth a note


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What stands around the training and does not change its weights."""

    checkpoint: Path | None
    checkpoint_steps: int
    evaluate: Callable[[nn.Module], Evaluation] | None
    progress: Progress


@dataclass(frozen=True, slots=True, eq=False)
class Plant:
    """What a step needs and never changes. count: batches in an epoch. told: what makes this run this one. names: of features."""

    student: nn.Module
    options: Options
    hooks: Hooks
    count: int
    told: Mapping[str, str]
    names: tuple[str, ...]
    interrupted: Callable[[], bool]

    @property
    def total(self) -> int:
        """Steps of the whole training."""
        return self.options.epochs * self.count


class _Student(nn.Module):
    """The module, returning features beside its outputs from one forward, which DistributedDataParallel can watch."""

    def __init__(self, module: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.module, self.names = module, names

    def forward(self, *inputs: Tensor) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
        found: tuple[tuple[Tensor, ...], dict[str, Tensor]] = self.module.features(inputs, self.names)
        return found


def train(prepared: nn.Module, data: Iterable[object], options: Options, hooks: Hooks) -> Finetuned:
    """Run all epochs that a checkpoint does not hold yet; see `finetune`."""
    module = quantized_module(prepared)
    names = tuple(module.feature_names) if options.distillation.features else ()
    if options.distillation.features and not names:
        raise ModelError("distillation.features: found no block in this network whose end could be compared, expected a weight of 0")
    device = torch.device(device_of(module))
    with randomness.kept(device, generators(data)), randomness.computing(options.kernels), _training(module), _interruptions() as stop:
        count = counted(data)
        told = {
            **options.told,
            "batches in an epoch": str(count),
            "processes": str(processes.count()),
            "network": checkpoints.network_fingerprint(module),
        }
        student = processes.parallel(_Student(module, names))
        state = State(module, learner(module, options), torch.amp.GradScaler(device.type, enabled=options.precision == "float16"), device)
        plant = Plant(student, options, hooks, count, told, names, stop)
        try:
            resumed_at = _run(state, plant, data)
        except RuntimeError as error:
            _explain(error)
    return Finetuned(
        epochs=tuple(Epoch(**epoch) for epoch in state.history),
        steps=plant.total,
        resumed_at=resumed_at,
        measures=() if state.yardstick is None else state.yardstick.measures,
        notes=(*doubts(data), *_farther(state)),
    )


def _farther(state: State) -> Iterator[Note]:
    """Say where training has led away from the float network."""
    ended = state.history[-1]["outputs"] if state.history else 0.0
    if state.began is not None and ended > FARTHER * state.began:
        yield Note(
            STAGE,
            f"the outputs ended farther from the float network's than they began: a distance of {ended:.3g}, {state.began:.3g} in the "
            "first batch; lower learning_rate and scale_learning_rate, train for longer, or keep the plan that it began with",
            kind="warning",
        )


def _run(state: State, plant: Plant, data: Iterable[object]) -> int:
    """Train from where a checkpoint stands, or the beginning, to the end; return how many steps were done already."""
    path, random = plant.hooks.checkpoint, None
    if path is not None and (content := checkpoints.read(path, plant.told)) is not None:
        checkpoints.load(state, content)
        random = content["random"][processes.rank()]
    elif path is not None:  # tells at once where it cannot be written, and keeps what training began from
        checkpoints.write(path, state, plant.told)
    state.learner.forget_gradients()
    resumed_at = _done(state, plant)
    _report(plant, resumed_at)
    while state.epoch < plant.options.epochs:
        resume = partial(randomness.restore, random, state.device) if random is not None and state.step else _nothing
        random = None
        _epoch(state, plant, epoch_batches(data, seed=plant.options.seed, epoch=state.epoch, done=state.step, resume=resume))
        _close_epoch(state, plant)
    return resumed_at


def _epoch(state: State, plant: Plant, batches: Iterable[object]) -> None:
    """Do the rest of an epoch's steps."""
    for batch in islice(batches, plant.count - state.step):
        where = f"epoch {state.epoch + 1}, step {state.step + 1} of {plant.count}"
        figures = _step(state, plant, batch, where=where)
        state.sums = [a + b for a, b in zip(state.sums or [0.0] * LOSSES, figures[:LOSSES], strict=True)]
        state.step += 1
        done, stopped = _done(state, plant), figures[LOSSES] > 0
        _report(plant, done)
        if plant.hooks.checkpoint is not None and (stopped or done % plant.hooks.checkpoint_steps == 0):
            checkpoints.write(plant.hooks.checkpoint, state, plant.told)
        if stopped:
            raise KeyboardInterrupt


def _step(state: State, plant: Plant, batch: object, *, where: str) -> list[float]:
    """Do one step; return its losses, and above 0 behind them where a process is to stop."""
    learner, options = state.learner, plant.options
    losses = _losses(state, plant, *_taken(state, plant, batch, where=where))
    if not losses[0].requires_grad:
        raise ModelError(f"{where}: found a loss that no output has a part in, expected outputs of floats, or a loss of your own")
    state.scaler.scale(losses[0]).backward()
    asked = torch.full((), float(plant.interrupted()), device=state.device, dtype=torch.float64)
    told = processes.mean(torch.stack([*(loss.detach().double() for loss in losses), asked]))
    learner.take_gradients()
    state.scaler.unscale_(learner.optimizer)
    norm = learner.norm()
    figures: list[float]
    *figures, length = torch.cat([told, norm.double().reshape(1)]).tolist()
    state.began = figures[OUTPUTS] if state.began is None else state.began
    if not math.isfinite(figures[0]) or not (math.isfinite(length) or state.scaler.is_enabled()):
        _diverged(state, plant, figures[0], where=where)
    if options.clip is not None:
        learner.clip(norm, options.clip)
    learner.set_share(cosine(_done(state, plant), plant.total, warmup=options.warmup))
    state.scaler.step(learner.optimizer)
    state.scaler.update()
    learner.write_back()
    learner.forget_gradients()
    return figures


def _taken(state: State, plant: Plant, batch: object, *, where: str) -> tuple[tuple[Tensor, ...], Any]:
    """Return a batch's inputs and target, on the device."""
    inputs, target = split(moved(batch, state.device), state.module.teacher.inputs, where=where)
    _check_inputs(inputs, state.module.origin.inputs, where=where)
    if target is None and plant.options.loss != "distillation":
        raise DataError(f"data, {where}: found no target beside the inputs, which the loss needs; give (inputs, target), or leave it out")
    return inputs, target


def _check_inputs(inputs: Sequence[Tensor], infos: Sequence[InputInfo], *, where: str) -> None:
    for tensor, info in zip(inputs, infos, strict=True):
        shape, dtype = tuple(tensor.shape), str(tensor.dtype).removeprefix("torch.")
        if not info.takes(shape) or dtype != info.dtype.name:
            wanted = ", ".join("any" if size is None else str(size) for size in info.shape)
            raise DataError(
                f"data, {where}: input {info.name!r}: found {dtype} of shape {shape}, expected {info.dtype.name} of shape ({wanted}); "
                "the data gives a batch at a time: put single samples into a DataLoader, and convert the type there"
            )


def _losses(state: State, plant: Plant, inputs: tuple[Tensor, ...], target: Any) -> list[Tensor]:
    """Return the whole loss, and its parts: the task's, the distance of the outputs, and that of the features."""
    options, module = plant.options, state.module
    weights, zero = options.distillation, torch.zeros((), device=state.device)
    dtype = getattr(torch, options.precision)
    with torch.autocast(state.device.type, dtype=dtype, enabled=options.precision != "float32"):
        with torch.no_grad():
            float_outputs, float_features = module.teacher.features(inputs, plant.names)
        outputs, features = plant.student(*inputs)
        task = zero if isinstance(options.loss, str) else _scalar(options.loss(module.call.outputs(outputs), target))
    if state.yardstick is None:
        state.yardstick = yardstick(float_outputs, float_features, weights)
    # With a weight of 0 too: DistributedDataParallel waits for a gradient of every parameter.
    far = output_distance(outputs, float_outputs, state.yardstick, temperature=weights.temperature)
    inside = feature_distance(features, float_features, state.yardstick) if plant.names else zero
    return [task + weights.outputs * far + weights.features * inside, task, far, inside]


def _scalar(loss: Any) -> Tensor:
    if not isinstance(loss, torch.Tensor) or loss.dim():
        found = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, torch.Tensor) else type(loss).__name__
        raise RecipeError(f"loss: found {found}, expected a function that returns a scalar tensor, such as a mean over the batch")
    return loss


def _close_epoch(state: State, plant: Plant) -> None:
    """Take the means over the epoch, evaluate, and write a checkpoint."""
    loss, task, outputs, features = (total / max(1, state.step) for total in state.sums)
    own = None if plant.options.loss == "distillation" else task
    found = _evaluated(state.module, plant.hooks.evaluate)
    state.history.append({"loss": loss, "task": own, "outputs": outputs, "features": features, "evaluation": found})
    state.epoch, state.step, state.sums = state.epoch + 1, 0, []
    if plant.hooks.checkpoint is not None:
        checkpoints.write(plant.hooks.checkpoint, state, plant.told)
    if any(processes.gathered(plant.interrupted())):
        raise KeyboardInterrupt


def _evaluated(module: nn.Module, evaluate: Callable[[nn.Module], Evaluation] | None) -> Evaluation | None:
    if evaluate is None:
        return None
    with evaluating(module), torch.no_grad():
        found = evaluate(module)
    if isinstance(found, Mapping):
        return processes.from_first({str(name): float(value) for name, value in found.items()})
    return processes.from_first(float(found))


def _done(state: State, plant: Plant) -> int:
    return state.epoch * plant.count + state.step


def _report(plant: Plant, done: int) -> None:
    if processes.rank() == 0:
        plant.hooks.progress(STAGE, done, plant.total)


def _diverged(state: State, plant: Plant, loss: float, *, where: str) -> NoReturn:
    what = f"a loss of {loss}" if not math.isfinite(loss) else "gradients that are not finite"
    path = plant.hooks.checkpoint
    stands = "" if path is None else f", and {path} what it was when that was written"
    raise ModelError(
        f"fine-tuning, {where}: found {what}, expected finite numbers; the module is as it was before this step{stands}. "
        "Lower learning_rate and scale_learning_rate, set clip=1.0, take precision bfloat16 or float32, and look for NaN in the data"
    )


def _explain(error: RuntimeError) -> NoReturn:
    """Raise what PyTorch says of an operator that has no deterministic kernel as a choice for the user, and all else as it is."""
    text = str(error)
    if "deterministic" not in text:
        raise error
    raise RecipeError(f'kernels: found "deterministic", but {text.partition(".")[0]}; take kernels="fastest"') from error


@contextmanager
def _training(module: nn.Module) -> Iterator[None]:
    """Put the module into training mode; each of its parts has the mode that it had when this ends."""
    modes = [(part, part.training) for part in module.modules()]
    module.train()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


@contextmanager
def _interruptions() -> Iterator[Callable[[], bool]]:
    """Tell when Ctrl-C was pressed, in place of stopping amidst a step; the second time stops at once.

    Python hands signals to its main thread alone, and a program may have a handler of its own, which stays.
    """
    if threading.current_thread() is not threading.main_thread() or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    pressed: list[int] = []

    def press(number: int, _: object) -> None:
        if pressed:
            raise KeyboardInterrupt
        pressed.append(number)

    signal.signal(signal.SIGINT, press)
    try:
        yield lambda: bool(pressed)
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _nothing() -> None:
    """Do nothing."""
