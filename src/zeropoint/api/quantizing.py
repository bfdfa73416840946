"""Quantize a network: from samples, a plan, or statistics kept earlier."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from zeropoint.calibrate import Resources, load_statistics, resources
from zeropoint.data import Preprocess, load_preprocess
from zeropoint.data.choice import Choice, Request, choose_samples
from zeropoint.decide import Observed, Task, decide
from zeropoint.errors import ModelError, PlanError
from zeropoint.evaluate.measure import Candidate
from zeropoint.graph.load import Source, fingerprint, input_infos, load
from zeropoint.graph.materialize import materialize
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.improve import plan_network
from zeropoint.notes import Note
from zeropoint.plan import Plan, load_plan, origin_notes
from zeropoint.progress import Progress, silent
from zeropoint.recipe import Recipe
from zeropoint.result import Result, measured
from zeropoint.statistics.tensor import TensorStatistic
from zeropoint.targets import Target, get_target
from zeropoint.torch.sources import Module, is_module, module_name, take


def quantize(  # noqa: PLR0913  (the one wide function: each option of the command line, packed into values at once)
    model: Source | Module,
    *,
    data: object = None,
    target: str | Target,
    solver: str = "auto",
    weight_solver: Literal["mse", "minmax"] = "mse",
    samples: int = 128,
    batch_size: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    weight_format: Literal["int8", "int4"] = "int8",
    weight_granularity: str = "channel",
    bias: Literal["corrected", "kept"] = "corrected",
    weight_storage: Literal["integer", "float"] = "integer",
    effort: Literal["fast", "balanced", "best"] = "balanced",
    without: Sequence[str] = (),
    seed: int = 0,
    plan: Plan | str | Path | None = None,
    preprocess: Preprocess | str | Path | Sequence[str | Path] | None = None,
    eval_data: object = None,
    labels: object = None,
    evaluate: bool = True,
    workers: int = 1,
    memory_budget: int | str | None = None,
    provider: str = "cpu",
    checkpoint: str | Path | None = None,
    progress: Progress = silent,
) -> Result:
    """Quantize a float network for a target, and measure the result before handing it over.

    model: a path, bytes or a ModelProto; or a torch.nn.Module, or "module:function" that returns one, which is exported with the first of
    the data (zeropoint.torch.export). It is never changed. data: a folder of images or arrays, .npy, .npz, "module:function", an array, a
    dict of arrays or an iterable of either; for a module also a DataLoader, a Dataset or tensors, with labels behind the inputs. `samples`
    of them calibrate, `batch_size` at a time, and those left are held out to judge by, unless `eval_data` is given. preprocess: for images,
    a preset's name, a TOML file, both with "key=value" changes behind them in a list, or a Preprocess. labels: "folder", "stem", a file, or
    "data" for those that stand in a module's data, for accuracy. solver,
    weight_solver: how ranges are found. include, exclude: shell patterns over node names, or operator types. weight_format: "int8", or
    "int4" for half the size, which no integer kernel multiplies. weight_granularity: what of a weight shares a scale: an output
    "channel", the whole "tensor", or 32 input channels of an output channel for "block:32", which is for "int4". bias: corrected for
    the mean error of the rounded weights, or kept. effort: how much time may go into refining what calibration found: "fast" for none,
    "balanced" for about the time of ten forward passes, "best" for minutes. without: what the effort would do and is to leave out, of
    "smoothing", "rounding" and "reconstruction". plan: start from these decisions instead of calibrating. workers: processes that
    calibrate, each with its share of the cores, of which one alone uses all as well; a script that asks for several runs its own work
    under `if __name__ == "__main__":`. memory_budget: what the process may take, in bytes or as "2GB": where the tensors of a batch do
    not fit, the data is run several times. Neither changes a bit of the result. checkpoint: a file that keeps the statistics as they
    grow; a later run goes on from there to the same bytes, and `solve` needs nothing else. It serves every target, and so observes more
    tensors for some. provider: what runs the calibration: of ONNX Runtime "cpu" or another, such as "cuda"; or PyTorch, as "torch" or
    "torch:cuda", which needs one process and no budget. Others than the CPU round otherwise. evaluate=False skips the comparison, and
    the network is not run; that it keeps its target's rules is always checked, and that it loads when it is saved.

    Raises:
        ModelError, DataError, RecipeError, PlanError: as their names say, with what was found, what was expected, and what to do.

    Example:
        >>> import zeropoint as zp
        >>> from zeropoint.demo import load_digits
        >>> digits = load_digits()
        >>> result = zp.quantize(digits.model, data=digits.calibration, target="onnxruntime", evaluate=False)
        >>> result.evidence.size_ratio < 0.4
        True
    """
    goal = target if isinstance(target, Target) else get_target(target)
    recipe = Recipe(
        solver=solver,
        weight_solver=weight_solver,
        samples=samples,
        batch_size=batch_size,
        include=tuple(include),
        exclude=tuple(exclude),
        weight_format=weight_format,
        weight_granularity=weight_granularity,
        bias=bias,
        weight_storage=weight_storage,
        effort=effort,
        without=tuple(without),
        seed=seed,
    )
    how = resources(workers=workers, memory_budget=memory_budget, provider=provider, checkpoint=checkpoint)
    images = preprocess if isinstance(preprocess, Preprocess | None) else load_preprocess(preprocess)
    taken = take(model, data=data, eval_data=eval_data, preprocess=images, seed=seed, progress=progress)
    with _old_objects_left_alone(), ThreadPoolExecutor(1) as worker:
        sha256 = worker.submit(fingerprint, taken.model)  # beside the rest: hashing lets go of Python's lock
        given = plan if isinstance(plan, Plan | None) else load_plan(plan)
        network = load(taken.model, min_opset=max(goal.min_opset, recipe.weight_opset, 0 if given is None else given.min_opset))
        notes = (*taken.notes, *prepare(network), *(() if given is None else _check_plan(given, goal, recipe, how, sha256=sha256.result())))
        request = Request(taken.data, taken.eval_data, labels, images, recipe, input_infos(network))
        choice = choose_samples(request, calibrate=given is None, evaluate=evaluate)
        statistics: Mapping[str, TensorStatistic] = {}
        if given is None:
            assert choice.calibration is not None  # it was asked for
            state = plan_network(network, choice.calibration, Task(goal, recipe, how, progress), sha256=sha256.result)
            given = replace(state.plan, provenance=replace(state.plan.provenance, model=taken.module))
            statistics, notes = state.observed.statistics.tensors, (*notes, *state.observed.run_notes)
        return measured(_candidate(taken.model, network, given, recipe), goal, recipe, statistics, choice, notes=notes, progress=progress)


def solve(  # noqa: PLR0913  (as quantize)
    statistics: str | Path,
    model: Source,
    *,
    target: str | Target,
    solver: str = "auto",
    weight_solver: Literal["mse", "minmax"] = "mse",
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    weight_format: Literal["int8", "int4"] = "int8",
    weight_granularity: str = "channel",
    bias: Literal["corrected", "kept"] = "corrected",
    weight_storage: Literal["integer", "float"] = "integer",
) -> Result:
    """Quantize a float network from the statistics that an earlier calibration kept, without data.

    statistics: the file that was `quantize`'s checkpoint, of this very model; target and options may be others than they were then.
    Without data nothing is refined, so that the plan is that of `quantize` with the effort "fast". The result is not compared with the
    float network: `quantize` does that from its plan.

    Raises:
        DataError: the statistics cannot be read, are of another model, not complete, or lack a tensor.
        ModelError, RecipeError: as `quantize` does.

    Example:
        >>> from zeropoint.demo import load_digits
        >>> digits = load_digits()
        >>> from tempfile import TemporaryDirectory
        >>> with TemporaryDirectory() as folder:
        ...     kept = f"{folder}/digits.stats"
        ...     given = {"target": "tensorrt", "effort": "fast", "evaluate": False}
        ...     first = quantize(digits.model, data=digits.calibration, checkpoint=kept, **given)
        ...     solve(kept, digits.model, target="tensorrt").plan.entries == first.plan.entries
        True
    """
    goal = target if isinstance(target, Target) else get_target(target)
    if is_module(model):
        raise ModelError(
            f"model: found the PyTorch module {module_name(model)}, expected the network that the statistics are of; write it with "
            "zeropoint.torch.export and give the file to quantize and to solve"
        )
    saved = load_statistics(statistics)
    recipe = Recipe(
        solver=solver,
        weight_solver=weight_solver,
        batch_size=saved.source.batch_size,
        include=tuple(include),
        exclude=tuple(exclude),
        weight_format=weight_format,
        weight_granularity=weight_granularity,
        bias=bias,
        weight_storage=weight_storage,
        effort="fast",  # there is no data to refine anything by
    )
    network = load(model, min_opset=max(goal.min_opset, recipe.weight_opset))
    saved.check_use(fingerprint(model), where=f"statistics {statistics}")
    notes = prepare(network)
    plan = decide(network, Observed(saved.source, saved.facts, saved.whole.statistics), goal, recipe)
    candidate, seen = _candidate(model, network, plan, recipe), saved.whole.statistics.tensors
    return measured(candidate, goal, recipe, seen, Choice(None, None, None), notes=notes, progress=silent)


def _candidate(model: Source, network: Model, plan: Plan, recipe: Recipe) -> Candidate:
    quantized = materialize(network, plan, weight_storage=recipe.weight_storage)
    return Candidate(original=model, prepared=network, quantized=quantized, plan=plan)


@contextmanager
def _old_objects_left_alone() -> Iterator[None]:
    """Spare Python's cyclic collector what was there before, which is most: graphs make so many objects that it would look at it all."""
    is_ours = gc.get_freeze_count() == 0
    if is_ours:
        gc.freeze()
    try:
        yield
    finally:
        if is_ours:
            gc.unfreeze()


def _check_plan(plan: Plan, target: Target, recipe: Recipe, how: Resources, *, sha256: str) -> tuple[Note, ...]:
    how.check_beside_plan()
    recipe.check_beside_plan()
    if plan.target != target.name:
        raise PlanError(
            f"plan: found target {plan.target!r}, expected {target.name!r}; quantize for that target or make a plan for this one"
        )
    return origin_notes(plan, sha256)
