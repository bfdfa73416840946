"""The batches of an epoch: the same ones each time that it is gone through, whatever was drawn before."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import torch

from zeropoint.errors import DataError
from zeropoint.notes import Note
from zeropoint.torch import processes
from zeropoint.torch.arguments import mapped
from zeropoint.torch.randomness import seeded, sow

Tensor = Any  # of PyTorch, which has no types here


def counted(data: Iterable[object]) -> int:
    """Return the number of batches in an epoch, which is found by going through them where `data` does not tell.

    Raises:
        DataError: there is none, `data` can be gone through only once, or the processes have different numbers.
    """
    if isinstance(data, Iterator):
        raise DataError(
            f"data: found {type(data).__name__}, which can be gone through once; expected batches for each epoch: "
            "a DataLoader, a list, or an object whose __iter__ begins anew"
        )
    try:
        count = len(data)  # type: ignore[arg-type]
    except TypeError:
        count = sum(1 for _ in data)
    counts = processes.gathered(count)
    if not min(counts):
        raise DataError("data: found no batch, expected one at least; a loader with drop_last needs as many samples as a batch has")
    if len(set(counts)) > 1:
        raise DataError(f"data: found {counts} batches in the processes, expected the same number in each; take a DistributedSampler")
    return count


def generators(data: object) -> list[torch.Generator]:
    """Return the random generators that a loader and its samplers were given, each once."""
    found = [getattr(part, "generator", None) for part in _parts(data)]
    return list({id(one): one for one in found if isinstance(one, torch.Generator)}.values())


def doubts(data: object) -> tuple[Note, ...]:
    """Return what keeps a resumed run from drawing the same batches."""
    if getattr(data, "persistent_workers", False):
        reason = "the loader's workers live on from epoch to epoch (persistent_workers), and so do their random states: "
        return (Note("data", f"{reason}a resumed run may draw other augmentations"),)
    return ()


def epoch_batches(
    data: Iterable[object], *, seed: int, epoch: int, done: int = 0, resume: Callable[[], object] = lambda: None
) -> Iterator[object]:
    """Seed all that draws, by seed, epoch and process, and yield the epoch's batches after the first `done`.

    Those are drawn once more and dropped; `resume` is called behind them, to bring random states to where they stood then.
    """
    drawn = seeded(seed, epoch, processes.rank())
    sow(drawn)
    for generator in generators(data):
        generator.manual_seed(drawn)
    for part in _parts(data):
        if callable(getattr(part, "set_epoch", None)):
            part.set_epoch(epoch)
    batches = iter(data)
    for _ in range(done):
        next(batches, None)
    resume()
    yield from batches


def split(batch: object, names: Sequence[str], *, where: str) -> tuple[tuple[Tensor, ...], Any]:
    """Return a batch's tensors for the inputs called `names`, and what else is in it: the target, or None.

    Raises:
        DataError: an input is not in it, or is no tensor.
    """
    inputs, rest = _parted(batch, names)
    if len(inputs) != len(names) or not all(isinstance(one, torch.Tensor) for one in inputs):
        found = f"keys {', '.join(map(str, batch))}" if isinstance(batch, Mapping) else _described(batch)
        raise DataError(
            f"data, {where}: found {found}, expected tensors for {', '.join(names)}: a tensor, a tuple that begins with them, "
            "or a dict that has them by name"
        )
    return tuple(inputs), rest


def moved(value: Any, device: torch.device) -> Any:
    """Return a value with the tensors in it on the device."""
    return mapped(value, lambda tensor: tensor.to(device, non_blocking=True))


def _parted(batch: object, names: Sequence[str]) -> tuple[Sequence[object], Any]:
    if isinstance(batch, Mapping):
        others = {key: value for key, value in batch.items() if key not in names}
        return [batch[name] for name in names if name in batch], _target(list(others.values()), others)
    if not isinstance(batch, list | tuple):
        return [batch], None
    if batch and isinstance(batch[0], Mapping | list | tuple):
        inputs, _ = _parted(batch[0], names)
        return inputs, _target(batch[1:], tuple(batch[1:]))
    return batch[: len(names)], _target(batch[len(names) :], tuple(batch[len(names) :]))


def _target(values: Sequence[object], several: object) -> object:
    return several if len(values) > 1 else values[0] if values else None


def _described(value: object) -> str:
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {', '.join(type(one).__name__ for one in value) or 'nothing'}"
    return type(value).__name__


def _parts(data: object) -> list[Any]:
    batching = getattr(data, "batch_sampler", None)
    parts = [data, getattr(data, "sampler", None), batching, getattr(batching, "sampler", None)]
    return list({id(part): part for part in parts if part is not None}.values())
