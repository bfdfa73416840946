"""Match items of data to the parameters of a module's forward: what is fed, under which names, and what are labels."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from zeropoint.data.callables import Indexed, ask, guarded
from zeropoint.data.fit import as_array
from zeropoint.data.inputs import Array
from zeropoint.data.labelled import Labelled, ReadyIndex, ReadyItems
from zeropoint.errors import DataError

if TYPE_CHECKING:
    import torch

LABELS = ("labels", "label", "targets", "target")  # keys that are no inputs where forward can do without them


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """What a module's forward takes: `positional` and `named` parameters, which of all are `required`, and its * and ** ("": none)."""

    owner: str
    positional: tuple[str, ...]
    named: tuple[str, ...]
    required: tuple[str, ...]
    more: str
    keywords: str


@dataclass(frozen=True, slots=True, eq=False)
class Matched:
    """A call of forward, and the parts of an item that it does not take. left: these in words, as far as they are no labels."""

    args: tuple[object, ...] = ()
    kwargs: Mapping[str, object] = field(default_factory=dict)
    rest: tuple[object, ...] = ()
    left: str = ""

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """The shape of each array, tensor and number in the call."""
        return tuple(np.shape(part) for value in (*self.args, *self.kwargs.values()) for _, part in _leaves("", value))  # type: ignore[call-overload]


def forward_of(module: torch.nn.Module) -> Forward:
    """Read the parameters of `module.forward`."""
    kinds = inspect.Parameter
    found = inspect.signature(module.forward).parameters.values()
    starred = {p.kind: p.name for p in found if p.kind in (kinds.VAR_POSITIONAL, kinds.VAR_KEYWORD)}
    plain = [p for p in found if p.kind not in starred]
    return Forward(
        owner=type(module).__name__,
        positional=tuple(p.name for p in plain if p.kind is not kinds.KEYWORD_ONLY),
        named=tuple(p.name for p in plain if p.kind is not kinds.POSITIONAL_ONLY),
        required=tuple(p.name for p in plain if p.default is kinds.empty),
        more=starred.get(kinds.VAR_POSITIONAL, ""),
        keywords=starred.get(kinds.VAR_KEYWORD, ""),
    )


def forward_of_network(inputs: Sequence[str]) -> Forward:
    """Return the same for a network of ONNX, which takes each of its inputs."""
    names = tuple(inputs)
    return Forward(owner="the network", positional=names, named=names, required=names, more="", keywords="")


def match(item: object, forward: Forward, *, where: str) -> Matched:
    """Say how forward is called with an item: a dict by name, a tuple or list by position, anything else as its first parameter.

    By position only parameters without a default are filled, at least one: what is left behind them are labels or targets. The inputs
    may also stand together, as a dict or a tuple, in front of a label.

    Raises:
        DataError: an input that forward needs is not there.
    """
    if isinstance(item, Mapping):
        return _by_name(item, forward, where=where)
    parts = tuple(item) if isinstance(item, list | tuple) and not _is_numbers(item) else (item,)
    needed = max(1, sum(name in forward.required for name in forward.positional))
    first = parts[0] if parts else None
    if isinstance(first, Mapping) and any(name in first for name in forward.named):
        found = _by_name(first, forward, where=where)
        return Matched(found.args, found.kwargs, parts[1:] or found.rest, found.left)
    if (
        needed > 1
        and isinstance(first, list | tuple)
        and not _is_numbers(first)
        and (len(parts) < needed or labels_of(parts[1:]) is not None)
    ):
        parts = (*first[:needed], *parts[1:]) if len(first) >= needed else tuple(first)
    missing = [name for name in forward.required if name not in forward.positional[: len(parts)]]
    if missing or not parts:
        wanted = ", ".join(map(repr, forward.required or forward.positional[:1]))
        raise DataError(
            f"{where}: found {len(parts)} parts for {forward.owner}.forward, expected those for {wanted}; give tuples, or dicts by name"
        )
    rest = parts[needed:]
    left = f"all but the first {needed} of its {len(parts)} parts" if len(rest) > 1 or (rest and labels_of(rest) is None) else ""
    return Matched(parts[:needed], {}, rest, left)


def _by_name(item: Mapping[Any, object], forward: Forward, *, where: str) -> Matched:
    optional_labels = [key for key in LABELS if key in item and key not in forward.required]
    rest = tuple(item[key] for key in optional_labels)
    known = [str(key) for key in item if key not in optional_labels and (key in forward.named or forward.keywords)]
    missing = [name for name in forward.required if name not in known]
    if not known and len(forward.required) <= 1 and forward.positional:  # forward takes the dict itself
        return Matched(({key: value for key, value in item.items() if key not in optional_labels},), {}, rest)
    if missing:
        found = ", ".join(repr(str(key)) for key in item)
        raise DataError(f"{where}: found {found}, expected {', '.join(map(repr, missing))} too, which {forward.owner}.forward takes")
    left = [repr(str(key)) for key in item if str(key) not in known and key not in optional_labels]
    return Matched((), {key: item[key] for key in known}, rest, ", ".join(left))


