"""What calibration on a GPU costs beside the plain forward pass: `python benchmarks/gpu_calibration.py`, where there is a GPU.

A ResNet-50 (with random weights: what is timed does not depend on them) runs on random images of 3x224x224, once as the module
that PyTorch has, once with all of the data on the GPU, once lifted from its export, and once with every tensor observed that a plan
for TensorRT needs. All others read the same batches from the same memory of the host, and all work in full float32. Printed are
medians of several runs in turn, and their ratios.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import zeropoint as zp
from zeropoint.autograd.devices import full_precision
from zeropoint.autograd.lift import lift
from zeropoint.calibrate import Resources, Source, Subject, calibrate
from zeropoint.data import Batches, batches, open_data
from zeropoint.decide import needed_taps
from zeropoint.graph.facts import capture_facts
from zeropoint.graph.load import input_infos, load
from zeropoint.graph.model import Model
from zeropoint.graph.prepare import prepare
from zeropoint.graph.sites import find_sites
from zeropoint.recipe import Recipe
from zeropoint.targets import get_target

DISTINCT = 128  # images that are drawn; the others are the same again


class Bottleneck(nn.Module):
    """Convolutions of 1, 3 and 1 pixels, and a skip connection."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(inputs, width, 1), nn.ReLU(), *convolution(width, width, 3, stride), nn.ReLU(), *convolution(width, 4 * width, 1)
        )
        self.skip = nn.Sequential(*convolution(inputs, 4 * width, 1, stride)) if stride > 1 or inputs != 4 * width else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum behind its activation."""
        return torch.relu(self.body(x) + self.skip(x))


def convolution(inputs: int, outputs: int, kernel: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return a convolution and its normalization."""
    return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)


def resnet50() -> nn.Module:
    """Return the network of "Deep Residual Learning for Image Recognition" (He et al., 2016), with the stride in the middle."""
    layers: list[nn.Module] = [*convolution(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, depth in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for number in range(depth):
            layers.append(Bottleneck(inputs, width, 2 if number == 0 and width > 64 else 1))
            inputs = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, 1000))


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """The module, the network that it exports to, and the data for both."""

    module: nn.Module
    network: Model
    data: Batches
    device: str


def made(*, images: int, batch: int, side: int, device: str) -> Case:
    """Return the module and its network, with random images."""
    torch.manual_seed(0)
    module = resnet50().eval()
    drawn = torch.randn(min(images, DISTINCT), 3, side, side)
    array = drawn.repeat(-(-images // len(drawn)), 1, 1, 1)[:images].numpy()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "resnet50.onnx"
        zp.torch.export(module, drawn[:1], path, input_names=["image"])
        network = load(path)
        prepare(network)
        data = batches(open_data(array, input_infos(network)), batch)
    return Case(module.to(device), network, data, device)


def forward(case: Case, module: nn.Module) -> None:
    """Run the module on all batches."""
    with torch.inference_mode(), full_precision():
        for block in case.data:
            for feed in block:
                module(torch.from_numpy(feed["image"]).to(case.device))
    synchronize(case.device)


def forward_there(case: Case, images: list[Tensor]) -> None:
    """Run the module on batches that the device has."""
    with torch.inference_mode(), full_precision():
        for batch in images:
            case.module(batch)
    synchronize(case.device)


def calibrated(case: Case) -> None:
    """Observe what a plan for TensorRT needs, on all batches."""
    facts = capture_facts(case.network, case.data.samples[0])
    recipe = Recipe(batch_size=case.data.size)
    taps = needed_taps(case.network, find_sites(case.network, facts, get_target("tensorrt")), facts, recipe)
    size, blocks = case.data.size, len(case.data)
    source = Source(model_sha256="", data="", data_sha256="", batch_size=size, blocks=blocks, provider="", zeropoint="", onnxruntime="")
    found, _ = calibrate(Subject(case.network, facts, case.data, source), taps, Resources(provider=f"torch:{case.device}"))
    assert all(np.isfinite([seen.minimum, seen.maximum]).all() for seen in found.tensors.values())


def synchronize(device: str) -> None:
    """Wait for the device."""
    if device.startswith("cuda"):
        torch.cuda.synchronize()


def seconds(work: Callable[[], None]) -> float:
    """Return how long the work takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Time all in turn, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1024)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--side", type=int, default=224, help="pixels")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    case = made(images=options.images, batch=options.batch, side=options.side, device=options.device)
    lifted = lift(case.network, trainable=()).to(case.device)
    there = [torch.from_numpy(feed["image"]).to(case.device) for block in case.data for feed in block]
    works: dict[str, Callable[[], None]] = {
        "forward, the module": lambda: forward(case, case.module),
        "forward, data there": lambda: forward_there(case, there),
        "forward, lifted": lambda: forward(case, lifted),
        "calibration": lambda: calibrated(case),
    }
    for work in works.values():  # libraries load and kernels compile
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(options.runs):
        for name, work in works.items():
            taken[name].append(seconds(work))
    plain = statistics.median(taken["forward, the module"])
    name = torch.cuda.get_device_name() if options.device.startswith("cuda") else options.device
    print(f"ResNet-50, {options.images} images of {options.side} pixels in batches of {options.batch}, float32, {name}")
    for name, times in taken.items():
        middle = statistics.median(times)
        told = ", ".join(f"{value:.3f}" for value in times)
        print(f"{name:<22} {middle:7.3f} s   x{middle / plain:.2f}   {options.images / middle:7.0f} images/s   ({told})")


if __name__ == "__main__":
    main()
