"""What quantization costs a small MobileNetV3 on CIFAR-10, and what training with it brings back: `python benchmarks/qat.py`.

For each seed a float network is trained, quantized after training (PTQ) by calibration on training images, and trained on with its
rounding in it (QAT) by `zeropoint.torch.finetune`: at 8 bits for weights and activations, and at 4, where the first and the last layer
keep 8 bits, as in "Learned Step Size Quantization" (Esser et al., 2020), unless --ends is 4. Accuracy is of the fake-quantized module,
which is what is deployed. It is told of a part of the training images, by which settings are to be chosen, and of the test images, which
give the figures and nothing else. Of the former, the divergence from the float network is told too: it says which of two settings is
closer where some thousand images cannot tell accuracies apart. Processes that share a folder --floats train each float network once.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from qat_images import Images, Shuffled, read
from qat_training import accuracy, divergence, outputs, train
from torch import Tensor, nn
from torch.nn import functional as F

import zeropoint as zp
from zeropoint.autograd.lift import lift
from zeropoint.graph.load import load
from zeropoint.graph.model import Model
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
NETWORKS = ("fp32", "ptq8", "qat8", "ptq4", "qat4")
LEARNING: dict[int, Literal["scale", "scale and zero point"]] = {8: "scale", 4: "scale and zero point"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is run. epochs: of the float network; those of tuning follow by bits, as do the rates."""

    seeds: tuple[int, ...] = (0, 1, 2)
    images: int = 25_000
    validation: int = 2_000
    test: int = 5_000
    batch: int = 512
    epochs: int = 36
    epochs8: int = 4
    epochs4: int = 48
    rate8: float = 3e-4
    rate4: float = 4e-3
    scale_rate8: float = 3e-4
    scale_rate4: float = 1e-3
    bits: tuple[int, ...] = (8, 4)
    ends: int = 8
    loss: Literal["both", "distillation"] = "distillation"
    features: float = 0.3
    mixed: bool = False
    calibration: int = 512
    effort: Literal["fast", "balanced", "best"] = "fast"
    precision: Precision = "float32"


QUICK = Settings(seeds=(0,), images=420, validation=100, test=100, batch=64, epochs=2, epochs8=1, epochs4=1, calibration=64, effort="fast")


@dataclass(frozen=True, slots=True)
class Found:
    """One network of one seed: the shares of images that it calls right, its divergence, and the seconds that it took to make and judge.

    divergence: from the float network on the images of `validation`, in nats.
    """

    seed: int
    network: str
    validation: float
    test: float
    divergence: float
    seconds: float


