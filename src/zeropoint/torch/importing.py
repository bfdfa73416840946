"""Import what another quantizer calibrated or trained: its ranges as a plan, its weights in a copy of the float module."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from zeropoint.calibrate import resources
from zeropoint.data import Preprocess, load_preprocess
from zeropoint.data.choice import Request, choose_samples
from zeropoint.decide import observe_network, site_statistics
from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import NamedBytes, fingerprint, input_infos, load
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.graph.sites import Placement, find_sites
from zeropoint.notes import Note
from zeropoint.plan import Plan, Provenance
from zeropoint.recipe import Recipe
from zeropoint.release import own_version
from zeropoint.runtime.onnxruntime import VERSION as RUNTIME_VERSION
from zeropoint.statistics.tensor import TensorStatistic
from zeropoint.targets import Target, get_target
from zeropoint.torch.arguments import Arguments, bind
from zeropoint.torch.capture import check_libraries
from zeropoint.torch.exporting import export
from zeropoint.torch.feeding import forward_of
from zeropoint.torch.foreign import recognized
from zeropoint.torch.foreign.checkpoint import as_float64
from zeropoint.torch.importing_module import with_weights
from zeropoint.torch.importing_origins import Origin, Origins, origins, traced
from zeropoint.torch.importing_plan import import_plan
from zeropoint.torch.importing_sites import locate
from zeropoint.torch.importing_state import open_state
from zeropoint.torch.reference import NO_SHAPES, resolve
from zeropoint.torch.sources import ready_data

if TYPE_CHECKING:
    import torch

NO_ARGUMENTS: Mapping[str, Any] = {}
NO_TENSORS: Mapping[str, str] = {}
IN_PROCESS = resources(workers=1, memory_budget=None, provider="cpu", checkpoint=None)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Imported:
    """What was imported: what is deployed is `model` with `plan`.

    model: a copy of the float module with the checkpoint's weights. network: the same as the ONNX network that it exports to, which
    needs no sample input any more. format: of the checkpoint. notes: what has no range, what was not used, and what is different; they
    are in the plan, too.
    """

    model: torch.nn.Module
    network: NamedBytes
    plan: Plan
    format: str
    notes: tuple[Note, ...]


def import_checkpoint(  # noqa: PLR0913  (a facade: an option each)
    module: torch.nn.Module | str,
    state: object,
    args: object,
    *,
    target: str | Target,
    kwargs: Mapping[str, object] = NO_ARGUMENTS,
    tensors: Mapping[str, str] = NO_TENSORS,
    data: object = None,
    preprocess: Preprocess | str | Path | Sequence[str | Path] | None = None,
    samples: int = 128,
    solver: str = "auto",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    seed: int = 0,
) -> Imported:
    """Import the ranges and weights of pytorch-quantization, modelopt or torchao's PT2E.

    module: the float nn.Module, as it was before it was quantized, or "module:function" that returns it; it is not changed. state: the
    path of a checkpoint, of which no code is run, a state dict, or a GraphModule that PT2E prepared or converted. args: a sample input,
    as zeropoint.torch.export takes it; kwargs: what forward takes by keyword. tensors: by name of a quantizer, the tensor of the exported
    network that it is for, where the module's structure does not tell. data: calibrates what the checkpoint has no range for, as
    zeropoint.quantize does, from so many `samples`, by the `solver`; without data that stays in float, and the notes say so. include,
    exclude: shell patterns over node names, or operator types.

    Which tensors are quantized is decided by the target, as for any network; the checkpoint tells their scales. Symmetric scales are
    taken over exactly, also into unsigned codes with a zero point in the middle; what shares a scale has the largest of all.

    Raises:
        DataError: the file cannot be read, holds no quantizer, or a scale cannot be used.
        ModelError: the checkpoint is of another network, or the module cannot be exported.
        RecipeError: an option has an impossible value, or PyTorch is not installed.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from zeropoint.torch import import_checkpoint
        >>> network = nn.Sequential(nn.Conv2d(16, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1))
        >>> state = dict(network.state_dict())
        >>> for name, amax in (("0._input", 2.0), ("0._weight", 0.5), ("2._input", 1.27), ("2._weight", 0.5)):
        ...     state[f"{name}_quantizer._amax"] = torch.tensor(amax)
        >>> imported = import_checkpoint(network, state, torch.randn(1, 16, 4, 4), target="tensorrt")
        >>> [entry.scale[0] for entry in imported.plan.entries if entry.role == "activation"]
        [0.015748031, 0.01]
    """
    check_libraries()
    goal = target if isinstance(target, Target) else get_target(target)
    recipe = Recipe(solver=solver, samples=samples, include=tuple(include), exclude=tuple(exclude), seed=seed)
    images = preprocess if isinstance(preprocess, Preprocess | None) else load_preprocess(preprocess)
    original, sample = resolve(module, args, NO_SHAPES, seed=seed)
    given = open_state(state, original)
    form = recognized(given)
    checkpoint = form.read(given, original)
    model, changes = with_weights(original, checkpoint)
    content, traces, notes, call = _exported(model, sample, kwargs, seed=seed)
    network = load(content, min_opset=goal.min_opset)
    notes = (*notes, *prepare(network), *checkpoint.notes, *changes)
    weights = _weights(model)
    placement = find_sites(network, capture_facts(network, call.feed), goal, include=recipe.include, exclude=recipe.exclude)
    located = locate(traced(network, traces, weights), placement, checkpoint.quantizers, weights, tensors)
    ready = ready_data(data, forward_of(model), images)
    request = Request(ready, None, None, images, recipe, input_infos(network))
    measured = {} if data is None else _measured(network, placement, request, goal)
    made = import_plan(network, placement, located, measured, target=goal, recipe=recipe)
    summary = _summary(made, placement, form.name)
    plan = replace(made, notes=(summary, *made.notes, *notes), provenance=_provenance(content, form.name, recipe, type(model).__name__))
    return Imported(model=model, network=content, plan=plan, format=form.name, notes=plan.notes)


def _exported(
    model: torch.nn.Module, sample: Any, kwargs: Mapping[str, object], *, seed: int
) -> tuple[NamedBytes, Origins, tuple[Note, ...], Arguments]:
    """Return the network that the module exports to, where its nodes come from, and the call that it was exported with."""
    traces = dict[str, Origin]()
    with TemporaryDirectory(prefix="zeropoint-") as folder:
        file = Path(folder, "model.onnx")
        found = export(model, sample, file, kwargs=kwargs, seed=seed, traced=lambda network: traces.update(origins(network)))
        content = NamedBytes(type(model).__name__, file.read_bytes())
    return content, traces, found.notes, bind(model, sample, kwargs, names=())


def _weights(model: torch.nn.Module) -> dict[str, Any]:
    """Return the weights of convolutions and linear layers, by the module's path."""
    found = {path: getattr(part, "weight", None) for path, part in model.named_modules()}
    return {path: as_float64(weight) for path, weight in found.items() if weight is not None and weight.dim() >= 2}


