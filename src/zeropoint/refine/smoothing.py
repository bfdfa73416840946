"""Give each activation the range, and its channels the factors, by which the network's outputs suffer least.

A tensor with a few large channels gets a scale on which the others vanish. Dividing channel c by a factor s_c, which the weights that
read it take up, changes nothing in float and moves the difficulty into the weights, where each output channel has a scale of its own.
Nagel et al. (2019) choose s from the weights of two layers, Xiao et al., "SmoothQuant" (2023), from activations and weights with a fixed
exponent; Wei et al., "Outlier Suppression+" (2023), also shift channels to the middle of their range. Here all of these are candidates, for
each tensor, and what the network's outputs make of them decides; nothing is done where they do not gain by it.

A range may also be too wide. Values that a later normalization takes away again, such as those of the first token of a transformer, may
be clipped without harm, which no statistic of the tensor tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from zeropoint.graph.model import Model
from zeropoint.graph.scaling import Scalable, scaling
from zeropoint.numerics.affine import QParams, Range, dequantize_array, qparams_from_range, quantize_array
from zeropoint.numerics.spec import Spec
from zeropoint.plan import Entry, Plan, Scaling, Tied
from zeropoint.refine.probe import Change, Probe
from zeropoint.refine.products import Product, mean_squares, other_axes, products
from zeropoint.runtime.machine import cores
from zeropoint.statistics.solvers import solve
from zeropoint.statistics.tensor import observe

Array = npt.NDArray[Any]
Array64 = npt.NDArray[np.float64]
Errors = npt.NDArray[np.float64]  # of each sample
Extremes = tuple[Array64, Array64]  # the least and the largest value of each channel, and of what stays

WIDTHS = (0.7, 0.5, 0.35, 0.25, 0.18)  # shares of a range, tried one after the other as long as it gets better
EXPONENTS = ((0.5, 0.5), (0.5, 0.0), (0.75, 0.25))  # s = (peak of the channel)^a / (peak of its weights)^b
WIDEST = 64.0  # factors lie between 1 / 64 and 64
SHARES = (0.8, 0.65, 0.5)  # of a scaled tensor's range
NOT_TRIED: Errors = np.array([np.inf])
MATTERS = 0.02  # of the error that is left: what makes less of it stays as it is
ROUGHLY = 2  # samples from which the noise of channels is estimated
ELEMENTS = 50_000  # of each sample, from which a range is solved
BETTER, MOST = 0.8, 0.8  # the error that remains where something is done, and the share of samples that gain by it
WORTH_A_NODE = 0.6  # the error that remains where the network gets a node more


@dataclass(frozen=True, slots=True, eq=False)
class Scalables:
    """What of a network can be scaled by the channel, and what can be shifted as a whole."""

    by_channel: Sequence[Scalable]
    whole: Sequence[Scalable] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Smoothed:
    """widths: of the ranges of tensors, as they are scaled. bounds: of scaled ones, beyond which nothing needs to be told apart.

    exact: ranges of tensors on branches whose steps the shifts are multiples of.
    """

    widths: Mapping[str, float]
    scalings: tuple[Scaling, ...]
    bounds: Mapping[str, Range]
    exact: Mapping[str, Range]


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """What could be done to some sites: how wide their ranges are, and how their channels are scaled; and what that comes to."""

    width: float
    errors: Errors
    share: float = 1.0  # of the range that the scaled tensor would get
    factors: Array64 | None = None
    shifts: Array64 | None = None
    reason: str = ""
    bounds: Mapping[str, Range] | None = None
    moved: QParams | None = None  # asymmetric, and had by subtracting a whole number of steps


@dataclass(frozen=True, slots=True, eq=False)
class _Subject:
    """The sites that one scalable changes, or a single one that nothing can scale; shiftable: what can move the range of a single one."""

    entries: tuple[Entry, ...]
    scalable: Scalable | None
    shiftable: Scalable | None = None

    @property
    def ties(self) -> dict[Entry, Tied]:
        """Which channels of each site are scaled."""
        return {entry: self.tied(entry.tensor) for entry in self.entries} if self.scalable is not None else {}

    def tied(self, tensor: str) -> Tied:
        known = self.scalable or self.shiftable
        assert known is not None
        return next(tied for tied in known.tied if tied.tensor == tensor)


def smooth(
    network: Model,
    plan: Plan,
    scalables: Scalables,
    probe: Probe,
    *,
    extremes: Callable[[Mapping[str, tuple[Scalable, Tied]]], Mapping[str, Extremes]],
    solver: str,
    tick: Callable[[int, int], None],
) -> Smoothed:
    """Return what is worth doing to the activations of the prepared `network` that `plan` quantizes.

    probe: with the sites of `sites_to_probe`. extremes: what channels of tensors were seen to hold, in more samples than the probe's.

    Raises:
        ModelError: a piece of the network cannot be run.
    """
    subjects = list(_subjects(plan, scalables, probe))
    changed = [(subject, how) for subject in subjects if (how := subject.scalable or subject.shiftable) is not None]
    known = extremes({entry.tensor: (how, subject.tied(entry.tensor)) for subject, how in changed for entry in subject.entries})
    widths: dict[str, float] = {}
    bounds: dict[str, Range] = {}
    exact: dict[str, Range] = {}
    scalings: list[Scaling] = []
    with ThreadPoolExecutor(cores()) as executor:
        searches = [_Search(subject, probe, executor, products(network, plan, subject.ties), known, solver) for subject in subjects]
        at_first: dict[_Search, _Choice] = {}
        for done, search in enumerate(searches, start=1):
            probe.advance(search.first, executor)
            at_first[search] = search.narrower(1.0)
            tick(done, 2 * len(searches))
        left = sum(choice.errors.mean() for choice in at_first.values())
        worst_first = sorted(searches, key=lambda search: -float(at_first[search].errors.mean()))
        for done, search in enumerate(worst_first, start=len(searches) + 1):
            tick(done, 2 * len(searches))
            if at_first[search].errors.mean() < MATTERS * left:
                continue
            probe.advance(search.first, executor)
            found = search.best(at_first[search])
            left -= at_first[search].errors.mean() - found.errors.mean()
            if found.factors is not None and search.subject.scalable is not None:
                shifts = () if found.shifts is None else found.shifts
                scalings.append(scaling(search.subject.scalable, found.factors, shifts, reason=found.reason))
                bounds |= found.bounds or {}
            if found.moved is not None and search.subject.shiftable is not None:
                step, zero_point = float(found.moved.scale), int(found.moved.zero_point)
                reason = f"{-zero_point} steps, to which zero stays exact"
                scalings.append(scaling(search.subject.shiftable, [1.0], [-zero_point * step], reason=reason))
                exact[search.first] = _range_of(step, search.subject.entries[0].spec)
            width = found.width if found.factors is None else found.share
            widths |= {entry.tensor: width for entry in search.subject.entries if width < 1.0}
    return Smoothed(widths, tuple(scalings), bounds, exact)


def sites_to_probe(network: Model, plan: Plan) -> dict[str, Entry]:
    """Return the activations that are looked at, by tensor: those of which products are made."""
    computing = {str(node.name) for node in network.graph if node.op_type in ("Conv", "ConvTranspose", "Gemm", "MatMul")}
    found = [entry for entry in plan.entries if entry.role == "activation" and any(reader.node in computing for reader in entry.readers)]
    return {entry.tensor: entry for entry in found}


def _range_of(step: float, spec: Spec) -> Range:
    """Return the range around zero that has steps of that size."""
    return Range(-spec.qmax * step, spec.qmax * step)


def _subjects(plan: Plan, scalables: Scalables, probe: Probe) -> Iterator[_Subject]:
    """Each site once, in the order of the network: with the scalable that changes it, or alone."""
    entries = {entry.tensor: entry for entry in plan.entries if entry.role == "activation" and entry.tensor in probe.places}
    taken: set[str] = set()
    found = []
    for scalable in scalables.by_channel:
        readers = {(reader.node, reader.input) for reader in scalable.readers}
        mine = [entries[tensor] for tensor in scalable.tensors if tensor in entries]
        if not scalable.free:  # what others read keeps its pair, and its range
            mine = [entry for entry in mine if {(r.node, r.input) for r in entry.readers} <= readers]
        if mine and not scalable.loose and taken.isdisjoint(scalable.tensors):
            taken.update(scalable.tensors)
            found.append(_Subject(tuple(sorted(mine, key=lambda entry: probe.places[entry.tensor])), scalable))
    found += [_Subject((entry,), None) for tensor, entry in entries.items() if tensor not in taken]
    movable = {scalable.tensors[0]: scalable for scalable in scalables.whole}
    for subject in sorted(found, key=lambda subject: probe.places[subject.entries[0].tensor]):
        only = subject.entries[0] if len(subject.entries) == 1 else None
        whole = movable.get(only.tensor) if only is not None and only.symmetric and only.spec.format.signed else None
        takes = whole is not None and only is not None and {*only.readers} == {*whole.readers}
        yield replace(subject, shiftable=whole if takes else None)


def _quantized(qparams: QParams, factor: Array | None = None, shift: Array | None = None) -> Change:
    """Return what rounds a tensor to codes, its channels scaled first where factors are given."""

    def change(x: Array) -> Array:
        if factor is None or shift is None:
            return dequantize_array(quantize_array(x, qparams), qparams)
        y = ((x - shift) / factor).astype(np.float32)
        return (dequantize_array(quantize_array(y, qparams), qparams) * factor + shift).astype(np.float32)

    return change


@dataclass(frozen=True, slots=True, eq=False)
class _Search:
    subject: _Subject
    probe: Probe
    executor: ThreadPoolExecutor
    products: Sequence[Product]
    known: Mapping[str, Extremes]
    solver: str

    @property
    def first(self) -> str:
        """The tensor that the network comes to first."""
        return self.subject.entries[0].tensor

    def best(self, found: _Choice) -> _Choice:
        """Return the best choice: `found`, narrower ranges, scaled channels, or ranges that are not around zero."""
        for width in WIDTHS:
            tried = self.narrower(width)
            if not _is_better(tried, found, BETTER):
                break
            found = tried
        scaled = found if self.subject.scalable is None else self._best_scaled(found, self.subject.scalable)
        if self.subject.shiftable is None:
            return scaled
        if scaled.factors is None or (self.subject.scalable is not None and self.subject.scalable.free):
            return self._moved(scaled)
        moved = self._moved(found)  # on the same branch there is room for one of both, and a single number is the safer one
        return scaled if _is_better(scaled, moved, BETTER) else moved

    def _best_scaled(self, found: _Choice, scalable: Scalable) -> _Choice:
        scaled = min(self._candidates(scalable, found.width), key=lambda choice: float(choice.errors.mean()))
        if not _is_better(scaled, found, BETTER if scalable.free else WORTH_A_NODE):
            return found
        for share in SHARES:
            tried = self._scaled(replace(scaled, share=share))
            if not _is_better(tried, scaled, BETTER):
                break
            scaled = tried
        return scaled

    def _moved(self, found: _Choice) -> _Choice:
        """Return the choice with an asymmetric range where that is worth a node, as narrow as is best then."""
        entry = self.subject.entries[0]
        factors = found.factors
        factor = np.ones(()) if factors is None else self.subject.tied(entry.tensor).spread(factors.tolist(), 1.0)
        scaled = [x / factor for x in self.probe.values(entry.tensor)]
        best = found
        for width in (1.0, *WIDTHS):
            lo, hi = self._extremes(entry, width) / (1.0 if factors is None else np.append(factors, 1.0))
            qparams = self._solved(scaled, Range(float(lo.min()), float(hi.max())), replace(entry.spec, symmetric=False))
            errors = self._errors({entry.tensor: _quantized(qparams, factor.astype(np.float32), np.zeros((), np.float32))}, factors)
            tried = replace(found, errors=errors, moved=qparams)
            if _is_better(tried, best, BETTER):
                best = tried
            elif best is not found:
                break
        return best

    def _candidates(self, scalable: Scalable, width: float) -> Iterator[_Choice]:
        lo, hi = self._bounds_of_channels(width)
        weights = self._peaks_of_weights(scalable)
        symmetric = all(entry.symmetric for entry in self.subject.entries)
        for shifts in (None, (lo + hi) / 2.0) if scalable.shiftable and symmetric else (None,):
            peaks = np.maximum(hi, -lo) if shifts is None else (hi - lo) / 2.0
            for a, b in EXPONENTS:
                factors = factors_of(peaks, weights, a, b)
                reason = f"peak^{a:g} / weight^{b:g}{'' if shifts is None else ', centred'}"
                yield self._scaled(_Choice(width, NOT_TRIED, factors=factors, shifts=shifts, reason=reason))

    def narrower(self, width: float) -> _Choice:
        """Return what ranges of that width come to."""
        qparams = {e.tensor: qparams_from_range(e.range[0] * width, e.range[1] * width, spec=e.spec) for e in self.subject.entries}
        return _Choice(width, self._errors({tensor: _quantized(numbers) for tensor, numbers in qparams.items()}, None))

    def _errors(self, changes: Mapping[str, Change], factors: Array64 | None) -> Errors:
        """Return the outputs' errors; those from rounded weights are taken to have the same consequences as those from rounded inputs."""
        errors = self.probe.errors(changes, self.executor)
        of_weights = of_inputs = 0.0
        for product in self.products:
            assert self.subject.scalable is not None  # else there are no products
            tied, count = self.subject.tied(product.tensor), self.subject.scalable.channels
            values = self.probe.values(product.tensor)[:ROUGHLY]
            power, rounding = (mean_squares(tied, arrays, count) for arrays in (values, [changes[product.tensor](x) - x for x in values]))
            noise = product.noise(np.append(np.ones(count) if factors is None else factors, 1.0), power, rounding)
            of_weights, of_inputs = of_weights + noise[0], of_inputs + noise[1]
        return errors * (1.0 + of_weights / of_inputs) if of_inputs > 0.0 else errors

    def _scaled(self, choice: _Choice) -> _Choice:
        """Return a choice with what it comes to."""
        factors, shifts = choice.factors, choice.shifts
        assert factors is not None  # else nothing is scaled
        changes, bounds = {}, {}
        for entry in self.subject.entries:
            tied = self.subject.tied(entry.tensor)
            moved = shifts if shifts is not None and tied.shifted else np.zeros_like(factors)
            factor, shift = (tied.spread(v.tolist(), d).astype(np.float32) for v, d in ((factors, 1.0), (moved, 0.0)))
            lo, hi = (self._extremes(entry, choice.width) - np.append(moved, 0.0)) / np.append(factors, 1.0)
            bounds[entry.tensor] = Range(float(lo.min()), float(hi.max()))
            scaled = [(x - shift) / factor for x in self.probe.values(entry.tensor)]
            changes[entry.tensor] = _quantized(self._solved(scaled, bounds[entry.tensor], entry.spec, choice.share), factor, shift)
        return replace(choice, errors=self._errors(changes, factors), bounds=bounds if choice.width < 1.0 else None)

    def _solved(self, arrays: Sequence[Array], bounds: Range, spec: Spec, share: float = 1.0) -> QParams:
        """Return the numbers of that share of the range that is solved for what of `arrays` lies within `bounds`."""
        some = [x.reshape(-1)[:: x.size // ELEMENTS + 1 | 1] for x in arrays]
        found = solve(observe(np.clip(np.concatenate(some), bounds.lo, bounds.hi)), spec, self.solver).range
        return qparams_from_range(found.lo * share, found.hi * share, spec=spec)

    def _bounds_of_channels(self, width: float) -> tuple[Array64, Array64]:
        """Return the extremes of each channel, relative to the largest of its tensor where there are several."""
        found = [self._extremes(entry, width)[:, :-1] for entry in self.subject.entries]
        if len(found) > 1:
            found = [its / max(float(np.abs(its).max()), float(np.finfo(np.float32).tiny)) for its in found]
        return np.min([its[0] for its in found], axis=0), np.max([its[1] for its in found], axis=0)

    def _extremes(self, entry: Entry, width: float) -> Array64:
        """Return the extremes of a tensor's channels (2, channels + 1), as far as its range lets them through at a width below 1."""
        its = np.stack(self.known[entry.tensor])
        return its if width == 1.0 else np.clip(its, entry.range[0] * width, entry.range[1] * width)

    def _peaks_of_weights(self, scalable: Scalable) -> Array64:
        """Return the largest weight that reads each channel, relative to the largest of its operator; ones where that is not known."""
        peaks = np.zeros(scalable.channels + 1)  # the last one is of what stays
        for product in self.products:
            columns = np.abs(product.weight).max(axis=1)
            np.maximum.at(peaks, product.channels, columns / max(float(columns.max()), float(np.finfo(np.float32).tiny)))
        return peaks[:-1] if peaks[:-1].any() else np.ones(scalable.channels)


def channel_extremes(tied: Tied, count: int, x: Array) -> Extremes:
    """Return the least and the largest value of each of `count` channels and, last, of what stays: (count + 1,), 0 where nothing is."""
    lo, hi = np.full(count + 1, np.inf), np.full(count + 1, -np.inf)
    numbers = tied.numbers()
    others = other_axes(tied, x)
    np.minimum.at(lo, numbers.reshape(-1), x.min(axis=others).reshape(-1))
    np.maximum.at(hi, numbers.reshape(-1), x.max(axis=others).reshape(-1))
    return np.where(lo <= hi, lo, 0.0), np.where(lo <= hi, hi, 0.0)


def wider(known: Extremes | None, seen: Extremes) -> Extremes:
    """Return the extremes of both."""
    return seen if known is None else (np.minimum(known[0], seen[0]), np.maximum(known[1], seen[1]))


def _is_better(tried: _Choice, known: _Choice, share: float) -> bool:
    """Say whether the error falls to `share` of what it was, and for most samples at all."""
    return bool(tried.errors.mean() < share * known.errors.mean() and (tried.errors < known.errors).mean() >= MOST)


def factors_of(peaks: Array64, weights: Array64, a: float, b: float) -> Array64:
    """Return s (channels,) with a geometric mean of 1; channels that hold nothing, or that nothing reads, keep 1."""
    alive = (peaks > 0.0) & (weights > 0.0)
    factors = np.ones_like(peaks)
    if alive.any():
        logs = a * np.log2(peaks[alive]) - b * np.log2(weights[alive])
        # Sixteenths of powers of two keep the numbers in the plan short, and cost nothing.
        factors[alive] = np.exp2(np.clip(np.rint(16.0 * (logs - logs.mean())) / 16.0, -np.log2(WIDEST), np.log2(WIDEST)))
    return factors
