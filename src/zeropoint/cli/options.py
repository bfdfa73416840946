"""The arguments and options that commands have, as typer declares them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from zeropoint.targets import TARGETS

TUNING, JUDGING, CALIBRATING = "How it is quantized", "How it is judged", "How calibration runs"
EVERY_TARGET = ", ".join(TARGETS)
PREPROCESS = (
    "For images: a preset (imagenet, yolo, ...) or a TOML file. Repeat it to change keys of that: 'crop=[288, 288]', resize.size=320."
)
TargetName = Enum("TargetName", {name: name for name in TARGETS}, type=str)  # type: ignore[misc]


def option(metavar: str, help: str, *, names: tuple[str, ...] = (), panel: str | None = None) -> Any:
    """Declare an option whose type is a short word, so that the help has room; `panel` is the box that it stands in."""
    return typer.Option(*names, metavar=metavar, help=help, rich_help_panel=panel)


Model = Annotated[Path, typer.Argument(metavar="MODEL", help="The ONNX network.", show_default=False)]
ModelOrModule = Annotated[
    Path,
    typer.Argument(metavar="MODEL", help="The ONNX network, or MODULE:FUNCTION that returns a PyTorch module.", show_default=False),
]
Statistics = Annotated[Path, typer.Argument(metavar="STATS", help="What quantize --checkpoint kept, to its end.", show_default=False)]
Target = Annotated[
    TargetName, typer.Option("--target", "-t", metavar="TARGET", help=f"What it must run on: {EVERY_TARGET}.", show_default=False)
]
Output = Annotated[Path | None, option("FILE", "The file to write; NAME.int8.onnx, here, if absent.", names=("--output", "-o"))]
Json = Annotated[bool, typer.Option("--json", metavar="", help="Print one JSON document instead of tables.")]
Quiet = Annotated[bool, option("", "Print nothing but errors.", names=("--quiet", "-q"))]
Report = Annotated[bool, typer.Option("--report/--no-report", metavar="", help="Write an HTML report beside the model.")]

# what is calibrated on
Data = Annotated[
    str, option("DATA", "Samples: a folder of images, .npy, .npz, module:function, or 'random' for a trial.", names=("--data",))
]
Preprocess = Annotated[list[str] | None, option("PRESET", PREPROCESS)]

# how it is quantized
Solver = Annotated[str, option("NAME", "For ranges of activations: auto, mse, entropy, percentile[:99.99] or minmax.", panel=TUNING)]
WeightSolver = Annotated[Literal["mse", "minmax"], option("NAME", "For ranges of weights: mse or minmax.", panel=TUNING)]
SampleCount = Annotated[int, option("N", "How many samples calibrate.", panel=TUNING)]
BatchSize = Annotated[int, option("N", "How many make a batch, where the batch axis is dynamic.", panel=TUNING)]
Seed = Annotated[int, option("N", "Of random data.", panel=TUNING)]
Include = Annotated[list[str] | None, option("PATTERN", "Quantize nodes of this name or type that the target holds back.", panel=TUNING)]
Exclude = Annotated[list[str] | None, option("PATTERN", "Leave nodes of this name or type in float.", panel=TUNING)]
WeightFormat = Annotated[
    Literal["int8", "int4"], option("FORMAT", "Of codes of weights: int8, or int4, smaller but in no integer kernel.", panel=TUNING)
]
WeightGranularity = Annotated[str, option("WHAT", "What of a weight shares a scale: channel, tensor or block:32.", panel=TUNING)]
Bias = Annotated[Literal["corrected", "kept"], option("HOW", "corrected for the mean error of the rounded weights, or kept.", panel=TUNING)]
WeightStorage = Annotated[Literal["integer", "float"], option("HOW", "integer, or float: behind a Q/DQ pair.", panel=TUNING)]
Effort = Annotated[
    Literal["fast", "balanced", "best"],
    option("HOW", "Time to refine what calibration found: fast (none), balanced or best (minutes).", panel=TUNING),
]
Without = Annotated[list[str] | None, option("NAME", "Leave out this refinement: smoothing, rounding or reconstruction.", panel=TUNING)]
StartingPlan = Annotated[Path | None, option("FILE", "Start from this plan instead of calibrating.", panel=TUNING)]

# how calibration runs
Workers = Annotated[int, option("N", "Processes that calibrate; a single one uses all cores too.", panel=CALIBRATING)]
MemoryBudget = Annotated[
    str | None, option("SIZE", "The most it may take, such as 2GB; half of what is free if absent.", panel=CALIBRATING)
]
Provider = Annotated[
    str, option("NAME", "What runs the network: of ONNX Runtime cpu, cuda, ...; or PyTorch: torch, torch:cuda.", panel=CALIBRATING)
]
Checkpoint = Annotated[Path | None, option("FILE", "Keep the statistics here, to go on after a stop and for solve.", panel=CALIBRATING)]

# how it is judged
EvalData = Annotated[str, option("DATA", "Samples to judge by; held-out ones of --data if absent.", names=("--eval-data",), panel=JUDGING)]
Labels = Annotated[
    str, option("LABELS", "Their classes: 'folder', 'stem', 'data', .csv, .npy or .txt.", names=("--labels",), panel=JUDGING)
]
Evaluate = Annotated[
    bool,
    typer.Option(" /--no-evaluate", metavar="", help="Do not compare with the float network.", show_default=False, rich_help_panel=JUDGING),
]

# what is shown of a network
ViewTarget = Annotated[
    TargetName | None,
    typer.Option("--target", "-t", metavar="TARGET", help=f"Say what would be quantized for it: {EVERY_TARGET}."),
]
Shapes = Annotated[list[str] | None, typer.Option("--shape", metavar="SHAPE", help="INPUT=1x3x640x640, for inputs with dynamic axes.")]
EveryLayer = Annotated[bool, typer.Option("--all", metavar="", help="List every layer.")]
ReportFile = Annotated[Path | None, option("FILE", "Write an HTML page of it too, with every layer.", names=("--report",))]

# what is benchmarked
Models = Annotated[
    list[str], typer.Argument(metavar="MODEL", help="ONNX files; the others are compared with the first.", show_default=False)
]
Runtimes = Annotated[str, option("NAMES", "Of onnxruntime, openvino and tensorrt, with commas between them.", names=("--runtime", "-r"))]
Threads = Annotated[int, option("N", "Threads of one run; 0 for the runtime's own choice.")]
BenchBatch = Annotated[int | None, option("N", "Samples in a run, where the batch axis is dynamic; 1 if absent.", names=("--batch",))]
Seconds = Annotated[float, option("SECONDS", "How long each model is timed on each runtime.", names=("--time",))]
BenchProvider = Annotated[str, option("NAME", "What of ONNX Runtime runs the models: cpu, cuda, ...", names=("--provider",))]
Save = Annotated[Path | None, option("FILE", "Write what was measured as JSON, for --against.", names=("--save",))]
Against = Annotated[Path | None, option("FILE", "Compare with this one that --save wrote; exit code 3 if slower.", names=("--against",))]
Tolerance = Annotated[str, option("SHARE", "How much slower than --against is still well.", names=("--tolerance",))]
BenchReport = Annotated[Path | None, option("FILE", "Write an HTML page of it too.", names=("--report",))]
By = Annotated[str, option("FIGURES", "What is compared: latency, ratio (to the first model), or both.", names=("--by",))]

# what this machine is asked
Measure = Annotated[bool, typer.Option(" /--no-measure", metavar="", help="Time nothing; the rest takes a second.", show_default=False)]

# how a graph is shown
Port = Annotated[int | None, typer.Option("--port", metavar="N", help="Of the address; a free one if absent.")]
Browser = Annotated[bool, typer.Option(" /--no-browser", metavar="", help="Open no browser, only print the address.", show_default=False)]

# what is compared
Reference = Annotated[Path, typer.Argument(metavar="A", help="The ONNX network that the other is judged by.", show_default=False)]
Compared = Annotated[Path, typer.Argument(metavar="B", help="The ONNX network that is judged.", show_default=False)]
ComparedSamples = Annotated[int, option("N", "How many samples the outputs are compared on.", names=("--samples",))]
LayerSamples = Annotated[int, option("N", "How many of these the layers are compared on.")]
ComparedLabels = Annotated[str, option("LABELS", "Classes of the samples: 'folder', 'stem', .csv, .npy or .txt.", names=("--labels",))]
ComparedSeed = Annotated[int, option("N", "Of random data.", names=("--seed",))]
ComparisonReport = Annotated[Path | None, option("FILE", "Write it all to this HTML file.", names=("--report",))]

# what is exported
Module = Annotated[
    str,
    typer.Argument(
        metavar="MODULE:FUNCTION",
        help="What returns an nn.Module, or it and its arguments; file.py:function works too.",
        show_default=False,
    ),
]
ExportOutput = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The ONNX file to write.", show_default=False)]
ExportShapes = Annotated[
    list[str] | None, option("SHAPE", "INPUT=1x3x224x224: of random inputs, in place of arguments.", names=("--shape",))
]
InputNames = Annotated[
    list[str] | None, option("NAME", "Of the inputs, one after the other; forward's if absent.", names=("--input-name",))
]
OutputNames = Annotated[list[str] | None, option("NAME", "Of the outputs, one after the other.", names=("--output-name",))]
Dynamic = Annotated[
    list[str] | None, option("AXIS", "INPUT:AXIS=NAME, 'none', or 'batch' for the batch axes, as if absent.", names=("--dynamic",))
]
Opset = Annotated[int, option("N", "Of the file, 18 or later.")]
Optimize = Annotated[
    bool, typer.Option(" /--no-optimize", metavar="", help="Fold no constants and no batch normalization.", show_default=False)
]
ExportWeights = Annotated[
    Literal["stored", "overridable", "fed"],
    option("WHERE", "stored in the file, overridable by inputs too, or fed: inputs without values.", names=("--weights",)),
]
ExportTolerance = Annotated[
    float, option("SHARE", "The largest difference to the module, of an output's largest magnitude.", names=("--tolerance",))
]
ExportSeed = Annotated[int, option("N", "Of random inputs.", names=("--seed",))]
Verbose = Annotated[bool, typer.Option("--verbose", metavar="", help="Show the exporter's steps.")]
