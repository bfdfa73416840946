"""`zeropoint solve`."""

from __future__ import annotations

from zeropoint import api
from zeropoint.cli import options
from zeropoint.cli.destination import destination
from zeropoint.cli.handover import hand_over
from zeropoint.cli.interruption import interruptible
from zeropoint.result import plan_path, report_path

EXAMPLE = "zeropoint solve photos.stats resnet50.onnx --target openvino --solver percentile:99.99"


def solve(
    statistics: options.Statistics,
    model: options.Model,
    target: options.Target,
    output: options.Output = None,
    solver: options.Solver = "auto",
    weight_solver: options.WeightSolver = "mse",
    include: options.Include = None,
    exclude: options.Exclude = None,
    weight_format: options.WeightFormat = "int8",
    weight_granularity: options.WeightGranularity = "channel",
    bias: options.Bias = "corrected",
    weight_storage: options.WeightStorage = "integer",
    report: options.Report = True,
    json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Quantize MODEL from the statistics that an earlier calibration kept, for any target, without data."""
    file = destination(model, output, spared={"which is STATS": statistics})
    with interruptible(writes=(file, plan_path(file), report_path(file))):
        result = api.solve(
            statistics,
            model,
            target=target.value,
            solver=solver,
            weight_solver=weight_solver,
            include=include or (),
            exclude=exclude or (),
            weight_format=weight_format,
            weight_granularity=weight_granularity,
            bias=bias,
            weight_storage=weight_storage,
        )
        hand_over(result, file, json=json, quiet=quiet, report=report)
