"""Find what each quantizer of a checkpoint is for: a tensor of the network that takes a Q/DQ pair, or a weight."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce

import numpy as np

from zeropoint.errors import RecipeError
from zeropoint.graph.initializers import constant_array
from zeropoint.graph.sites import Placement, WeightSite
from zeropoint.notes import Note
from zeropoint.torch.foreign.checkpoint import Float64Array, Input, Inside, NetworkInput, Operand, Output, Place, Quantizer, Weight
from zeropoint.torch.importing_moves import spread
from zeropoint.torch.importing_origins import Traced

QMAX = 127  # of the codes that weights get
CLOSE = 1e-5  # float32 factors, of a channel's largest weight


@dataclass(frozen=True, slots=True, eq=False)
class Located:
    """Quantizers by the tensor that takes a pair; scales of weights, float64 (channels,) or (), NaN where there is none to import.

    full: the weights of which some have the lowest code. names: of the quantizers of weights.
    """

    activations: Mapping[str, tuple[Quantizer, ...]]
    weights: Mapping[str, Float64Array]
    full: frozenset[str]
    names: Mapping[str, str]
    notes: tuple[Note, ...]


def locate(
    traced: Traced, placement: Placement, quantizers: Sequence[Quantizer], weights: Mapping[str, Float64Array], tensors: Mapping[str, str]
) -> Located:
    """Return what the quantizers are for.

    weights: of the float modules, by their paths. tensors: names of tensors by quantizer, as the user says, which count more.

    Raises:
        RecipeError: the user names a quantizer or a tensor that there is not.
    """
    sites = {site.tensor for site in placement.activations}
    _check_named(tensors, quantizers, sites)
    activations, notes = defaultdict[str, list[Quantizer]](list), list[Note]()
    unplaced = []
    for quantizer in quantizers:
        places = quantizer.places
        if any(isinstance(place, Weight) for place in places):
            continue
        if quantizer.name in tensors:
            activations[tensors[quantizer.name]].append(quantizer)
        elif any(isinstance(place, Inside) for place in places):
            unplaced.append(quantizer)
        else:
            found = dict.fromkeys(tensor for place in places for tensor in _tensors(traced, place, weights))
            used = [tensor for tensor in found if tensor in sites]
            notes += [] if used else [_unused(quantizer, list(found), placement)]
            for tensor in used:
                activations[tensor].append(quantizer)
    owners = [next(place for place in quantizer.places if isinstance(place, Inside)) for quantizer in unplaced]
    for quantizer, place in zip(unplaced, owners, strict=True):
        free = sites - activations.keys() if owners.count(place) == 1 else None
        tensor, note = _guessed(traced, placement, place, free, quantizer.name)
        notes.append(note)
        if tensor:
            activations[tensor].append(quantizer)
    scales, full, names, more = _weights(traced, placement, quantizers, weights)
    ranges, moved = spread(traced.network, {tensor: tuple(found) for tensor, found in activations.items()}, sites)
    return Located(ranges, scales, full, names, (*notes, *moved, *more))


def _check_named(tensors: Mapping[str, str], quantizers: Iterable[Quantizer], sites: Iterable[str]) -> None:
    names = [quantizer.name for quantizer in quantizers]
    for what, given, known in (("quantizer", tensors.keys(), names), ("tensor", tensors.values(), list(sites))):
        unknown = next((name for name in given if name not in known), None)
        if unknown is not None:
            like = get_close_matches(unknown, known, n=3) or known[:3]
            raise RecipeError(
                f"tensors: found {what} {unknown!r}, expected one of the checkpoint's quantizers and of the tensors that take a pair, as "
                f"{', '.join(map(repr, like))}"
            )


def _tensors(traced: Traced, place: Place, weights: Mapping[str, Float64Array]) -> tuple[str, ...]:
    match place:
        case Input(module):
            return traced.fed(module)
        case Output(module):
            return () if _holds_more(traced, module, weights) else traced.given_out(module)
        case NetworkInput(number):
            inputs = [str(value.name) for value in traced.network.graph.inputs]
            return (inputs[number],) if number < len(inputs) else ()
        case Operand():
            return traced.operand(place)
        case _:
            return ()


def _holds_more(traced: Traced, module: str, weights: Mapping[str, Float64Array]) -> bool:
    """Whether what follows the module was folded into it, so that its own output is nowhere."""
    for product in traced.products:
        if product.module == module and module in weights:
            constant, own = constant_array(product.weight), weights[module]
            same = any(constant.shape == one.shape and np.array_equal(constant, one) for one in (own, own.T))
            return not same
    return False


def _unused(quantizer: Quantizer, tensors: list[str], placement: Placement) -> Note:
    if not tensors:
        return Note(quantizer.name, "not used: the exported network has no tensor that it is for, or it was folded away")
    reasons = [note.reason for note in placement.notes if note.where == tensors[0]]
    return Note(quantizer.name, f"not used: nothing reads {tensors[0]!r} in codes on this target" + "".join(f"; {r}" for r in reasons[:1]))


def _guessed(traced: Traced, placement: Placement, place: Inside, free: Collection[str] | None, name: str) -> tuple[str, Note]:
    """Return the tensor that a quantizer of the user's own is for: the skip connection of its module, or what is left where it has none.

    free: the tensors without a range; None where the module has several such quantizers, and nothing tells them apart.
    """
    inside = {str(node.name) for node in traced.inside(place.module)}
    there = [site.tensor for site in placement.activations if any(reader.node in inside for reader in site.readers)]
    skips = [tensor for tensor in traced.skips(place.module) if tensor in there]
    adds = any(node.op_type == "Add" for node in traced.inside(place.module))
    found = skips if adds or free is None else [tensor for tensor in there if tensor in free]
    if len(found) == 1 and free is not None:
        where = "the skip connection there" if adds else "the only tensor there without a range"
        return found[0], Note(name, f"taken for {found[0]!r}, {where}; say otherwise with tensors={{{name!r}: ...}}")
    return "", Note(
        name,
        f"not used: it belongs to {repr(place.module) if place.module else 'the network'}, and nothing tells which of the tensors there it "
        f"is for ({', '.join(there) or 'none that takes a pair'}); say which with tensors={{{name!r}: ...}}",
    )


# --- weights -----------------------------------------------------------------------------------------------------------------


def _weights(
    traced: Traced, placement: Placement, quantizers: Sequence[Quantizer], weights: Mapping[str, Float64Array]
) -> tuple[dict[str, Float64Array], frozenset[str], dict[str, str], list[Note]]:
    sites = {site.tensor: site for site in placement.weights}
    by_module = {place.module: (quantizer, place) for quantizer in quantizers for place in quantizer.places if isinstance(place, Weight)}
    scales, names, notes = defaultdict[str, list[Float64Array]](list), dict[str, str](), list[Note]()
    used, full = set[str](), set[str]()
    for product in traced.products:
        name, module = str(product.weight.name), product.module
        if module not in by_module or name not in sites or module not in weights:
            continue
        quantizer, place = by_module[module]
        used.add(quantizer.name)
        constant = constant_array(product.weight).astype(np.float64)
        axis = product.form.channel_axis % constant.ndim
        found = _scales(quantizer, weights[module], constant, site=sites[name], channel_axis=axis, folded=place.folded)
        notes += found if isinstance(found, list) else found[1]
        if not isinstance(found, list):
            scales[name].append(found[0])
            full |= {name} if _has_lowest(constant, found[0], axis, lowest=quantizer.grid.qmin) else set()
            names[name] = quantizer.name
    unused = [quantizer for quantizer, _ in by_module.values() if quantizer.name not in used]
    notes += [Note(quantizer.name, "not used: its weight stays in float on this target") for quantizer in unused]
    for name, several in scales.items():
        if any(not np.array_equal(several[0], other, equal_nan=True) for other in several[1:]):
            notes.append(Note(name, f"{len(several)} modules share this weight with other scales for it: the largest are taken"))
    return {name: np.asarray(reduce(np.fmax, several)) for name, several in scales.items()}, frozenset(full), names, notes


def _scales(
    quantizer: Quantizer, own: Float64Array, constant: Float64Array, *, site: WeightSite, channel_axis: int, folded: bool
) -> tuple[Float64Array, list[Note]] | list[Note]:
    """Return the scale of each channel of the network's weight, and notes; notes alone where that is no form of the module's own."""
    axis = channel_axis if site.axis is None else site.axis
    forms = ((own, False), (own.T, True)) if own.ndim == 2 else ((own, False),)
    fitting = [(found, turned) for array, turned in forms if (found := _factors(array, constant, axis)) is not None]
    if not fitting:
        return [Note(quantizer.name, f"not imported: {site.tensor!r} is not the module's weight, each channel times a factor")]
    factors, is_transposed = fitting[0]
    if folded:  # the scales are of the product
        factors = np.ones_like(factors)
    grid, notes = quantizer.grid, []
    scale = grid.amax / QMAX
    grid_axis = grid.axis if grid.axis is None or not is_transposed else 1 - grid.axis
    if grid_axis is not None and grid_axis % constant.ndim != axis:
        scale = scale.max()
        notes.append(Note(quantizer.name, "one scale for the whole weight, the largest: its channels lie on another axis than its outputs"))
    channels = np.broadcast_to(scale, factors.shape) * factors
    if not grid.is_symmetric:
        notes.append(Note(quantizer.name, "its zero point becomes 0, and the scale covers as much on both sides: weights are symmetric"))
    if site.axis is None:
        if np.unique(channels).size > 1:
            notes.append(Note(quantizer.name, "one scale for the whole weight, the largest: its readers, or the runtime, take one only"))
        channels = channels.max()
    return np.where(channels > 0.0, channels, np.nan), notes


def _factors(own: Float64Array, constant: Float64Array, axis: int) -> Float64Array | None:
    """Return by how much each channel was multiplied, without sign; None where the constant is no such product."""
    if own.shape != constant.shape:
        return None
    channels = constant.shape[axis]
    before, after = (np.moveaxis(array, axis, 0).reshape(channels, -1) for array in (own, constant))
    power = (before * before).sum(axis=1)
    factors = (before * after).sum(axis=1) / np.where(power > 0.0, power, 1.0)
    factors[(before == after).all(axis=1)] = 1.0
    apart = np.abs(after - before * factors[:, None]).max(axis=1)
    return np.abs(factors) if (apart <= CLOSE * np.abs(after).max(axis=1)).all() else None


def _has_lowest(constant: Float64Array, scales: Float64Array, axis: int, *, lowest: int) -> bool:
    """Whether weights round to the lowest code, which those that zeropoint quantizes itself leave out."""
    codes = np.rint(np.moveaxis(constant, axis, -1) / np.where(np.isnan(scales), np.inf, scales))
    return bool((np.maximum(codes, lowest) < -QMAX).any())
