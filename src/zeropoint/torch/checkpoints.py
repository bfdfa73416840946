"""Where a training stands, written to a file so that it can go on from there to the same bits."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zeropoint.errors import OutputError, RecipeError
from zeropoint.graph.store import write_bytes
from zeropoint.torch import processes
from zeropoint.torch.distillation import Yardstick
from zeropoint.torch.learning import Learner
from zeropoint.torch.randomness import random_state

FORMAT = 1
Content = dict[str, Any]


@dataclass(slots=True, eq=False)
class State:
    """All that a training changes.

    began: the distance of the outputs from the float network's in the first batch. sums: of the figures of the epoch so far. history: of
    the epochs before.
    """

    module: nn.Module
    learner: Learner
    scaler: Any
    device: torch.device
    yardstick: Yardstick | None = None
    began: float | None = None
    epoch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    history: list[dict[str, Any]] = field(default_factory=list)


def network_fingerprint(module: nn.Module) -> str:
    """Return a hash of the float network's weights and of how it is quantized, neither of which training changes."""
    steps = [(step.name, step.inputs, step.outputs) for step in module.network.steps]
    digest = hashlib.sha256(f"{module!r} {module.feature_names} {steps}".encode())
    for name, tensor in sorted(module.teacher.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def write(path: Path, state: State, told: Mapping[str, str]) -> None:
    """Write where the training stands, whole or not at all; all processes take part, and the first one writes.

    Raises:
        OutputError: the folder is missing or not writable, or the disk is full.
    """
    random = processes.gathered(random_state(state.device))
    problem = None
    if processes.rank() == 0:
        file = io.BytesIO()
        torch.save(_content(state, told, random), file)
        try:
            write_bytes(path, file.getvalue())
        except OutputError as error:
            problem = str(error)
    if problem := processes.from_first(problem):
        raise OutputError(problem)


def read(path: Path, told: Mapping[str, str]) -> Content | None:
    """Return what stands in a checkpoint of a run with the same options, network and data; None where there is no file.

    Raises:
        RecipeError: the file is no checkpoint, or one of another run.
    """
    content, problem = None, None
    if processes.rank() == 0 and path.exists():
        try:
            content = _checked(path, told)
        except RecipeError as error:
            problem = str(error)
    content, problem = processes.from_first((content, problem))
    if problem:
        raise RecipeError(problem)
    return content


@torch.no_grad()  # type: ignore[untyped-decorator]
def load(state: State, content: Content) -> None:
    """Bring the training to where `content` says; the random states are left to the caller."""
    state.module.load_state_dict(content["model"])
    learner = state.learner
    for kind in ("masters", "units"):
        for tensor, stored in zip(getattr(learner, kind), content[kind], strict=True):
            tensor.copy_(stored)
    learner.write_back()
    learner.optimizer.load_state_dict(content["optimizer"])
    state.scaler.load_state_dict(content["scaler"])
    stored = content["yardstick"]
    state.yardstick = None if stored is None else Yardstick(**stored)
    state.began, state.epoch, state.step = content["began"], content["epoch"], content["step"]
    state.sums, state.history = list(content["sums"]), list(content["history"])


def _content(state: State, told: Mapping[str, str], random: list[dict[str, Any]]) -> Content:
    learner = state.learner
    return {
        "format": FORMAT,
        "told": dict(told),
        "model": state.module.state_dict(),
        "masters": [master.detach() for master in learner.masters],
        "units": list(learner.units),
        "optimizer": learner.optimizer.state_dict(),
        "scaler": state.scaler.state_dict(),
        "random": random,
        "yardstick": None if state.yardstick is None else state.yardstick.stored,
        "began": state.began,
        "epoch": state.epoch,
        "step": state.step,
        "sums": state.sums,
        "history": state.history,
    }


def _checked(path: Path, told: Mapping[str, str]) -> Content:
    try:
        content: Content = torch.load(path, map_location="cpu", weights_only=True)
        theirs = content["told"] if content["format"] == FORMAT else None
    except Exception as error:  # whatever a file of another kind makes PyTorch raise
        reason = str(error).partition("\n")[0][:200]
        raise RecipeError(
            f"checkpoint: {path} cannot be read as one ({type(error).__name__}: {reason}); give another path, or delete the file"
        ) from None
    if theirs is None:
        raise RecipeError(f"checkpoint: {path} is of format {content['format']}, expected {FORMAT}; give another path, or delete the file")
    differing = [name for name in {**theirs, **told} if theirs.get(name) != told.get(name)]
    if differing:
        texts = "; ".join(f"{name}: found {theirs.get(name, 'nothing')}, expected {told.get(name, 'nothing')}" for name in differing)
        raise RecipeError(
            f"checkpoint: {path} is of another run ({texts}); call with what it was begun with, give another path, or delete the file"
        )
    return content
