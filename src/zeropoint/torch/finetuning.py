"""Train a prepared module on with its rounding in it: the loop, where a user has none of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from zeropoint.errors import RecipeError
from zeropoint.progress import Progress, silent
from zeropoint.torch.training_options import Distillation, Evaluation, Finetuned, Kernels, Options, Precision, TaskLoss, check_number

if TYPE_CHECKING:
    import torch


def finetune(  # noqa: PLR0913  (a facade: an option each)
    prepared: torch.nn.Module,
    data: Iterable[object],
    *,
    loss: Literal["distillation"] | TaskLoss = "distillation",
    distillation: Distillation = Distillation(),  # noqa: B008  (frozen)
    epochs: int = 10,
    learning_rate: float = 1e-3,
    scale_learning_rate: float = 1e-4,
    weight_decay: float = 0.01,
    warmup: float = 0.05,
    clip: float | None = None,
    precision: Precision = "float32",
    kernels: Kernels = "deterministic",
    device: str | torch.device | None = None,
    seed: int = 0,
    checkpoint: str | Path | None = None,
    checkpoint_steps: int = 500,
    evaluate: Callable[[torch.nn.Module], Evaluation] | None = None,
    progress: Progress = silent,
) -> Finetuned:
    """Train the weights and scales of a prepared module towards the float network that it comes from.

    prepared: what `prepare` returns, or that in a DistributedDataParallel; it is trained in place. data: gone through once an epoch: a
    DataLoader, or what else gives the epoch's batches each time: a tensor; a tuple that begins with the network's inputs; or a dict
    that has them by name. What is left is the target. Batches go to the module's device.

    loss: "distillation" trains by `distillation` alone, and needs no target; a function of outputs and target, which returns a scalar,
    is added to it. distillation: how the distance from the float network is measured, and its weights. epochs: as many as a tenth of
    the original training has. learning_rate: at its largest; AdamW takes it in shares of each weight's own size, about the root mean
    square of the weight's channel, so that 0.001 fits most networks. scale_learning_rate: the same for scales, in shares of what each
    begins with, and for zero points in 8 codes; where codes were chosen with care, as those of 4 bits are, larger steps of the scales
    undo that. It rises over the first `warmup` of all steps (a share), and falls to 0 as half a cosine. weight_decay: of weights; there
    is none of biases, norms, scales and zero points. clip: the largest norm of all gradients together; None for none. precision: of
    PyTorch's autocast; "float16" scales the loss.

    kernels: "deterministic" gives the same weights, bit for bit, on the same machine with the same seed, "fastest" nearly so. device:
    where the module is moved first, and stays; None for where it is. seed: of shuffling, augmentation in the loader and dropout.
    checkpoint: a file that tells all that the training needs to go on from, written at the end of each epoch, every `checkpoint_steps`
    steps, and when Ctrl-C is pressed. Where it is there, training goes on from it, to the same weights as if it had never stopped.
    evaluate: called with the module at the end of each epoch, in evaluation mode and without gradients; returns a figure, or several by
    name. progress: told of each step.

    Where torch.distributed is initialized, each process trains on its own batches with the mean of all gradients; only the first one
    writes and reports, and all end with the same weights.

    The defaults follow what is published: 10 % of the training's epochs at a small rate under a cosine (Wu et al., "Integer quantization
    for deep learning inference", 2020), and learned scales (Esser et al., 2020). AdamW in place of momentum makes up for normalization
    being folded into the weights, see `zeropoint.torch.learning`.

    Raises:
        RecipeError: an option has an impossible value, the checkpoint is one of another run, or an operator is not deterministic.
        DataError: there is no batch, or one lacks an input or target.
        ModelError: it is no prepared module, nothing in it learns, or the loss or a gradient is not finite; the module is then as before
            that step.
        OutputError: the checkpoint cannot be written.

    Example:
        >>> import torch
        >>> from zeropoint.demo import load_digits
        >>> from zeropoint.torch.preparing import prepare
        >>> digits = load_digits()
        >>> prepared = prepare(digits.model, digits.calibration, target="tensorrt")
        >>> batches = [torch.from_numpy(digits.calibration[:32])] * 4
        >>> done = finetune(prepared, batches, epochs=2)
        >>> done.epochs[1].loss < done.epochs[0].loss
        True
    """
    from zeropoint.torch.capture import check_libraries

    check_libraries()
    check_number("checkpoint_steps", checkpoint_steps, "a whole number of 1 or more", least=1)
    options = Options(
        distillation=distillation,
        loss=loss,
        epochs=epochs,
        learning_rate=learning_rate,
        scale_learning_rate=scale_learning_rate,
        weight_decay=weight_decay,
        warmup=warmup,
        clip=clip,
        precision=precision,
        kernels=kernels,
        seed=seed,
    )
    from zeropoint.torch.training import Hooks, train

    if device is not None:
        _move(prepared, device)
    path = None if checkpoint is None else Path(checkpoint)
    return train(prepared, data, options, Hooks(checkpoint=path, checkpoint_steps=checkpoint_steps, evaluate=evaluate, progress=progress))


def _move(module: torch.nn.Module, device: str | torch.device) -> None:
    try:
        module.to(device)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without the device
        reason = str(error).partition("\n")[0]
        raise RecipeError(f"device: found {device!r}, which PyTorch cannot use here ({reason}); expected cpu or cuda") from None
