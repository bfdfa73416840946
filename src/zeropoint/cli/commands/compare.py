"""`zeropoint compare`."""

from __future__ import annotations

from zeropoint import api
from zeropoint.cli import options, render
from zeropoint.cli.bars import progress
from zeropoint.cli.comparison import show_comparison
from zeropoint.cli.destination import check_page
from zeropoint.cli.interruption import interruptible
from zeropoint.comparison import verdict

EXAMPLE = "zeropoint compare resnet50.onnx resnet50.int8.onnx --data photos/ --preprocess imagenet"


def compare(
    a: options.Reference,
    b: options.Compared,
    data: options.Data = "",
    preprocess: options.Preprocess = None,
    samples: options.ComparedSamples = 128,
    layer_samples: options.LayerSamples = 8,
    labels: options.ComparedLabels = "",
    seed: options.ComparedSeed = 0,
    report: options.ComparisonReport = None,
    every_layer: options.EveryLayer = False,
    json: options.Json = False,
) -> None:
    """Compare two networks, float or quantized by any tool: outputs, layer by layer, operators, codes, and where the error enters."""
    if report is not None:
        check_page(report, model=a)
        check_page(report, model=b)
    with interruptible(writes=() if report is None else (report,)), progress(shown=not json) as told:
        found = api.compare(
            a,
            b,
            data=data or None,
            samples=samples,
            layer_samples=layer_samples,
            preprocess=preprocess,
            labels=labels or None,
            seed=seed,
            report=report,
            progress=told,
        )
    if json:
        render.print_json({"verdict": verdict(found), **render.document(found)})
    else:
        show_comparison(found, every_layer=every_layer, report=report)
