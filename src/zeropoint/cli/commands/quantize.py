"""`zeropoint quantize`."""

from __future__ import annotations

from zeropoint import api
from zeropoint.cli import options
from zeropoint.cli.bars import progress
from zeropoint.cli.destination import destination
from zeropoint.cli.handover import hand_over
from zeropoint.cli.interruption import interruptible
from zeropoint.result import plan_path, report_path

EXAMPLE = "zeropoint quantize resnet50.onnx --data photos/ --preprocess imagenet --target tensorrt"


def quantize(
    model: options.ModelOrModule,
    target: options.Target,
    data: options.Data = "",
    preprocess: options.Preprocess = None,
    output: options.Output = None,
    solver: options.Solver = "auto",
    weight_solver: options.WeightSolver = "mse",
    samples: options.SampleCount = 128,
    batch_size: options.BatchSize = 1,
    seed: options.Seed = 0,
    include: options.Include = None,
    exclude: options.Exclude = None,
    weight_format: options.WeightFormat = "int8",
    weight_granularity: options.WeightGranularity = "channel",
    bias: options.Bias = "corrected",
    weight_storage: options.WeightStorage = "integer",
    effort: options.Effort = "balanced",
    without: options.Without = None,
    plan: options.StartingPlan = None,
    workers: options.Workers = 1,
    memory_budget: options.MemoryBudget = None,
    provider: options.Provider = "cpu",
    checkpoint: options.Checkpoint = None,
    eval_data: options.EvalData = "",
    labels: options.Labels = "",
    evaluate: options.Evaluate = True,
    report: options.Report = True,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Quantize MODEL for a target, judge the result, and write it with the plan behind it."""
    file = destination(model, output, spared={"which --plan reads": plan}, checkpoint=checkpoint)
    with interruptible(writes=(file, plan_path(file), report_path(file)), checkpoint=checkpoint):
        with progress(shown=not (json or quiet)) as told:
            result = api.quantize(
                model,
                data=data or None,
                target=target.value,
                solver=solver,
                weight_solver=weight_solver,
                samples=samples,
                batch_size=batch_size,
                include=include or (),
                exclude=exclude or (),
                weight_format=weight_format,
                weight_granularity=weight_granularity,
                bias=bias,
                weight_storage=weight_storage,
                effort=effort,
                without=without or (),
                seed=seed,
                plan=plan,
                preprocess=preprocess,
                eval_data=eval_data or None,
                labels=labels or None,
                evaluate=evaluate,
                workers=workers,
                memory_budget=memory_budget,
                provider=provider,
                checkpoint=checkpoint,
                progress=told,
            )
        hand_over(result, file, json=json, quiet=quiet, report=report)
