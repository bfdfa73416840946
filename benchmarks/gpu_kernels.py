"""Check and time the GPU kernels of calibration and fake quantization: `PYTHONPATH=src python benchmarks/gpu_kernels.py [--check]`.

The checks draw fresh inputs with values that break careless kernels, and compare with PyTorch's own operators on the GPU, with numpy, and
in float64. The times are medians between CUDA events, over several input buffers in turn, of zeropoint's kernels and of PyTorch's own in
the same run; bytes are those that must move: each input read once, each output written once.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from zeropoint.autograd.fake_quantize import fake_quantize
from zeropoint.autograd.kernels import dispatch, plain
from zeropoint.autograd.kernels.layout import layout
from zeropoint.autograd.kernels.plain import Codes, Wanted
from zeropoint.autograd.observing import TensorObservation
from zeropoint.numerics.affine import QParams, dequantize_array, quantize_array
from zeropoint.numerics.formats import FORMATS
from zeropoint.numerics.spec import PerChannel, PerTensor
from zeropoint.statistics.tensor import observe

GPU = torch.device("cuda")
ELEMENTS = 100_000_000
BUFFERS, WARM_UPS, RUNS = 3, 5, 40
INT8, ALL = Codes(-128, 127), Wanted()
NASTY = [0.0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39, 2.0**-133, 1.5, 2.5, -0.5, 127.5, -128.5, 3e38, -3e38, np.inf, -np.inf, np.nan, -np.nan]
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...], str]] = [
    ((100_003,), (), "flat"),
    ((16, 24, 31, 31), (24, 1, 1), "contiguous"),
    ((16, 24, 31, 31), (24, 1, 1), "channels last"),
    ((16, 24, 31, 31), (), "channels last"),
    ((64, 48, 3, 3), (64, 1, 1, 1), "contiguous"),
    ((64, 48, 3, 3), (48, 1, 1), "channels last"),
    ((64, 1, 3, 3), (64, 1, 1, 1), "contiguous"),
    ((1000, 333), (333,), "contiguous"),
    ((1000, 333), (1000, 1), "transposed"),
    ((1000, 333), (333,), "unaligned"),
    ((40, 6, 32), (40, 6, 1), "contiguous"),
    ((7, 5, 9), (7, 1, 9), "apart"),
]


def nasty(shape: tuple[int, ...], kind: str, dtype: torch.dtype, *, finite: bool = False) -> torch.Tensor:
    """Return normal values of many sizes with all of NASTY among them, in the memory order that `kind` names."""
    x = torch.randn(shape, device=GPU) * torch.exp(3 * torch.randn(shape, device=GPU))
    places = torch.randint(x.numel(), (20 * len(NASTY),), device=GPU)
    x.view(-1)[places] = torch.tensor(NASTY * 20, dtype=torch.float32, device=GPU)
    if finite:
        x = torch.where(x.isfinite() & (x.abs() < 1e4), x, 1.0)
    x = x.to(dtype)
    if kind == "channels last":
        return x.contiguous(memory_format=torch.channels_last)
    if kind == "transposed":
        return x.t().contiguous().t()
    if kind == "unaligned":
        return torch.cat([x.new_zeros(1), x.view(-1)])[1:].view(shape)
    return x


def same_bits(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Whether all are equal, the signs of zeros too; any NaN is as good as another."""
    whole = {torch.float32: torch.int32, torch.float16: torch.int16, torch.bfloat16: torch.int16}[a.dtype]
    return bool(((a.contiguous().view(whole) == b.contiguous().view(whole)) | (a.isnan() & b.isnan())).all()) and a.stride() == b.stride()


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """The norm of the difference over that of `b`."""
    return float((a.double() - b.double()).norm() / b.double().norm().clamp(min=1e-300))


