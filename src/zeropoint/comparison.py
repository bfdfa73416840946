"""How two networks differ: in what they give out, layer by layer, in their operators, sizes and codes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from zeropoint.data import NOT_REAL, Feed, Samples, fed, feed_count, feeds
from zeropoint.data.inputs import batch_axis
from zeropoint.data.labels import Labels
from zeropoint.data.split import spread
from zeropoint.errors import ModelError
from zeropoint.evaluate.codes import CodesDifference, compare_codes
from zeropoint.evaluate.fidelity import Array, OutputFidelity, compare_outputs
from zeropoint.evaluate.layers import LayerComparison, LayerFidelity, compare_layers
from zeropoint.graph.load import Source, given_size, load, source_name
from zeropoint.graph.matching import match_inputs
from zeropoint.graph.model import Model, Value
from zeropoint.graph.store import open_session
from zeropoint.notes import Note, counted
from zeropoint.progress import Progress
from zeropoint.rules.network import Network, read_network
from zeropoint.rules.pairs import codings

ROUNDING_DB = 100.0  # above it floats differ in their last bits alone


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """One of the two networks: its file, bytes with external data, opset (None without ONNX's own operators), operators by type."""

    file: str
    bytes: int
    opset: int | None
    producer: str
    operators: Mapping[str, int]
    quantized: bool


@dataclass(frozen=True, slots=True)
class OperatorDifference:
    """How often one type of operator is in each of the networks."""

    operator: str
    a: int
    b: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How network b differs from network a.

    fidelity: of b's outputs to a's, under a's names, with all optimizations of ONNX Runtime. uncompared: outputs that one network alone
    has, or that are no tensors of numbers. layers: in the order of a, as the nodes say. enters: the first of the `ranked` layers that adds
    more than rounding by itself; None where none is known to. evaluation_data, layer_samples: what outputs were compared on, and on how
    many of these samples layers were.
    """

    a: Side
    b: Side
    fidelity: tuple[OutputFidelity, ...]
    layers: tuple[LayerFidelity, ...]
    enters: LayerFidelity | None
    operators: tuple[OperatorDifference, ...]
    codes: tuple[CodesDifference, ...]
    evaluation_data: str
    layer_samples: int
    notes: tuple[Note, ...]
    uncompared: tuple[str, ...] = ()

    @property
    def worst_db(self) -> float:
        """The least SQNR of an output, -inf also for NaN; infinite where no output was compared."""
        return min((-math.inf if math.isnan(output.sqnr_db) else output.sqnr_db for output in self.fidelity), default=math.inf)

    @property
    def has_too_wide(self) -> bool:
        """Whether a layer's codes reach too far, so that it comes before those that add more error."""
        return any(layer.is_too_wide for layer in self.layers)

    @property
    def ranked(self) -> tuple[LayerFidelity, ...]:
        """The layers: those whose codes reach too far, then by the error that each adds by itself, last where that is not known."""
        return tuple(sorted(self.layers, key=_suspicion))


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """Two networks as they were given, and loaded."""

    sources: tuple[Source, Source]
    models: tuple[Model, Model]


def open_pair(a: Source, b: Source) -> tuple[Pair, tuple[Note, ...]]:
    """Load two networks, and note inputs and outputs of other names, which are matched by their places.

    Raises:
        ModelError: one cannot be read, or they have not inputs or outputs that can be compared.
    """
    pair = Pair((a, b), (load(a), load(b)))
    notes = []
    for kind, found in (("input", _inputs(pair)), ("output", _outputs(pair))):
        notes += [Note(ours, f"this {kind} is called {theirs!r} in the other network") for ours, theirs in found.items() if ours != theirs]
    return pair, tuple(notes)


def compare_networks(
    pair: Pair, samples: Samples, *, labels: Labels | None, layer_samples: int, notes: Sequence[Note], progress: Progress
) -> Comparison:
    """Return how the second network differs from the first on `samples` for the inputs of the first.

    labels: a class for each sample. layer_samples: how many of the samples the layers are compared on.

    Raises:
        ModelError: a network does not load or run.
        DataError: a sample cannot be read or does not fit, or there are not as many labels as samples.
    """
    told = list(notes)
    if NOT_REAL in samples.description:
        told.append(Note("data", f"on {NOT_REAL}: a trial, which says nothing of how the networks do in use", kind="warning"))
    fidelity, uncompared = _compare_outputs(pair, samples, labels, told, progress)
    few = samples.select(spread(len(samples), max(layer_samples, batch_axis(samples.inputs).size or 1)))
    found = compare_layers(*pair.models, few, progress=progress)
    networks = read_network(pair.models[0]), read_network(pair.models[1])
    return Comparison(
        a=_side(pair, networks[0], 0),
        b=_side(pair, networks[1], 1),
        fidelity=fidelity,
        layers=found.layers,
        enters=_enters(found),
        operators=_operator_differences(*networks),
        codes=compare_codes(*networks, found.layers),
        evaluation_data=samples.description,
        layer_samples=len(fed(few)),
        notes=tuple(dict.fromkeys((*told, *found.notes))),
        uncompared=uncompared,
    )


def verdict(found: Comparison) -> str:
    """Return the comparison in one sentence: the bad news if there is any, where the error enters, and what comes out."""
    parts, worst = bad_news(found), found.worst_db
    others = " in the others" if found.uncompared else ""
    if found.enters is not None:
        parts.append(f"the error enters at {_entrance(found.enters)}")
    elif worst < ROUNDING_DB or (found.layers and not found.fidelity):
        parts.append("no layer that was compared adds an error by itself")
    elif found.fidelity:
        parts.append(f"no difference{others}" if worst == math.inf else f"no difference{others} but rounding")
    if math.isfinite(worst):
        which = "the outputs are" if len(found.fidelity) == 1 else "the worst output is"
        parts.append(f"{which} at {decibels_text(worst)}")
    return "; ".join(parts)


def _entrance(layer: LayerFidelity) -> str:
    wide = f", whose codes reach {layer.reach:.1f} times too far" if layer.is_too_wide else ""
    by_itself = f": {decibels_text(layer.own_db)} by itself" if layer.own_db is not None and math.isfinite(layer.own_db) else ""
    return f"{layer.node} ({layer.operator}{wide}){by_itself}"


def bad_news(found: Comparison) -> list[str]:
    """Return what nobody should overlook: a trial only, what was not compared, and outputs that are no numbers any more."""
    parts = [f"ONLY A TRIAL: on {NOT_REAL}"] if NOT_REAL in found.evaluation_data else []
    if not found.fidelity:
        parts.append("NO OUTPUT WAS COMPARED" if found.layers else "NOTHING WAS COMPARED")
    elif found.uncompared:
        count = len(found.uncompared)
        parts.append("1 OUTPUT WAS NOT COMPARED" if count == 1 else f"{count} OUTPUTS WERE NOT COMPARED")
    for output in found.fidelity:
        if output.incomparable:
            parts.append(f"{counted(output.incomparable, 'sample')} of {output.output} CANNOT BE COMPARED")
        elif output.sqnr_db == -math.inf:
            parts.append(f"{output.output} IS NOT ZERO, as it is in the first network")
    return parts


def decibels_text(value: float | None) -> str:
    """Write a signal-to-noise ratio.

    Example:
        >>> decibels_text(6.1), decibels_text(math.inf), decibels_text(None)
        ('6.1 dB', 'exact', '-')
    """
    if value is None:
        return "-"
    return "exact" if value == math.inf else "wrong" if not math.isfinite(value) else f"{value:.1f} dB"


def _inputs(pair: Pair) -> dict[str, str]:
    a, b = ([value for value in model.graph.inputs if value.name not in model.graph.initializers] for model in pair.models)
    names = source_name(pair.sources[0]), source_name(pair.sources[1])
    if len(a) != len(b):
        listed = [", ".join(repr(str(value.name)) for value in values) for values in (a, b)]
        raise ModelError(
            f"{names[1]}: found the inputs {listed[1] or 'none'}, expected as many as {names[0]} has: {listed[0]}; compare networks that "
            "are fed alike"
        )
    found, theirs = match_inputs(*pair.models), {str(value.name): value for value in b}
    for value in a:
        _check_alike(value, theirs[found[str(value.name)]], names)
    return found


def _check_alike(ours: Value, theirs: Value, names: tuple[str, str]) -> None:
    """Refuse inputs of which one cannot be fed what the other is."""
    dtypes = [value.dtype.name.lower() if value.dtype is not None else "" for value in (ours, theirs)]
    both_real = all("float" in dtype or dtype == "double" for dtype in dtypes)
    shapes = [tuple(size if isinstance(size, int) else None for size in value.shape) if value.shape else None for value in (ours, theirs)]
    fits = None in shapes or (
        len(shapes[0] or ()) == len(shapes[1] or ())
        and all(None in (p, q) or p == q for p, q in zip(shapes[0] or (), shapes[1] or (), strict=True))
    )
    if fits and (both_real or dtypes[0] == dtypes[1]):
        return
    raise ModelError(
        f"{names[1]}: input {theirs.name!r}: found {dtypes[1]} {theirs.shape}, expected {dtypes[0]} {ours.shape} as {names[0]} takes it; "
        "compare networks that are fed alike"
    )


def _outputs(pair: Pair) -> dict[str, str]:
    """Return b's name of each output of a: the same, or that of the output in its place."""
    a, b = ([str(value.name) for value in model.graph.outputs] for model in pair.models)
    shared = {name: name for name in a if name in b}
    if len(a) == len(b):
        left = [name for name in a if name not in shared], [name for name in b if name not in shared]
        return shared | dict(zip(*left, strict=True))
    if not shared:
        names = source_name(pair.sources[0]), source_name(pair.sources[1])
        listed = [", ".join(map(repr, names)) for names in (a, b)]
        raise ModelError(
            f"{names[1]}: found the outputs {listed[1]}, expected those of {names[0]}, {listed[0]}, or as many; compare networks that give "
            "out the same"
        )
    return shared


def _compare_outputs(
    pair: Pair, samples: Samples, labels: Labels | None, notes: list[Note], progress: Progress
) -> tuple[tuple[OutputFidelity, ...], tuple[str, ...]]:
    """Return the fidelity of the outputs that can be compared, and the names of those that cannot, which are noted."""
    inputs, outputs = _inputs(pair), _outputs(pair)
    first, second = open_session(pair.models[0]), open_session(pair.models[1])
    types = {str(value.name): value.dtype.numpy() for value in pair.models[1].graph.inputs if value.dtype is not None}
    alone = [str(value.name) for value in pair.models[0].graph.outputs if value.name not in outputs]
    alone += [str(value.name) for value in pair.models[1].graph.outputs if value.name not in outputs.values()]
    notes += [Note(name, "this output was not compared: only one of the networks has it", kind="warning") for name in alone]

    def theirs(feed: Feed) -> Mapping[str, Array]:
        given = {inputs[name]: array.astype(types.get(inputs[name], array.dtype), copy=False) for name, array in feed.items()}
        made = second.run(given, list(outputs.values()))
        return {ours: made[name] for ours, name in outputs.items()}

    def counted_feeds() -> Iterator[Feed]:
        for done, feed in enumerate(feeds(samples, 1, on_note=notes.append), start=1):
            yield feed
            progress("comparing outputs", done, feed_count(samples, 1))

    found = compare_outputs(lambda feed: first.run(feed, list(outputs)), theirs, counted_feeds(), labels=labels)
    judged = {output.output for output in found}
    others = [name for name in outputs if name not in judged]
    notes += [Note(name, "this output was not compared: it is no tensor of numbers", kind="warning") for name in others]
    return found, (*alone, *others)


def _side(pair: Pair, network: Network, number: int) -> Side:
    source, model = pair.sources[number], pair.models[number]
    return Side(
        file=source_name(source),
        bytes=given_size(source),
        opset=network.opset,
        producer=" ".join(part for part in (model.producer_name, model.producer_version) if part),
        operators=network.operators_by_type,
        quantized=next(codings(network), None) is not None,
    )


def _enters(found: LayerComparison) -> LayerFidelity | None:
    told = [layer for layer in found.layers if layer.own_db is not None and layer.own_db < ROUNDING_DB]
    return min(told, key=_suspicion, default=None)


def _suspicion(layer: LayerFidelity) -> tuple[bool, float]:
    return not layer.is_too_wide, math.inf if layer.own_db is None else layer.own_db


def _operator_differences(a: Network, b: Network) -> tuple[OperatorDifference, ...]:
    ours, theirs = a.operators_by_type, b.operators_by_type
    differing = [name for name in {**ours, **theirs} if ours.get(name, 0) != theirs.get(name, 0)]
    found = [OperatorDifference(name, ours.get(name, 0), theirs.get(name, 0)) for name in differing]
    return tuple(sorted(found, key=lambda difference: (-abs(difference.b - difference.a), difference.operator)))
