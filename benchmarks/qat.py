"""What quantization costs a small MobileNetV3 on CIFAR-10, and what training with it brings back: `python benchmarks/qat.py`.

For each seed a float network is trained, quantized after training (PTQ) by calibration on training images, and trained on with its
rounding in it (QAT) by `zeropoint.torch.finetune`: at 8 bits for weights and activations, and at 4, where the first and the last layer
keep 8 bits, as in "Learned Step Size Quantization" (Esser et al., 2020). Accuracy is of the fake-quantized module, which is what is
deployed. A part of the training images judges whatever is chosen; the test images give the figures and nothing else.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from qat_images import Images, Shuffled, read
from qat_training import accuracy, train
from torch import nn
from torch.nn import functional as F

import zeropoint as zp
from zeropoint.graph.load import load
from zeropoint.graph.prepare import prepare as simplify
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import Spec
from zeropoint.plan import Entry, Plan
from zeropoint.recipe import Recipe
from zeropoint.targets.openvino import OPENVINO
from zeropoint.torch.finetuning import finetune
from zeropoint.torch.preparing import prepare
from zeropoint.torch.training_options import Distillation, Precision

ROOT = Path(__file__).resolve().parents[1]
# No runtime runs it: OpenVINO's operators, at 4 bits. Hard-swish is negative somewhere, which a zero point is for.
FOUR_BITS = replace(
    OPENVINO, activation=Spec(FORMATS["uint4"], symmetric=False), nonnegative_activation=Spec(FORMATS["uint4"], symmetric=True)
)
TARGETS = {8: OPENVINO, 4: FOUR_BITS}
LEARNING: dict[int, Literal["scale", "scale and zero point"]] = {8: "scale", 4: "scale and zero point"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is run. epochs: of the float network; those of tuning follow by bits, as do the rates."""

    seeds: tuple[int, ...] = (0, 1, 2)
    images: int = 25_000
    validation: int = 2_000
    test: int = 5_000
    batch: int = 512
    epochs: int = 100
    epochs8: int = 10
    epochs4: int = 30
    rate8: float = 1e-3
    rate4: float = 4e-3
    scale_rate8: float = 1e-3
    scale_rate4: float = 4e-3
    loss: Literal["both", "distillation"] = "both"
    features: float = 0.0
    calibration: int = 512
    effort: Literal["fast", "balanced", "best"] = "balanced"
    precision: Precision = "float32"
    judge: Literal["test", "validation"] = "test"


QUICK = Settings(seeds=(0,), images=420, validation=100, test=100, batch=64, epochs=2, epochs8=1, epochs4=1, calibration=64, effort="fast")