def check_fake_quantize() -> None:
    """Raise AssertionError where the fused kernels differ from the plain ones, from numpy, from float64 or from themselves."""
    for (shape, scale_shape, kind), dtype in itertools.product(SHAPES, (torch.float32, torch.bfloat16, torch.float16)):
        what = f"{shape} {scale_shape} {kind} {dtype}"
        scale = torch.rand(scale_shape, device=GPU) * 0.3 + 0.003
        zero_point = torch.randint(-30, 30, scale_shape, device=GPU).float() + 0.25
        x = nasty(shape, kind, dtype)
        if kind != "apart":
            assert layout(x, scale_shape) is not None, what
        ours = fake_quantize(x, scale, zero_point, qmin=-128, qmax=127)
        assert same_bits(ours, plain.quantized(x, scale, zero_point, INT8)), f"forward: {what}"
        if dtype == torch.float32:
            check_numpy(x, scale, zero_point, ours, what=what)
        x, grad = nasty(shape, kind, dtype, finite=True), torch.randn(shape, device=GPU).to(dtype)
        first, again = (dispatch.gradients(grad, x, scale, zero_point, codes=INT8, wanted=ALL) for _ in range(2))
        its = plain.gradients(grad, x, scale, zero_point, codes=INT8, wanted=ALL)
        assert same_bits(first.x, its.x), f"gradient of x: {what}"
        assert torch.equal(first.scale, again.scale) and torch.equal(first.zero_point, again.zero_point), f"runs differ: {what}"
        exact = exact_sums(grad, x, scale, zero_point)
        for name, mine, true in zip(("scale", "zero point"), (first.scale, first.zero_point), exact, strict=True):
            assert mine.shape == scale.shape and relative(mine, true) < 1e-5, f"gradient of {name}: {what}: {relative(mine, true)}"


def check_numpy(x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor, ours: torch.Tensor, *, what: str) -> None:
    """Compare with the definition, in numpy, where one of its granularities says the same."""
    own = [axis for axis, size in enumerate(scale.shape) if size > 1]
    if len(own) > 1:
        return
    granularity = PerChannel(own[0] - scale.dim()) if own else PerTensor()
    flat = (-1,) if own else ()
    codes = zero_point.round().cpu().numpy().astype(np.int8).reshape(flat)
    qparams = QParams(scale.cpu().numpy().reshape(flat), codes, FORMATS["int8"], granularity)
    numbers = x.nan_to_num(nan=1.0, posinf=torch.inf, neginf=-torch.inf).cpu().numpy()
    true = dequantize_array(quantize_array(numbers, qparams), qparams)
    equal = (true.view(np.int32) == ours.cpu().contiguous().numpy().view(np.int32)) | x.isnan().cpu().numpy()
    assert equal.all(), f"forward against numpy: {what}"


