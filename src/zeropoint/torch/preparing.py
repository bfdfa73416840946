"""Make a module of a float network that trains with its rounding in it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from zeropoint.autograd.fake_quantize import FakeQuantize, Learning
from zeropoint.autograd.lift import lift, trainable_weights
from zeropoint.calibrate import resources
from zeropoint.data import Preprocess, load_preprocess, open_data
from zeropoint.data.split import split
from zeropoint.decide import Task
from zeropoint.errors import PlanError, RecipeError
from zeropoint.graph.blocks import block_ends
from zeropoint.graph.load import Source, fingerprint, input_infos, load
from zeropoint.graph.prepare import prepare as simplify
from zeropoint.graph.settle import settle
from zeropoint.improve import plan_network
from zeropoint.plan import Entry, Plan, load_plan, origin_notes
from zeropoint.progress import Progress, silent
from zeropoint.recipe import Recipe
from zeropoint.statistics.tensor import TensorStatistic
from zeropoint.targets import Target, get_target
from zeropoint.torch.feeding import forward_of, forward_of_network
from zeropoint.torch.quantized import Origin, QuantizedModule, call_of, device_of, plain_call
from zeropoint.torch.sources import Taken, ready_data, take

if TYPE_CHECKING:
    import torch

NOTHING_SEEN: Mapping[str, TensorStatistic] = {}
LEARNINGS = get_args(Learning)


def prepare(  # noqa: PLR0913  (a facade: an option each)
    model: Source | torch.nn.Module,
    data: object = None,
    *,
    target: str | Target | None = None,
    plan: Plan | str | Path | None = None,
    recipe: Recipe = Recipe(),  # noqa: B008  (frozen)
    learning: Learning = "scale",
    preprocess: Preprocess | str | Path | None = None,
    provider: str = "cpu",
    progress: Progress = silent,
) -> QuantizedModule:
    """Return a module that computes what the quantized network will, and that trains.

    model: a float nn.Module, or an ONNX network as `zeropoint.quantize` takes it. data: calibration samples, as there; the first batch
    also is the sample input that a module is exported with. target: what it will run on; a plan knows its own. plan: where training
    starts; without one it is made from the samples as `quantize` makes it, by the `recipe`. learning: "scale" lets the scales learn with
    the weights (LSQ), "scale and zero point" also the zero points of activations that have some (LSQ+), "fixed" the weights alone.
    provider: what runs the calibration: of ONNX Runtime, or "torch:cuda"; a module on a GPU is calibrated there. The result is on the
    device that the module is on.

    The sites are the plan's: the module is exported, placed as any network is, and lifted back, so that what is trained is what is
    deployed. Batch normalization is folded into the weights, which train as such.

    Raises:
        ModelError: the module cannot be exported, or an operator has no differentiable translation.
        DataError: there is neither a plan nor data, or the data does not fit.
        PlanError: the plan is of another network or target.
        RecipeError: an option has an impossible value, or PyTorch is not installed.

    Example:
        >>> from zeropoint.demo import load_digits
        >>> digits = load_digits()
        >>> prepared = prepare(digits.model, digits.calibration, target="tensorrt")
        >>> len(prepared.scale_parameters()) > 0
        True
    """
    from zeropoint.torch.capture import check_libraries

    check_libraries()
    if learning not in LEARNINGS:
        raise RecipeError(f"learning: found {learning!r}, expected one of {', '.join(LEARNINGS)}")
    given = plan if isinstance(plan, Plan | None) else load_plan(plan)
    goal = _goal(target, given)
    images = preprocess if isinstance(preprocess, Preprocess | None) else load_preprocess(preprocess)
    taken = take(model, data=data, eval_data=None, preprocess=images, seed=recipe.seed, progress=progress)
    device = device_of(model)
    network = load(taken.model, min_opset=max(goal.min_opset, recipe.weight_opset, 0 if given is None else given.min_opset))
    notes, statistics = (*taken.notes, *simplify(network)), NOTHING_SEEN
    infos = input_infos(network)
    forward = forward_of_network([info.name for info in infos]) if taken.call is None else forward_of(taken.call[0])
    if given is not None:
        notes += origin_notes(given, fingerprint(taken.model))
    else:
        where = f"torch:{device}" if provider == "cpu" and device != "cpu" else provider
        how = resources(workers=1, memory_budget=None, provider=where, checkpoint=None)
        found = ready_data(taken.data, forward, images) if taken.call is None else taken.data
        opened = open_data(found, infos, preprocess=images, limit=recipe.samples, seed=recipe.seed)
        samples, task = split(opened, recipe.samples, 1)[0], Task(goal, recipe, how, progress)
        state = plan_network(network, samples, task, sha256=lambda: fingerprint(taken.model))
        given = replace(state.plan, provenance=replace(state.plan.provenance, model=taken.module))
        statistics, notes = state.observed.statistics.tensors, (*notes, *state.observed.run_notes)
    settled, pairs = settle(network, given)
    floats, _ = settle(network, replace(given, entries=(), corrections=(), roundings=()))
    origin = Origin(
        source=taken.model,
        floats=floats,
        network=settled,
        plan=pairs,
        target=goal,
        recipe=recipe,
        inputs=infos,
        forward=forward,
        statistics=statistics,
        notes=notes,
    )
    prepared = _quantized(origin, taken, learning=learning)
    prepared.to(device)
    return prepared


def _quantized(origin: Origin, taken: Taken, *, learning: Learning) -> QuantizedModule:
    def quantizer(entry: Entry, rank: int) -> FakeQuantize:
        moves = learning == "scale and zero point" and entry.role == "activation" and not entry.symmetric
        how: Learning = "scale" if learning != "fixed" and not moves else learning
        return FakeQuantize(entry.qparams(), entry.spec, rank, learning=how)

    weights = trainable_weights(origin.network)
    network = lift(origin.network, origin.plan, trainable=weights, quantizer=quantizer)
    names = [info.name for info in origin.inputs]
    call = plain_call(names) if taken.call is None else call_of(*taken.call)
    return QuantizedModule(network, lift(origin.floats, trainable=weights), origin, call=call, feature_names=block_ends(origin.network))


def _goal(target: str | Target | None, plan: Plan | None) -> Target:
    if target is None and plan is None:
        raise RecipeError("target: found neither a target nor a plan, expected one of them: what it will run on, or where training starts")
    goal = target if isinstance(target, Target) else get_target(target or plan.target)  # type: ignore[union-attr]
    if plan is not None and plan.target != goal.name:
        raise PlanError(f"plan: found target {plan.target!r}, expected {goal.name!r}; prepare for that target, or leave it out")
    return goal