@dataclass(frozen=True, slots=True)
class Row:
    """One network: accuracies, and seconds."""

    seed: int
    fp32: float
    ptq8: float
    qat8: float
    ptq4: float
    qat4: float
    seconds: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print a table, and write it as JSON."""
    options = parsed(arguments)
    if options.table:
        print(table([Row(**row) for file in options.table for row in json.loads(file.read_text())["rows"]]))
        return
    settings, device = options.settings, torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    images = read(options.data, "train", count=settings.images, device=device)
    cut = len(images) - settings.validation
    training = images.part(0, cut)
    judged = images.part(cut, len(images))
    if settings.judge == "test":
        judged = read(options.data, "test", count=settings.test, device=device)
    print(f"{len(training)} images to train on, {len(judged)} of the {settings.judge} part to judge by, on {name_of(device)}", flush=True)
    rows = []
    for seed in settings.seeds:
        rows.append(measure(seed, training, judged, settings))
        print(json.dumps(asdict(rows[-1])), flush=True)
        found = {"device": name_of(device), "torch": torch.__version__, "settings": asdict(settings), "rows": [asdict(row) for row in rows]}
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "qat.json").write_text(json.dumps(found, indent=1) + "\n")  # after each seed: a run may be cut off
    print(table(rows))


def measure(seed: int, training: Images, judged: Images, settings: Settings) -> Row:
    """Train one float network, and quantize it in all ways."""
    device, seconds = judged.pixels.device, dict[str, float]()
    data = Shuffled(training, settings.batch, seed)
    model = timed(seconds, "fp32", lambda: train(data, epochs=settings.epochs))
    found = dict[str, float]()

    def judge(name: str, module: nn.Module) -> None:
        found[name] = accuracy(module, judged)
        print(f"seed {seed}: {name} {found[name]:.2%}", flush=True)

    judge("fp32", model)
    samples = next(training.batches(settings.calibration))[0].cpu().contiguous()
    with tempfile.TemporaryDirectory() as folder:
        network = Path(folder) / "float.onnx"
        float_model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
        timed(seconds, "export", lambda: zp.torch.export(float_model, samples[:2], network))
        for bits in (8, 4):
            module = timed(seconds, f"ptq{bits}", lambda bits=bits: quantized(network, samples, bits, settings)).to(device)
            judge(f"ptq{bits}", module)
            timed(seconds, f"qat{bits}", lambda module=module, bits=bits: tune(module, data, bits, settings))
            judge(f"qat{bits}", module)
    return Row(seed=seed, seconds={name: round(value, 1) for name, value in seconds.items()}, **found)


def quantized(network: Path, samples: torch.Tensor, bits: int, settings: Settings) -> nn.Module:
    """Return the network as it is after calibration; at 4 bits, the first and last layers have the numbers of 8."""
    recipe = Recipe(samples=settings.calibration, batch_size=64, weight_format="int8" if bits == 8 else "int4", effort=settings.effort)
    made = prepare(network, samples.numpy(), target=TARGETS[bits], recipe=recipe, learning=LEARNING[bits])
    if bits == 8:
        return made
    eight = prepare(network, samples.numpy(), target=OPENVINO, recipe=replace(recipe, weight_format="int8", effort="fast"))
    plan = with_ends(made.origin.plan, eight.origin.plan, ends(network))
    return prepare(network, plan=plan, target=FOUR_BITS, learning=LEARNING[bits])


def ends(network: Path) -> set[str]:
    """Return the names of the first and last operators that have weights."""
    model = load(network, min_opset=FOUR_BITS.min_opset)
    simplify(model)
    weighted = [str(node.name) for node in model.graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    return {weighted[0], weighted[-1]}


def with_ends(plan: Plan, eight: Plan, names: set[str]) -> Plan:
    """Return `plan` with what the nodes called `names` read taken from `eight`, where nobody else reads it."""

    def is_theirs(entry: Entry) -> bool:
        return bool(entry.readers) and all(reader.node in names for reader in entry.readers)

    others = {entry.tensor: entry for entry in eight.entries if is_theirs(entry)}
    return replace(plan, entries=tuple(others.get(entry.tensor, entry) if is_theirs(entry) else entry for entry in plan.entries))


def tune(module: nn.Module, data: Shuffled, bits: int, settings: Settings) -> None:
    """Train a quantized module on, by its labels and by the float network."""
    finetune(
        module,
        data,
        loss=F.cross_entropy if settings.loss == "both" else "distillation",
        distillation=Distillation(features=settings.features),
        epochs=settings.epochs8 if bits == 8 else settings.epochs4,
        learning_rate=settings.rate8 if bits == 8 else settings.rate4,
        scale_learning_rate=settings.scale_rate8 if bits == 8 else settings.scale_rate4,
        precision=settings.precision,
        kernels="fastest",
        seed=data.seed,
    )


def table(rows: Sequence[Row]) -> str:
    """Return a line for each seed, and the mean and standard deviation of each column, in percent."""
    columns = ("fp32", "ptq8", "qat8", "ptq4", "qat4")
    lines = ["seed    FP32   W8A8 PTQ   W8A8 QAT   W4A4 PTQ   W4A4 QAT   won back at W8A8   at W4A4"]
    for row in rows:
        values = [getattr(row, column) for column in columns]
        lines.append(f"{row.seed:<5} {line(values)}   {won(*values[:3]):>16}   {won(values[0], *values[3:]):>7}")
    kinds: tuple[tuple[str, Callable[[list[float]], float]], ...] = (("mean", statistics.mean), ("sd", spread))
    for name, function in kinds:
        lines.append(f"{name:<5} {line([function([getattr(row, column) for row in rows]) for column in columns])}")
    return "\n".join(lines)


def line(values: Sequence[float]) -> str:
    """Return accuracies in percent, in columns."""
    return f"{values[0]:>6.2%}   " + "   ".join(f"{value:>8.2%}" for value in values[1:])


def won(full: float, ptq: float, qat: float) -> str:
    """Return the share that training wins back of what quantizing loses."""
    return f"{(qat - ptq) / (full - ptq):.0%}" if full > ptq else "-"


def spread(values: Sequence[float]) -> float:
    """Return the standard deviation of a sample; 0 of one value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    """Do the work, note its seconds, and return what it returns."""
    start = time.perf_counter()
    done = work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    seconds[name] = time.perf_counter() - start
    return done


def name_of(device: torch.device) -> str:
    """Return what the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; each setting is an option, in place of its default or of what --quick takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = "beside the repository"
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/cifar10", help=f"folder of train.npz and test.npz; {shown}")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/.cache/results", help="folder that gets qat.json")
    parser.add_argument("--table", type=Path, nargs="+", help="print the table of some qat.json, and run nothing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="some hundred images and few epochs: shows that it runs, and no figures")
    parser.add_argument("--seeds", type=lambda text: tuple(map(int, text.split(","))), help="numbers between commas")
    for name in ("images", "validation", "test", "batch", "epochs", "epochs8", "epochs4", "calibration"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("rate8", "rate4", "scale_rate8", "scale_rate4", "features"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    parser.add_argument("--loss", choices=("both", "distillation"), help="labels and the float network, or the latter alone")
    parser.add_argument("--effort", choices=("fast", "balanced", "best"))
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--judge", choices=("test", "validation"), help="validation for any choice of settings, test for the figures")
    found = parser.parse_args(arguments)
    chosen = {name: value for name in Settings.__slots__ if (value := getattr(found, name)) is not None}
    found.settings = replace(QUICK if found.quick else Settings(), **chosen)
    return found


if __name__ == "__main__":
    main()
