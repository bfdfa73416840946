"""What fine-tuning is told, and what it gives back."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from zeropoint.errors import RecipeError
from zeropoint.notes import Note

Precision = Literal["float32", "bfloat16", "float16"]
Kernels = Literal["deterministic", "fastest"]
Measure = Literal["auto", "logits", "probabilities", "values"]
Evaluation = float | Mapping[str, float]
TaskLoss = Callable[[Any, Any], Any]

CHOICES = {
    "precision": ("float32", "bfloat16", "float16"),
    "kernels": ("deterministic", "fastest"),
    "measure": ("auto", "logits", "probabilities", "values"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Distillation:
    """How far the quantized module is from the float one, as a loss; it needs no labels.

    outputs: weight of the outputs' distance. features: weight of the distance at the ends of blocks: the mean squared error over the
    float tensor's mean square, the mean over all blocks. measure: how outputs are compared. "logits": the Kullback-Leibler divergence
    between the softmax of both, times the square of the temperature (Hinton et al., 2015), over axis 1 of outputs with four axes or more,
    the last axis of others. "probabilities": the same of outputs that are a softmax already. "values": the mean squared error, over the
    mean square of the float output. "auto": "probabilities" or "logits" for outputs of shape (N, C), by whether the first batch sums to
    1 in each row; "values" for all others. temperature: softens both softmaxes; 1, with an equal weight for the task's loss, is what
    LSQ takes (Esser et al., 2020).
    """

    outputs: float = 1.0
    features: float = 0.0
    measure: Measure = "auto"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        for name in ("outputs", "features"):
            check_number(f"distillation.{name}", getattr(self, name), "a weight of 0 or more", least=0.0)
        check_number("distillation.temperature", self.temperature, "a number above 0, such as 1", above=0.0)
        _check_choice("measure", self.measure, where="distillation.measure")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """The options of fine-tuning that decide what weights come out; see `finetune`."""

    distillation: Distillation
    loss: Literal["distillation"] | TaskLoss
    epochs: int
    learning_rate: float
    scale_learning_rate: float
    weight_decay: float
    warmup: float
    clip: float | None
    precision: Precision
    kernels: Kernels
    seed: int

    def __post_init__(self) -> None:
        check_number("epochs", self.epochs, "a whole number of 1 or more", least=1)
        for name in ("learning_rate", "scale_learning_rate"):
            check_number(name, getattr(self, name), "a share of 0 or more, such as 0.001", least=0.0)
        check_number("weight_decay", self.weight_decay, "0 or more, such as 0.01", least=0.0)
        check_number("warmup", self.warmup, "a share of all steps, from 0 to 1", least=0.0, most=1.0)
        check_number("seed", self.seed, "a whole number of 0 or more", least=0)
        if self.clip is not None:
            check_number("clip", self.clip, "a norm above 0, such as 1, or None", above=0.0)
        for name in ("precision", "kernels"):
            _check_choice(name, getattr(self, name), where=name)
        if self.loss != "distillation" and not callable(self.loss):
            raise RecipeError(f'loss: found {self.loss!r}, expected "distillation" or a function of outputs and target')
        if self.loss == "distillation" and not (self.distillation.outputs or self.distillation.features):
            raise RecipeError("distillation: found weights of 0 and no other loss, expected one above 0; or give the task's loss")

    @property
    def told(self) -> dict[str, str]:
        """Each option as text: two runs in which these are the same do the same."""
        of = self.distillation
        names = [name for name in self.__slots__ if name not in ("distillation", "loss")]
        told = {name: repr(getattr(self, name)) for name in names}
        told |= {f"distillation.{name}": repr(getattr(of, name)) for name in of.__slots__}
        loss = self.loss if isinstance(self.loss, str) else getattr(self.loss, "__qualname__", type(self.loss).__qualname__)
        return told | {"loss": loss}


@dataclass(frozen=True, slots=True, kw_only=True)
class Epoch:
    """Means over the steps of an epoch: the whole loss, and its parts before they are weighted; and what `evaluate` said at its end.

    task, evaluation: None where there is no such function.
    """

    loss: float
    task: float | None
    outputs: float
    features: float
    evaluation: Evaluation | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finetuned:
    """What fine-tuning did; the module that was given holds the weights.

    steps: done in all. resumed_at: the steps that a checkpoint already held. measures: how each output was compared.
    """

    epochs: tuple[Epoch, ...]
    steps: int
    resumed_at: int
    measures: tuple[str, ...]
    notes: tuple[Note, ...]


def check_number(
    name: str, found: float, expected: str, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> None:
    """Refuse a value that is no number, or not within the limits; `expected` says them, "whole" among them.

    Raises:
        RecipeError: it is so.
    """
    whole = "whole" in expected
    if not isinstance(found, int if whole else (int, float)) or not (math.isfinite(found) and least <= found <= most and found > above):
        raise RecipeError(f"{name}: found {found!r}, expected {expected}")


def _check_choice(name: str, found: object, *, where: str) -> None:
    if found not in CHOICES[name]:
        raise RecipeError(f"{where}: found {found!r}, expected one of {', '.join(CHOICES[name])}")