def exact_sums(grad: torch.Tensor, x: torch.Tensor, scale: torch.Tensor, zero_point: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the gradients of scale and zero point with float64 sums, where the terms are those of float32."""
    x32, whole = x.float(), zero_point.round()
    ratio = x32 / scale
    code = ratio.round() + whole
    slope = torch.where(code < -128, -128 - whole, torch.where(code > 127, 127 - whole, ratio.round() - ratio))
    clipped = (code < -128) | (code > 127)
    wide = grad.double()
    return (wide * slope).sum_to_size(scale.shape), (wide * clipped * -scale).sum_to_size(scale.shape)


def check_observation() -> None:
    """Raise AssertionError where the statistic of a GPU differs from that of numpy in any bit."""
    cases = [(shape, kind) for shape, _, kind in SHAPES] + [((n,), "flat") for n in (1, 3, 31, 4096, 1_000_001)]
    for (shape, kind), dtype in itertools.product(cases, (torch.float32, torch.bfloat16, torch.float16, torch.float64)):
        parts = [nasty(shape, kind, dtype), nasty(shape, kind, dtype).relu(), nasty(shape, kind, dtype, finite=True) * 1e-20]
        parts += [torch.full(shape, value, dtype=dtype, device=GPU) for value in (6.0, 1e-30, -0.0)]
        every = TensorObservation(GPU)
        for part in parts:
            every.add(part)
            one = TensorObservation(GPU)
            one.add(part)
            assert one.statistic().equals(observe(part.double().cpu().numpy())), f"observation: {shape} {kind} {dtype}"
        whole = np.concatenate([part.double().cpu().numpy().ravel() for part in parts])
        assert every.statistic().equals(observe(whole)), f"observation of several: {shape} {kind} {dtype}"


@dataclass(frozen=True)
class Timed:
    """What one call took, of PyTorch's or zeropoint's."""

    name: str
    bytes: int
    milliseconds: float

    @property
    def rate(self) -> float:
        """TB/s."""
        return self.bytes / self.milliseconds * 1e-9


def timed(name: str, each: int, call: Callable[[torch.Tensor], Any], inputs: Sequence[torch.Tensor]) -> Timed:
    """Return the median time of `call`, which moves `each` bytes for an element of its input."""
    turns = itertools.cycle(inputs)
    for _ in range(WARM_UPS):
        call(next(turns))
    torch.cuda.synchronize()
    events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(RUNS)]
    for start, end in events:
        start.record()
        call(next(turns))
        end.record()
    torch.cuda.synchronize()
    return Timed(name, each * inputs[0].numel(), statistics.median(start.elapsed_time(end) for start, end in events))


def time_observation(normal: Sequence[torch.Tensor]) -> Iterator[Timed]:
    """Yield the times of all that reads a tensor."""
    tally = dispatch.no_tally(GPU)
    relu, half = [x.relu() for x in normal], [x.bfloat16() for x in normal]
    uniform = [torch.rand_like(x) for x in normal]
    steps = [torch.randint(0, 256, x.shape, device=GPU) / 255 for x in normal[:1]]
    yield timed("zeropoint observe, normal", 4, lambda x: dispatch.observe(x, *tally), normal)
    yield timed("zeropoint observe, normal again", 4, lambda x: dispatch.observe(x, *tally), normal)
    yield timed("zeropoint observe, ReLU of normal", 4, lambda x: dispatch.observe(x, *tally), relu)
    yield timed("zeropoint observe, uniform", 4, lambda x: dispatch.observe(x, *tally), uniform)
    yield timed("zeropoint observe, 256 values", 4, lambda x: dispatch.observe(x, *tally), steps)
    yield timed("zeropoint observe, one value", 4, lambda x: dispatch.observe(x, *tally), [torch.ones_like(normal[0])])
    yield timed("zeropoint observe, all below 2**-64", 4, lambda x: dispatch.observe(x, *tally), [normal[0] * 1e-25])
    masked = torch.where(normal[0] < 0, torch.finfo(torch.float32).min, normal[0])
    yield timed("zeropoint observe, half a mask's lowest float", 4, lambda x: dispatch.observe(x, *tally), [masked])
    far = torch.where(normal[1] < 0, normal[0] * 1e-33, normal[0])
    yield timed("zeropoint observe, half 110 octaves below", 4, lambda x: dispatch.observe(x, *tally), [far])
    yield timed("zeropoint observe, bfloat16 normal", 2, lambda x: dispatch.observe(x, *tally), half)
    yield timed("plain observe, normal", 4, lambda x: plain.observe(x, *tally), [normal[0][: ELEMENTS // 10]])
    yield timed("torch.aminmax", 4, torch.aminmax, normal)
    yield timed("torch.histc, 2048 bins", 4, lambda x: torch.histc(x, 2048, -6, 6), normal)


def time_fake_quantize(normal: Sequence[torch.Tensor]) -> Iterator[Timed]:
    """Yield the times of all that quantizes a tensor and passes gradients back."""
    scale, zero_point = torch.tensor(0.03, device=GPU), torch.tensor(3.0, device=GPU)
    whole, codes = zero_point.int(), (-128, 127)
    half = [x.bfloat16() for x in normal]
    yield timed("zeropoint forward", 8, lambda x: dispatch.quantized(x, scale, zero_point, INT8), normal)
    yield timed(
        "torch.fake_quantize_per_tensor_affine", 8, lambda x: torch.fake_quantize_per_tensor_affine(x, scale, whole, *codes), normal
    )
    yield timed("zeropoint forward, bfloat16", 4, lambda x: dispatch.quantized(x, scale, zero_point, INT8), half)
    yield timed("plain forward", 8, lambda x: plain.quantized(x, scale, zero_point, INT8), normal)
    grad = torch.randn_like(normal[0])

    def backward(wanted: Wanted) -> Callable[[torch.Tensor], Any]:
        return lambda x: dispatch.gradients(grad, x, scale, zero_point, codes=INT8, wanted=wanted)

    def theirs(x: torch.Tensor) -> Any:
        return torch.ops.aten._fake_quantize_learnable_per_tensor_affine_backward(grad, x, scale.view(1), zero_point.view(1), *codes, 1.0)

    yield timed("zeropoint backward, x", 12, backward(Wanted(scale=None, zero_point=None)), normal)
    yield timed("zeropoint backward, x and scale", 12, backward(Wanted(zero_point=None)), normal)
    yield timed("zeropoint backward, all three", 12, backward(ALL), normal)
    yield timed("torch's learnable backward, all three", 12, theirs, normal)
    yield timed("plain backward, all three", 12, lambda x: plain.gradients(grad, x, scale, zero_point, codes=INT8, wanted=ALL), normal)


def time_channels(normal: Sequence[torch.Tensor]) -> Iterator[Timed]:
    """Yield the same with a scale for each of 256 channels."""
    shape = (32, 256, 110, 110)
    images = [x[: 32 * 256 * 110 * 110].view(shape) for x in normal]
    last = [x.contiguous(memory_format=torch.channels_last) for x in images]
    scale, zero_point = torch.rand(256, 1, 1, device=GPU) * 0.02 + 0.01, torch.zeros(256, 1, 1, device=GPU)
    flat = scale.flatten(), zero_point.flatten().int(), 1, -128, 127
    for name, inputs in (("", images), (", channels last", last)):
        grad = torch.randn_like(inputs[0])

        def backward(x: torch.Tensor, grad: torch.Tensor = grad) -> Any:
            return dispatch.gradients(grad, x, scale, zero_point, codes=INT8, wanted=Wanted(zero_point=None))

        yield timed(f"zeropoint forward per channel{name}", 8, lambda x: dispatch.quantized(x, scale, zero_point, INT8), inputs)
        yield timed(f"torch.fake_quantize_per_channel_affine{name}", 8, lambda x: torch.fake_quantize_per_channel_affine(x, *flat), inputs)
        yield timed(f"zeropoint backward per channel{name}", 12, backward, inputs)


def host_microseconds(call: Callable[[], Any]) -> float:
    """Return what one of many calls takes the host, whose kernels are too short to be waited for."""
    for _ in range(20):
        call()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(500):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / 500 * 1e6


def print_small() -> None:
    """Print what calls cost whose tensors are small."""
    x = torch.randn(4096, device=GPU)
    scale, zero_point, tally = torch.tensor(0.03, device=GPU), torch.tensor(3.0, device=GPU), dispatch.no_tally(GPU)
    calls = {
        "zeropoint forward": lambda: dispatch.quantized(x, scale, zero_point, INT8),
        "torch.fake_quantize_per_tensor_affine": lambda: torch.fake_quantize_per_tensor_affine(x, scale, zero_point.int(), -128, 127),
        "zeropoint backward": lambda: dispatch.gradients(x, x, scale, zero_point, codes=INT8, wanted=ALL),
        "zeropoint observe": lambda: dispatch.observe(x, *tally),
        "torch.aminmax": lambda: torch.aminmax(x),
    }
    print("\n4,096 elements, microseconds a call:", ", ".join(f"{name} {host_microseconds(call):.0f}" for name, call in calls.items()))


def main() -> None:
    """Check, time, and print one table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="check only")
    arguments = parser.parse_args()
    begun = time.perf_counter()
    print(torch.cuda.get_device_name(), "torch", torch.__version__, dispatch.paths(GPU), flush=True)
    check_observation()
    print(f"observation: equal to numpy, bit for bit ({time.perf_counter() - begun:.0f} s)", flush=True)
    check_fake_quantize()
    print(f"fake quantization: forward equal bit for bit, gradients to 1e-5 ({time.perf_counter() - begun:.0f} s)", flush=True)
    if arguments.check:
        return
    normal = [torch.randn(ELEMENTS, device=GPU) for _ in range(BUFFERS)]
    out = torch.empty_like(normal[0])
    ceiling = timed("copy", 8, out.copy_, normal)
    del out
    print(f"\n{'':55}{'ms':>8}{'TB/s':>8}{'of copy':>9}")
    for row in itertools.chain([ceiling], time_observation(normal), time_fake_quantize(normal), time_channels(normal)):
        print(f"{row.name:55}{row.milliseconds:8.3f}{row.rate:8.2f}{row.rate / ceiling.rate:9.2f}", flush=True)
    print_small()


if __name__ == "__main__":
    main()