def _measured(network: Model, placement: Placement, request: Request, target: Target) -> Mapping[str, TensorStatistic]:
    """Return what the data shows of each tensor that takes a pair, also of those that only hold what was observed in others."""
    chosen = choose_samples(request, calibrate=True, evaluate=False).calibration
    assert chosen is not None  # they were asked for
    recipe = replace(request.recipe, bias="kept")
    observed = observe_network(network, chosen, sha256=str, target=target, recipe=recipe, resources=IN_PROCESS)
    return site_statistics(network, placement, observed.statistics, target)


def _summary(plan: Plan, placement: Placement, format: str) -> Note:
    imported = [entry for entry in plan.entries if entry.solver == "imported"]
    counts = {role: sum(entry.role == role for entry in imported) for role in ("activation", "weight")}
    without = [site.tensor for site in placement.activations if site.tensor not in plan.tensors]
    rest = f"; {', '.join(without)} without a range: who reads them stays in float" if without else ""
    return Note(
        format,
        f"imported {counts['activation']} of {len(placement.activations)} activations and {counts['weight']} of {len(placement.weights)} "
        f"weights that the target quantizes{rest}",
    )


def _provenance(content: NamedBytes, format: str, recipe: Recipe, model: str) -> Provenance:
    return Provenance(
        zeropoint=own_version(),
        onnxruntime=RUNTIME_VERSION,
        model=model,
        model_sha256=fingerprint(content),
        calibration_data=f"a checkpoint of {format}",
        solver="imported",
        weight_solver="imported",
        weight_format=recipe.weight_format,
        weight_granularity=recipe.weight_granularity,
        bias="kept",
        seed=recipe.seed,
    )