def labels_of(rest: Sequence[object]) -> npt.NDArray[np.int64] | None:
    """Return the first of the parts behind the inputs as class indices, one for each sample; None where it is no such thing."""
    if not rest or isinstance(rest[0], str | bytes | Mapping) or rest[0] is None:
        return None
    try:
        found = as_array(rest[0], "label")
    except DataError:
        return None
    return found.reshape(-1).astype(np.int64) if found.ndim <= 1 and found.dtype.kind in "biu" else None


def is_one_sample(rest: Sequence[object]) -> bool:
    """Say whether what stands behind the inputs is one label, as an item of a data set has."""
    return bool(rest) and labels_of(rest) is not None and as_array(rest[0], "label").ndim == 0


def parts_by_name(matched: Matched, forward: Forward) -> Iterator[tuple[str, object]]:
    """Yield each array or tensor of a call under the name of the network's input that it is for."""
    for number, value in enumerate(matched.args):
        beyond = number - len(forward.positional)
        name = forward.positional[number] if beyond < 0 else f"{forward.more}_{beyond}"
        yield from _leaves(name, value)
    for key, value in matched.kwargs.items():
        yield from _leaves(key if key in forward.named else f"{forward.keywords}_{key}", value)


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _leaves(f"{name}_{key}", inner)
    elif isinstance(value, list | tuple) and not _is_numbers(value):
        for number, inner in enumerate(value):
            yield from _leaves(f"{name}_{number}", inner)
    elif is_leaf(value):
        yield name, value


def is_leaf(value: object) -> bool:
    """Say whether a value becomes one tensor: an array, a tensor, a number, or lists of numbers."""
    return hasattr(value, "__array__") or isinstance(value, bool | int | float) or _is_numbers(value)


def _is_numbers(value: object) -> bool:
    """Say whether a value is a list of Python's numbers, or of such lists."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(v, bool | int | float) or _is_numbers(v) for v in value)


def ready(item: object, forward: Forward, where: str) -> Labelled:
    """Return what a network made of the module is fed for an item, and its labels."""
    matched = match(item, forward, where=where)
    arrays: dict[str, Array] = {name: as_array(part, f"{where}: input {name!r}") for name, part in parts_by_name(matched, forward)}
    return Labelled(arrays, labels_of(matched.rest))


def _ready_at(index: int, items: Indexed, forward: Forward) -> Labelled:
    return ready(items[index], forward, f"item {index}")


def ready_items(data: Any, forward: Forward, *, name: str) -> tuple[object, object]:
    """Return the first item as it is, and all of them made ready, for data whose items are read one by one. name: what to call the data.

    The first item is read here, and once: who reads the items first goes on from there.

    Raises:
        DataError: there is no item, or reading the first fails.
    """
    if isinstance(data, list | tuple):
        made: object = [ready(item, forward, f"{name}, item {index}") for index, item in enumerate(data)]
        return (data[0] if data else _no_items(name)), made
    if isinstance(data, Indexed) and not _is_iterable_only(data):
        if len(data) == 0:
            _no_items(name)
        return ask(data, 0), ReadyIndex(f"{name}", len(data), partial(_ready_at, items=data, forward=forward))
    reading = guarded(data, name)
    first = next(reading, None)
    if first is None:
        _no_items(name)
    again = [chain((first,), reading)]

    def each() -> Iterator[Labelled]:
        items = again.pop() if again else guarded(data, name)
        return (ready(item, forward, f"{name}, item {index}") for index, item in enumerate(items))

    return first, ReadyItems(name, each)


def _is_iterable_only(data: object) -> bool:
    """Say whether a data set of PyTorch's has an index by inheritance only."""
    import torch

    return isinstance(data, torch.utils.data.IterableDataset)


def _no_items(name: str) -> object:
    raise DataError(f"{name}: found no items, expected at least one sample; a generator that was read before gives nothing again")


def mapped_leaves(value: Any, change: Callable[[object], object]) -> Any:
    """Return the arguments of a call with each array, tensor and number in them changed, in the same lists, tuples and dicts."""
    if isinstance(value, Mapping):
        return {key: mapped_leaves(inner, change) for key, inner in value.items()}
    if isinstance(value, list | tuple) and not _is_numbers(value):
        inside = [mapped_leaves(inner, change) for inner in value]
        return inside if isinstance(value, list) else tuple(inside)
    return change(value) if is_leaf(value) else value