@dataclass(slots=True)
class Study:
    """What is run, on which images, and what was found so far; each finding is printed and kept at once, since a run may be cut off."""

    settings: Settings
    training: Images
    judges: dict[str, Images]
    out: Path
    floats: Path
    found: list[Found] = field(default_factory=list)

    def note(self, seed: int, network: str, module: nn.Module, started: float, reference: Tensor | None = None) -> Tensor:
        """Judge a network, and return what it gives for the images of validation; reference: what the float network gives."""
        given = {part: outputs(module, images) for part, images in self.judges.items()}
        shares = {part: accuracy(logits, self.judges[part].labels) for part, logits in given.items()}
        apart = 0.0 if reference is None else divergence(given["validation"], reference)
        seconds = round(time.perf_counter() - started, 1)
        self.found.append(Found(seed=seed, network=network, divergence=apart, seconds=seconds, **shares))
        told = "".join(f"  {part} {share:.2%}" for part, share in shares.items())
        print(f"seed {seed}: {network:<5}{told}  divergence {apart:.4f}", flush=True)
        device = name_of(self.training.pixels.device)
        report = {"device": device, "torch": torch.__version__, "settings": asdict(self.settings), "found": [*map(asdict, self.found)]}
        self.out.mkdir(parents=True, exist_ok=True)
        (self.out / "qat.json").write_text(json.dumps(report, indent=1) + "\n")
        return given["validation"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run, print a table, and write it as JSON."""
    options = parsed(arguments)
    if options.table:
        tell([Found(**found) for file in options.table for found in json.loads(file.read_text())["found"]])
        return
    settings, device = options.settings, torch.device(options.device)
    torch.backends.cudnn.benchmark = True
    images = read(options.data, "train", count=settings.images, device=device)
    cut = len(images) - settings.validation
    judges = {"validation": images.part(cut, len(images)), "test": read(options.data, "test", count=settings.test, device=device)}
    with tempfile.TemporaryDirectory() as folder:
        study = Study(settings, images.part(0, cut), judges, options.out, options.floats or Path(folder))
        told = ", ".join(f"{len(part)} of the {name} part" for name, part in judges.items())
        print(f"{len(study.training)} images to train on, {told} to judge by, on {name_of(device)}", flush=True)
        for seed in settings.seeds:
            measure(study, seed)
    tell(study.found)


def measure(study: Study, seed: int) -> None:
    """Train one float network, or take it from its folder, and quantize it in all ways."""
    settings = study.settings
    data = Shuffled(study.training, settings.batch, seed)
    samples = next(study.training.batches(settings.calibration))[0].cpu().contiguous()
    network = study.floats / f"seed{seed}-images{len(study.training)}-batch{settings.batch}-epochs{settings.epochs}.onnx"
    device, started = study.training.pixels.device, time.perf_counter()
    if not network.exists():
        model = train(data, epochs=settings.epochs).cpu().to(memory_format=torch.contiguous_format)
        network.parent.mkdir(parents=True, exist_ok=True)
        whole = network.with_suffix(".part")
        zp.torch.export(model, samples[:2], whole)
        whole.rename(network)
    reference = study.note(seed, "fp32", lift(loaded(network), trainable=(), device=device), started)
    for bits in settings.bits:
        started = time.perf_counter()
        module = quantized(network, samples, bits, settings).to(device)
        study.note(seed, f"ptq{bits}", module, started, reference)
        started = time.perf_counter()
        tune(module, replace(data, mixed=settings.mixed), bits, settings)
        study.note(seed, f"qat{bits}", module, started, reference)


def quantized(network: Path, samples: torch.Tensor, bits: int, settings: Settings) -> nn.Module:
    """Return the network as it is after calibration; at 4 bits, the first and last layers have the numbers of `ends`."""
    recipe = Recipe(samples=settings.calibration, batch_size=64, weight_format="int8" if bits == 8 else "int4", effort=settings.effort)
    made = prepare(network, samples.numpy(), target=TARGETS[bits], recipe=recipe, learning=LEARNING[bits])
    if bits in (8, settings.ends):
        return made
    eight = prepare(network, samples.numpy(), target=OPENVINO, recipe=replace(recipe, weight_format="int8", effort="fast"))
    plan = with_ends(made.origin.plan, eight.origin.plan, ends(network))
    return prepare(network, plan=plan, target=FOUR_BITS, learning=LEARNING[bits])


def ends(network: Path) -> set[str]:
    """Return the names of the first and last operators that have weights."""
    weighted = [str(node.name) for node in loaded(network).graph if node.op_type in ("Conv", "Gemm", "MatMul")]
    return {weighted[0], weighted[-1]}


def loaded(network: Path) -> Model:
    """Return the network as plans see it."""
    model = load(network, min_opset=FOUR_BITS.min_opset)
    simplify(model)
    return model


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


def tell(found: Sequence[Found]) -> None:
    """Print what is chosen by, and the figures."""
    print(f"{aside(found)}\n\n{table(found)}")


def aside(found: Sequence[Found]) -> str:
    """Return what was found on the images set aside, a line for each network: the means of all seeds."""
    lines = ["set aside   accuracy   divergence"]
    for name in NETWORKS:
        of = [(one.validation, one.divergence) for one in found if one.network == name]
        if of:
            share, apart = np.mean(of, axis=0)
            lines.append(f"{name:<9}   {percent(share):>8}   {apart:>10.4f}")
    return "\n".join(lines)


def table(found: Sequence[Found]) -> str:
    """Return accuracies on the test images, a line for each seed and the mean of each column, in percent, and what training wins back."""
    share = {(one.seed, one.network): one.test for one in found}
    seeds = sorted({one.seed for one in found})
    lines = ["seed    FP32   W8A8 PTQ   W8A8 QAT   won back   W4A4 PTQ   W4A4 QAT   won back"]
    rows = [[share.get((seed, name), math.nan) for name in NETWORKS] for seed in seeds]
    lines += [f"{seed:<5} {line(row)}" for seed, row in zip(seeds, rows, strict=True)]
    lines.append(f"{'mean':<5} {line(np.mean(rows, axis=0))}")
    if len(seeds) > 1:
        lines.append(f"{'sd':<5} {line(np.std(rows, axis=0, ddof=1), win=False)}")
    return "\n".join(lines)


def line(row: Iterable[float], *, win: bool = True) -> str:
    """Return accuracies in percent, and behind each two the share that training wins back."""
    full, *others = row
    told = f"{percent(full):>6}"
    for ptq, qat in zip(others[::2], others[1::2], strict=True):
        told += f"   {percent(ptq):>8}   {percent(qat):>8}   {won(full, ptq, qat) if win else '':>8}"
    return told.rstrip()


def percent(share: float) -> str:
    """Return a share as text."""
    return "-" if math.isnan(share) else f"{share:.2%}"


def won(full: float, ptq: float, qat: float) -> str:
    """Return the share that training wins back of what quantizing loses."""
    return f"{(qat - ptq) / (full - ptq):.0%}" if full > ptq else "-"


def name_of(device: torch.device) -> str:
    """Return what the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; each setting is an option, in place of its default or of what --quick takes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shown = "beside the repository"
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared/data/cifar10", help=f"folder of train.npz and test.npz; {shown}")
    parser.add_argument("--floats", type=Path, help="folder that keeps the float networks, and has those of an earlier run")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks/.cache/results", help="folder that gets qat.json")
    parser.add_argument("--table", type=Path, nargs="+", help="print the table of some qat.json, and run nothing")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="some hundred images and few epochs: shows that it runs, and no figures")
    for name in ("seeds", "bits"):
        parser.add_argument(f"--{name}", type=lambda text: tuple(map(int, text.split(","))), help="numbers between commas")
    parser.add_argument("--ends", type=int, choices=(8, 4), help="bits of the first and the last layer of the network of 4 bits")
    for name in ("images", "validation", "test", "batch", "epochs", "epochs8", "epochs4", "calibration"):
        parser.add_argument(f"--{name}", type=int)
    for name in ("rate8", "rate4", "scale_rate8", "scale_rate4", "features"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=float)
    parser.add_argument("--loss", choices=("both", "distillation"), help="labels and the float network, or the latter alone")
    parser.add_argument("--effort", choices=("fast", "balanced", "best"))
    parser.add_argument("--precision", choices=("float32", "bfloat16", "float16"))
    parser.add_argument("--mixed", action="store_true", default=None, help="train with quantization on mixtures of two images each")
    found = parser.parse_args(arguments)
    chosen = {name: value for name in Settings.__slots__ if (value := getattr(found, name)) is not None}
    if not set(found.bits or ()) <= TARGETS.keys():
        parser.error(f"--bits: found {found.bits}, expected 8, 4 or both")
    if found.mixed and found.loss == "both":
        parser.error("--mixed: mixtures have no labels; take --loss distillation")
    found.settings = replace(QUICK if found.quick else Settings(), **chosen)
    return found


if __name__ == "__main__":
    main()
