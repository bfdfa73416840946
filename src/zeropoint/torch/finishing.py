"""End training: from a quantized module to a plan and the network that it gives, measured as any result is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from zeropoint.autograd.lift import bias_scale, products
from zeropoint.data import Preprocess, load_preprocess
from zeropoint.data.choice import Request, choose_samples
from zeropoint.errors import ModelError, RecipeError
from zeropoint.evaluate.measure import Candidate
from zeropoint.graph.load import fingerprint
from zeropoint.graph.materialize import materialize
from zeropoint.graph.store import serialize
from zeropoint.notes import Note
from zeropoint.numerics.decimals import shortest_decimals
from zeropoint.plan import Entry, numbers
from zeropoint.progress import Progress, silent
from zeropoint.result import Result, measured
from zeropoint.torch.quantized import QuantizedModule, quantized_module
from zeropoint.torch.sources import ready_data

LEARNED = "learned"


def finish(
    prepared: QuantizedModule,
    *,
    eval_data: object = None,
    labels: object = None,
    preprocess: Preprocess | str | Path | Sequence[str | Path] | None = None,
    weight_storage: Literal["integer", "float"] = "integer",
    progress: Progress = silent,
) -> Result:
    """Return the quantized network that a trained module stands for, with its plan and what it costs and brings.

    The plan is that of the trained float network, `prepared.float_model()`: saved beside each other, both give the quantized one again.
    eval_data, labels, preprocess: to compare it by, with the float network that training began from, as `zeropoint.quantize` takes
    them, labels="data" for those beside the inputs in a loader; without data only size, coverage and rules are told. weight_storage: as
    there. The module may be trained on afterwards.

    Raises:
        ModelError: it is no prepared module, a weight or scale is NaN or infinite, or a network does not load or run.
        DataError: a sample or label cannot be read or does not fit.
        RecipeError: labels are given, but no data.
    """
    prepared = quantized_module(prepared)
    origin = prepared.origin
    _check_finite(prepared)
    trained = prepared.float_network()
    recipe = replace(origin.recipe, weight_storage=weight_storage)
    plan = replace(
        origin.plan,
        entries=tuple(_learned(prepared)),
        notes=(*origin.plan.notes, _note(prepared)),
        provenance=replace(origin.plan.provenance, model_sha256=fingerprint(serialize(trained))),
    )
    images = preprocess if isinstance(preprocess, Preprocess | None) else load_preprocess(preprocess)
    if labels is not None and eval_data is None:
        raise RecipeError("labels: found them without eval_data, expected both: what the labels are of")
    judging = ready_data(eval_data, origin.forward, images)
    request = Request(None, judging, labels, images, recipe, origin.inputs)
    choice = choose_samples(request, calibrate=False, evaluate=eval_data is not None)
    quantized = materialize(trained, plan, weight_storage=weight_storage)
    candidate = Candidate(original=origin.source, prepared=origin.floats, quantized=quantized, plan=plan)
    return measured(candidate, origin.target, recipe, origin.statistics, choice, notes=origin.notes, progress=progress)


def _learned(prepared: QuantizedModule) -> Iterator[Entry]:
    """Yield the plan's entries with the numbers that the module has by now."""
    plan, quantizer_of = prepared.origin.plan, prepared.network.quantizer_of
    factors = dict(products(prepared.origin.network, {entry.tensor for entry in plan.entries if entry.role == "bias"}))
    for entry in plan.entries:
        if entry.role == "bias":
            data, weight = (quantizer_of[tensor] for tensor in factors[entry.tensor])
            yield replace(entry, scale=shortest_decimals(bias_scale(data, weight).cpu().numpy().reshape(-1)))
            continue
        scale, zero_point = numbers(quantizer_of[entry.tensor].qparams())
        if scale == entry.scale and zero_point == entry.zero_point:
            yield entry
        else:
            reason = f"{LEARNED} in training, begun at: {entry.reason}"
            yield replace(entry, scale=scale, zero_point=zero_point, range=(), solver=LEARNED, reason=reason)


def _note(prepared: QuantizedModule) -> Note:
    learned, tensors = len(prepared.scale_parameters()), len(prepared.network.quantizer_of)
    what = (
        f"weights, and {learned} scales and zero points of {tensors} tensors"
        if learned
        else f"weights alone, at fixed scales of {tensors} tensors"
    )
    return Note("training", f"quantization-aware: it moved the {what}; compared is the float network that it began from")


def _check_finite(prepared: QuantizedModule) -> None:
    for name, tensor in prepared.named_parameters():
        if not tensor.isfinite().all():
            raise ModelError(
                f"{name}: found NaN or infinity, expected numbers: training has diverged; go back, and lower the learning rate"
            )
