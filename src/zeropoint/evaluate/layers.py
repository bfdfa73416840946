"""Compare two networks layer by layer: how far each tensor is from its counterpart, and how much of that each layer adds by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zeropoint.data import Feed, Samples, feed_count, feeds
from zeropoint.errors import DataError, ModelError
from zeropoint.graph.apart import Apart, open_apart
from zeropoint.graph.facts import Fact, Facts, capture_facts
from zeropoint.graph.matching import Match, Matching, match_inputs, match_tensors
from zeropoint.graph.model import Model
from zeropoint.graph.signals import reach
from zeropoint.notes import Note
from zeropoint.numerics.measures import decibels
from zeropoint.progress import Progress, silent

Array = npt.NDArray[np.generic]
BLOCK = 1 << 14  # elements that are added up at once
MOST_BYTES = 1 << 28  # of tensors of network a that are held at once, for one sample; more are taken in several runs
LOW_DB = 30.0  # below which a tensor may be one that was scaled on purpose
FITS_DB = 1.0  # by how much a tensor fits better once its channels are scaled, whatever errors have added up by then
CLEARLY_DB = 10.0  # by how much its readers come out nearer then
NOTHING_FITTED: Mapping[str, Array] = {}
FEWEST_IN_CHANNEL = 4  # elements by which a factor and a shift can be told
TOO_WIDE = 3.0  # times as far as the values: more than what other samples come to
SCALED = "the other network holds it with its channels scaled, which its readers undo: they are compared in its place"
UNMATCHED = "not compared by itself: the other network has no tensor that is surely the same"


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFidelity:
    """How near what one node of network a computes is in network b.

    tensor, other: what is compared, as it is called in a and in b: as all its readers see it, so behind the Q/DQ pair through which they
    read it. operator: "input" for an input of the network that b codes. sqnr_db: of b's tensor, with both networks run whole, over all
    samples. own_db: the same where b computes it from a's values of the matched tensors in front of it, so that it is the error which
    this layer adds; None where that cannot be run. reach: how many times as far as a's values b's codes reach, on the side where these
    go furthest; None where b does not code the tensor, or as a does.
    """

    node: str
    operator: str
    tensor: str
    other: str
    sqnr_db: float
    own_db: float | None
    reach: float | None = None

    @property
    def is_too_wide(self) -> bool:
        """Whether most of its codes stand for what no value comes near: no calibration does that, whatever error others add."""
        return self.reach is not None and self.reach > TOO_WIDE


@dataclass(frozen=True, slots=True)
class LayerComparison:
    """The layers in the order of network a, and what could not be compared."""

    layers: tuple[LayerFidelity, ...]
    notes: tuple[Note, ...]


@dataclass(slots=True)
class _Energy:
    """Sums of squares over all samples, of a tensor in a, of the error of b's, and of that which the layer adds by itself; a's range."""

    signal: float = 0.0
    error: float = 0.0
    own: float | None = None
    lowest: float = math.inf
    highest: float = -math.inf


@dataclass(frozen=True, slots=True, eq=False)
class _Pair:
    """Both networks and what is the same in them."""

    a: Model
    b: Model
    facts: tuple[Facts, Facts]
    matching: Matching
    notes: list[Note]

    @property
    def layers(self) -> tuple[Match, ...]:
        """Matched tensors of reals that are computed or coded."""
        facts_a, facts_b = self.facts
        return tuple(m for m in self.matching.tensors if m.is_layer and _is_real(facts_a.get(m.tensor)) and _is_real(facts_b.get(m.other)))


def compare_layers(a: Model, b: Model, samples: Samples, *, progress: Progress = silent) -> LayerComparison:
    """Return the fidelity of each tensor of `a` that `b` has too, by its name or its place, on `samples` for the inputs of a.

    Both run as their nodes say, one sample at a time, without the fusions of a runtime. Where b holds a tensor scaled on purpose, a factor
    for each channel which its readers undo, the tensor gets no line but a note: hand the float network scaled alike as `a`
    (`apply_scalings` on a clone of it, with the plan's scalings) to compare these too.

    Raises:
        ModelError: a network does not run.
        DataError: there are no samples, or one cannot be read or does not fit.
    """
    notes: list[Note] = []
    first = next(iter(feeds(samples, 1, on_note=lambda note: None)), None)
    if first is None:
        raise DataError("layers: found no samples to compare on, expected at least one")
    facts = capture_facts(a, first), capture_facts(b, _fed(first, match_inputs(a, b), b))
    pair = _Pair(a, b, facts, match_tensors(a, b, facts), notes)
    runs = _opener(pair, first)
    scaled = _scaled_on_purpose(pair, runs, first)
    if scaled:
        notes[:] = (Note(tensor, SCALED) for tensor in scaled)
        pair = _Pair(a, b, facts, match_tensors(a, b, facts, apart=scaled), notes)
        runs = _opener(pair, first)
    energies = {match.tensor: _Energy() for match in pair.layers}
    each, parts = feed_count(samples, 1), len(list(_parts(pair)))
    for part, run in enumerate(runs()):
        for done, feed in enumerate(feeds(samples, 1, on_note=notes.append), start=1):
            _add(pair, run, feed, energies)
            progress("comparing layers", part * each + done, parts * each)
    reaches = _reaches(pair, energies)
    layers = tuple(_fidelity(match, energies[match.tensor], reaches.get(match.tensor)) for match in pair.layers)
    return LayerComparison(layers, tuple(dict.fromkeys((*notes, *_too_wide(layers), *_unmatched(pair)))))


def _fed(feed: Feed, inputs: Mapping[str, str], b: Model) -> Feed:
    """Return the feed of a as b takes it."""
    types = {str(value.name): value.dtype.numpy() for value in b.graph.inputs if value.dtype is not None}
    return {inputs[name]: _cast(array, types.get(inputs[name], array.dtype)) for name, array in feed.items() if name in inputs}


def _cast(array: Array, dtype: np.dtype[np.generic]) -> Array:
    both_real = array.dtype.kind == "f" and _is_real_type(np.dtype(dtype))
    return array.astype(dtype) if both_real and array.dtype != dtype else array


def _is_real(fact: Fact | None) -> bool:
    return fact is not None and _is_real_type(fact.dtype)


def _is_real_type(dtype: np.dtype[np.generic]) -> bool:
    return dtype.kind == "f" or dtype.name == "bfloat16"


def _parts(pair: _Pair) -> Iterator[list[Match]]:
    """Divide the layers, in order, so that what one part holds of network a stays within bounds."""
    sizes = {match.tensor: _bytes(pair.facts[0].get(match.tensor)) for match in pair.matching.tensors}
    part: list[Match] = []
    held: set[str] = set()
    for match in pair.layers:
        needed = held | {match.tensor, *match.before}
        if part and sum(sizes[tensor] for tensor in needed) > MOST_BYTES:
            yield part
            part, needed = [], {match.tensor, *match.before}
        part.append(match)
        held = needed
    if part:
        yield part


def _bytes(fact: Fact | None) -> int:
    return math.prod(fact.shape) * fact.dtype.itemsize if fact is not None else 0


@dataclass(frozen=True, slots=True, eq=False)
class _Runs:
    """Some layers: both networks whole, and b's pieces, loaded together as far as they run."""

    layers: Sequence[Match]
    a: Apart
    b: Apart
    pieces: Sequence[tuple[Sequence[Match], Apart]]


Runs = Callable[[], Iterable[_Runs]]


def _opener(pair: _Pair, first: Feed) -> Runs:
    """Return what gives the parts, loaded: once where there is only one, and else one after the other, each time they are asked for."""
    parts = list(_parts(pair))
    if len(parts) == 1:
        opened = [_opened(pair, parts[0], first)]
        return lambda: opened
    return lambda: (_opened(pair, part, first) for part in parts)


def _opened(pair: _Pair, layers: Sequence[Match], first: Feed) -> _Runs:
    held = dict.fromkeys(tensor for match in layers for tensor in (match.tensor, *match.before))
    a = open_apart(pair.a, list(held))
    b = open_apart(pair.b, [match.other for match in layers])
    return _Runs(layers, a, b, tuple(_pieces(pair, layers, first, a.run(first))))


def _pieces(pair: _Pair, layers: Sequence[Match], first: Feed, reference: Mapping[str, Array]) -> Iterator[tuple[Sequence[Match], Apart]]:
    """Load the pieces of `layers` together, if they run together, and else in halves; those that do not are noted."""
    known = {match.tensor: match for match in pair.matching.tensors}
    fed = [known[tensor] for tensor in dict.fromkeys(tensor for match in layers for tensor in (match.tensor, *match.before))]
    facts = {other: fact for match in fed for other in match.others if (fact := pair.facts[1].get(other)) is not None}
    try:
        apart = open_apart(pair.b, [match.other for match in layers], fed=facts)
        apart.run(_piece_feed(pair, layers, first, reference))
    except ModelError as error:
        if len(layers) == 1:
            pair.notes.append(Note(layers[0].tensor, f"the error that it adds by itself is not known: {error}"))
            return
        half = len(layers) // 2
        yield from _pieces(pair, layers[:half], first, reference)
        yield from _pieces(pair, layers[half:], first, reference)
    else:
        yield layers, apart


def _piece_feed(pair: _Pair, layers: Sequence[Match], feed: Feed, reference: Mapping[str, Array]) -> Feed:
    """Return what b's pieces read: the feed, and a's values in the place of b's own."""
    known = {match.tensor: match for match in pair.matching.tensors}
    given = _fed(feed, pair.matching.inputs, pair.b)
    for tensor in dict.fromkeys(tensor for match in layers for tensor in (match.tensor, *match.before)):
        for other in known[tensor].others:
            fact = pair.facts[1].get(other)
            if fact is not None:
                given[other] = _cast(reference[tensor], fact.dtype)
    return given


def _add(pair: _Pair, runs: _Runs, feed: Feed, energies: Mapping[str, _Energy]) -> None:
    """Add what one sample shows of some layers."""
    reference = runs.a.run(feed)
    actual = runs.b.run(_fed(feed, pair.matching.inputs, pair.b))
    for match in runs.layers:
        energy, ours = energies[match.tensor], reference[match.tensor]
        energy.signal += _signal(ours)
        energy.error += _error(ours, actual.pop(match.other))
        energy.lowest = min(energy.lowest, float(ours.min(initial=math.inf)))
        energy.highest = max(energy.highest, float(ours.max(initial=-math.inf)))
    for layers, apart in runs.pieces:
        actual = apart.run(_piece_feed(pair, layers, feed, reference))
        for match in layers:
            energy = energies[match.tensor]
            energy.own = (energy.own or 0.0) + _error(reference[match.tensor], actual.pop(match.other))


def _signal(reference: Array) -> float:
    """Return the sum of squares of what is a number."""
    total = 0.0
    for block in _blocks(reference):
        energy = _squared(block)
        total += energy if math.isfinite(energy) else _squared(block[np.isfinite(block)])
    return total


def _error(reference: Array, actual: Array) -> float:
    """Return the sum of squares of the difference: infinite where shapes differ, or where only one of two is a number."""
    if reference.shape != actual.shape:
        return math.inf
    total = 0.0
    for ref, act in zip(_blocks(reference), _blocks(actual), strict=True):
        with np.errstate(invalid="ignore", over="ignore"):
            energy = _squared(act - ref)
        if not math.isfinite(energy):  # masks of minus infinity, or NaN, are no error where both have them
            differ = (ref != act) & ~(np.isnan(ref) & np.isnan(act))
            both_finite = np.isfinite(ref[differ]).all() and np.isfinite(act[differ]).all()
            energy = _squared(act[differ] - ref[differ]) if both_finite else math.inf
        total += energy
    return total


def _blocks(array: Array) -> Iterator[npt.NDArray[np.float64]]:
    """Yield parts that the processor's cache holds, in float64."""
    flat = np.ascontiguousarray(array).reshape(-1)
    return (flat[start : start + BLOCK].astype(np.float64) for start in range(0, flat.size, BLOCK))


def _squared(values: npt.NDArray[np.float64]) -> float:
    with np.errstate(invalid="ignore", over="ignore"):
        return float(np.sum(values * values))  # numpy's own: BLAS would add in an order that depends on the number of threads


def _decibels_of(reference: Array, actual: Array) -> float:
    return decibels(_signal(reference), _error(reference, actual))


def _fidelity(match: Match, energy: _Energy, reach: float | None) -> LayerFidelity:
    return LayerFidelity(
        node=match.node,
        operator=match.operator,
        tensor=match.tensor,
        other=match.other,
        sqnr_db=decibels(energy.signal, energy.error),
        own_db=decibels(energy.signal, energy.own) if energy.own is not None else None,
        reach=reach,
    )


def _reaches(pair: _Pair, energies: Mapping[str, _Energy]) -> dict[str, float]:
    """Return how many times as far as the values of a b's codes reach, by tensor."""
    ours, theirs = ({str(value.name): value for node in model.graph for value in node.outputs} for model in (pair.a, pair.b))
    reaches = {}
    for match in pair.layers:
        found, energy = reach(theirs.get(match.other)), energies[match.tensor]
        if found is None or found == reach(ours.get(match.tensor)) or not math.isfinite(energy.lowest + energy.highest):
            continue
        share = max((end / limit for end, limit in zip((energy.lowest, energy.highest), found, strict=True) if limit), default=0.0)
        if share > 0:
            reaches[match.tensor] = 1 / share
    return reaches


def _too_wide(layers: Sequence[LayerFidelity]) -> Iterator[Note]:
    """Note codes most of which no value takes: what that costs may be less than other layers add, but it is not what a calibration does."""
    wide = [layer for layer in layers if layer.is_too_wide]
    return (Note(one.tensor, f"its codes in the other network reach {one.reach:.1f} times as far as its values do here") for one in wide)


def _unmatched(pair: _Pair) -> Iterator[Note]:
    told = {note.where for note in pair.notes}
    return (Note(tensor, UNMATCHED) for tensor, _ in pair.matching.unmatched if _is_real(pair.facts[0].get(tensor)) and tensor not in told)


def _scaled_on_purpose(pair: _Pair, runs: Runs, feed: Feed) -> list[str]:
    """Return the tensors that b holds with another factor and shift for each channel, while their readers want them so.

    That is, where a reader's piece comes near to a's tensor from what b holds, and not from what a does; or near to what b holds of one
    that is known to be scaled on purpose. A weight that is wrong by a factor scales a tensor as well, but its readers know nothing of that.
    """
    fitted: dict[str, Array] = {}
    for run in runs():
        reference, actual = run.a.run(feed), run.b.run(_fed(feed, pair.matching.inputs, pair.b))
        for match in run.layers:
            ours, theirs = reference[match.tensor], actual.pop(match.other)
            direct = _decibels_of(ours, theirs)
            if direct < LOW_DB and (values := _fitted(ours, theirs, direct + FITS_DB)) is not None:
                fitted[match.tensor] = values
    if not fitted:
        return []
    undone, carried = (
        {tensor for run in runs() for tensor in _wanting_scaled(pair, run, feed, fitted, aims)} for aims in (NOTHING_FITTED, fitted)
    )
    readers: dict[str, list[Match]] = {}
    for match in pair.layers:
        for tensor in match.before:
            readers.setdefault(tensor, []).append(match)
    scaled: dict[str, None] = {}
    for match in reversed(pair.layers):
        behind = readers.get(match.tensor, [])
        if (
            match.tensor in fitted
            and behind
            and all(one.tensor in undone or (one.tensor in carried and one.tensor in scaled) for one in behind)
        ):
            scaled[match.tensor] = None
    return list(reversed(scaled))


def _wanting_scaled(pair: _Pair, runs: _Runs, feed: Feed, fitted: Mapping[str, Array], aims: Mapping[str, Array]) -> Iterator[str]:
    """Yield the tensors that come out clearly nearer to a's, or to those in `aims`, where `fitted` is what their pieces read."""
    reference = runs.a.run(feed)
    for layers, apart in runs.pieces:
        plain = apart.run(_piece_feed(pair, layers, feed, reference))
        other = apart.run(_piece_feed(pair, layers, feed, {**reference, **fitted}))
        for match in layers:
            if not fitted.keys().isdisjoint(match.before):
                aim = aims.get(match.tensor, reference[match.tensor])
                if _decibels_of(aim, other[match.other]) > _decibels_of(aim, plain[match.other]) + CLEARLY_DB:
                    yield match.tensor


def _fitted(ours: Array, theirs: Array, least: float) -> Array | None:
    """Return a's tensor with the factor and shift for each channel, along axis 1 or the last one, that bring it nearest to b's.

    None where even so it is not as near as `least`, in decibels.
    """
    if ours.shape != theirs.shape or ours.ndim < 2 or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None
    found = [_fitted_along(ours, theirs, axis) for axis in {1, ours.ndim - 1} if ours.size >= FEWEST_IN_CHANNEL * ours.shape[axis] > 0]
    fits = [(decibels(_signal(theirs), _error(theirs, values)), number) for number, values in enumerate(found)]
    nearest, best = max(fits, default=(-math.inf, 0))
    return found[best] if nearest > least else None


def _fitted_along(ours: Array, theirs: Array, axis: int) -> Array:
    x, y = (np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1).astype(np.float64) for values in (ours, theirs))
    middle, mean = x.mean(axis=1, keepdims=True), y.mean(axis=1, keepdims=True)
    x = x - middle
    spread = np.square(x).sum(axis=1, keepdims=True)
    slope = np.divide((x * (y - mean)).sum(axis=1, keepdims=True), spread, out=np.zeros_like(spread), where=spread > 0)
    shape = tuple(np.moveaxis(ours, axis, 0).shape)
    return np.ascontiguousarray(np.moveaxis((slope * x + mean).reshape(shape), 0, axis)).astype(ours.dtype)
