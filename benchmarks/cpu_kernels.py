"""Time fake quantization on the CPU, and what training with it costs there: `python benchmarks/cpu_kernels.py`.

The compiled loops of zeropoint, the same in PyTorch's operators (`plain`, which runs where there was no C compiler), and PyTorch's own fake
quantization run in turn; the medians are printed, in nanoseconds an element, beside what a copy takes. Then one step of training with
quantization, forward and backward, of the network of `qat.py` with random weights: compiled, plain, and the float network.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from qat_network import network
from torch import Tensor

import zeropoint as zp
from zeropoint.autograd.kernels import compiled, dispatch, plain
from zeropoint.autograd.kernels.plain import Codes, Wanted
from zeropoint.recipe import Recipe

INT8, ALL = Codes(-128, 127), Wanted()
ENDS = (-128, 127)
Work = Callable[[], Any]


def medians(works: Mapping[str, Work], runs: int) -> dict[str, float]:
    """Return the median seconds of each, run in turn."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(runs):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            taken[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in taken.items()}


@contextmanager
def without_compiled() -> Iterator[None]:
    """Let PyTorch's operators do the work."""
    compiled.INSTALLED = False
    try:
        yield
    finally:
        compiled.INSTALLED = True


def kernels(x: Tensor, scale: Tensor) -> dict[str, Work]:
    """Return what is timed on one tensor, with one scale or one for each of the channels, axis 1."""
    grad, zero_point = torch.randn_like(x), torch.full_like(scale, 3.0)
    flat, whole = scale.flatten(), zero_point.flatten()
    own, codes = torch.ops.aten, whole.int()
    if scale.numel() == 1:
        forward = partial(torch.fake_quantize_per_tensor_affine, x, flat, codes, *ENDS)
        backward = partial(own._fake_quantize_learnable_per_tensor_affine_backward, grad, x, flat, whole, *ENDS, 1.0)
    else:
        forward = partial(torch.fake_quantize_per_channel_affine, x, flat, codes, 1, *ENDS)
        backward = partial(own._fake_quantize_learnable_per_channel_affine_backward, grad, x, flat, whole, 1, *ENDS, 1.0)
    return {
        "copy": x.clone,
        "forward": lambda: dispatch.quantized(x, scale, zero_point, INT8),
        "forward, plain": lambda: plain.quantized(x, scale, zero_point, INT8),
        "forward, PyTorch's own": forward,
        "backward": lambda: dispatch.gradients(grad, x, scale, zero_point, codes=INT8, wanted=ALL),
        "backward, plain": lambda: plain.gradients(grad, x, scale, zero_point, codes=INT8, wanted=ALL),
        "backward, PyTorch's own": backward,
    }


def steps(batch: int) -> dict[str, Work]:
    """Return what is timed of training."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "network.onnx"
        zp.torch.export(network().eval(), x[:2].contiguous(), path)
        prepared = zp.torch.prepare(path, x[:64].contiguous().numpy(), target="openvino", recipe=Recipe(effort="fast"))
    module, floats = prepared.train(), network().eval().to(memory_format=torch.channels_last)

    def step(trained: torch.nn.Module) -> None:
        trained.zero_grad()
        trained(x).square().mean().backward()

    def plain_step() -> None:
        with without_compiled():
            step(module)

    return {"float": lambda: step(floats), "compiled": lambda: step(module), "plain": plain_step}


def main() -> None:
    """Print two tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--runs", type=int, default=7)
    options = parser.parse_args()
    if not compiled.INSTALLED:
        parser.error("there are no compiled loops here: install zeropoint where there is a C compiler")
    x = torch.randn(64, 64, 64, 64)
    cases = {"one scale": torch.tensor([0.03]), "per channel": (torch.rand(64) * 0.02 + 0.01).view(1, 64, 1, 1)}
    print(f"{x.numel():,} floats, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    for case, scale in cases.items():
        found = medians(kernels(x, scale), options.runs)
        for name, seconds in found.items():
            print(f"{case:<12} {name:<24} {seconds / x.numel() * 1e9:6.2f} ns   x{seconds / found['copy']:.1f} of a copy", flush=True)
    found = medians(steps(options.batch), options.runs)
    for name, seconds in found.items():
        print(f"training step of {options.batch} images, {name:<9} {seconds:6.3f} s   x{seconds / found['float']:.2f} of float", flush=True)


if __name__ == "__main__":
    main()
