"""Which kernel runs: a fused one where the device has it and it was seen to work there, plain PyTorch otherwise, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import torch

from zeropoint.autograd.kernels import compiled, counting, fused, plain
from zeropoint.autograd.kernels.layout import Layout, flat, layout
from zeropoint.autograd.kernels.plain import Codes, Gradients, Wanted
from zeropoint.notes import Note

Tensor = Any  # of PyTorch, which has no types here
NOT_COMPILED = Note("cpu", "fake quantization runs in plain PyTorch: no C compiler was there when zeropoint was installed", "run")
ORDINARY = (torch.Tensor, torch.nn.Parameter)
FLOATS = frozenset({torch.float32, torch.float16, torch.bfloat16})


@dataclass(frozen=True, slots=True)
class Paths:
    """What runs on a device, and why where it is not the quickest. What is native needs a C compiler at installation, and float32."""

    fake_quantize: Literal["native", "triton", "plain"]
    observation: Literal["native", "cuda", "plain"]
    notes: tuple[Note, ...] = ()


def paths(device: Any) -> Paths:
    """Say what runs on `device`, a torch.device or its name; the first call for a GPU compiles its kernels and tries them.

    Example:
        >>> paths("cpu").fake_quantize, paths("cpu").observation
        ('native', 'native')
    """
    place = torch.device(device)
    if place.type == "cpu":
        return Paths("native", "native") if compiled.INSTALLED else Paths("plain", "native", (NOT_COMPILED,))
    if place.type != "cuda":
        return Paths("plain", "plain")
    index = torch.cuda.current_device() if place.index is None else place.index
    found = {"fake quantization": _why_no_triton(index), "observation": _why_no_counting(index)}
    notes = tuple(Note(f"cuda:{index}", f"{what} runs in plain PyTorch: {why}", "run") for what, why in found.items() if why)
    return Paths("plain" if found["fake quantization"] else "triton", "plain" if found["observation"] else "cuda", notes)


def quantized(x: Tensor, scale: Tensor, zero_point: Tensor, codes: Codes) -> Tensor:
    """Return what `x` is once quantized and dequantized, in its dtype; scale and zero point broadcast against it."""
    kernels, places = _fused(x, scale, zero_point, codes)
    if kernels is None:
        return plain.quantized(x, scale, zero_point, codes)
    return kernels.quantized(x, scale, zero_point, codes=codes, places=places)


def gradients(grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, *, codes: Codes, wanted: Wanted) -> Gradients:
    """Return the gradients by straight-through estimation (x), LSQ (scale) and LSQ+ (zero point)."""
    kernels, places = _fused(x, scale, zero_point, codes)
    if kernels is None or not _are_memory(grad):
        return plain.gradients(grad, x, scale, zero_point, codes=codes, wanted=wanted)
    found: Gradients = kernels.gradients(grad, x, scale, zero_point, codes=codes, places=places, wanted=wanted)
    return found


def observe(x: Tensor, counts: Tensor, bounds: Tensor, others: Tensor) -> None:
    """Add the elements of `x`, of a float dtype and any shape, to the tally on its device; `plain.observe` says what that is."""
    kernel = counting.observe if x.is_cuda and not _why_no_counting(x.device.index) else plain.observe
    kernel(flat(x), counts, bounds, others)


def _fused(x: Tensor, scale: Tensor, zero_point: Tensor, codes: Codes) -> tuple[Any, Layout | None]:
    """Return the module whose kernels take these tensors, and how they lie in memory; None where there is none."""
    fits = scale.dtype == zero_point.dtype == torch.float32 and scale.shape == zero_point.shape and codes.fit_float32
    kernels: Any = None
    if fits and x.numel() > 0 and _are_memory(x, scale, zero_point):
        if x.is_cuda and x.dtype in FLOATS and x.numel() <= fused.MOST_ELEMENTS and not _why_no_triton(x.device.index):
            kernels = fused
        elif x.device.type == "cpu" and x.dtype == torch.float32 and compiled.INSTALLED:
            kernels = compiled
    places = None if kernels is None else layout(x, scale.shape)
    return (None, None) if places is None else (kernels, places)


def _are_memory(*tensors: Tensor) -> bool:
    """Say whether a kernel may read where tensors point to: not where PyTorch traces, compiles, vectorizes, or puts off a sign."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or torch._C._len_torch_dispatch_stack():
        return False
    stored = torch._C._has_storage
    return all(type(tensor) in ORDINARY and stored(tensor) and not tensor.is_neg() for tensor in tensors)


@cache
def _why_no_triton(device: int) -> str | None:
    """Try the kernels on a few numbers: Triton may be missing, or lack a compiler for the host, or not know the device."""
    if not fused.INSTALLED:
        return "Triton is not installed"

    def differs() -> bool:
        codes, x = Codes(-128, 127), torch.linspace(-3.0, 3.0, 4096, device=f"cuda:{device}")
        scale, zero_point = torch.full((), 0.017, device=x.device), torch.full((), 3.0, device=x.device)
        places = layout(x, ())
        assert places is not None
        ours = fused.quantized(x, scale, zero_point, codes=codes, places=places)
        fused.gradients(x, x, scale, zero_point, codes=codes, places=places, wanted=Wanted())
        return not torch.equal(ours, plain.quantized(x, scale, zero_point, codes))

    return _failure(differs)


@cache
def _why_no_counting(device: int) -> str | None:
    """Try the kernel on a few numbers: the compiler may be missing, or not know the device."""
    if torch.version.cuda is None:
        return "PyTorch was not built for CUDA"

    def differs() -> bool:
        x = torch.linspace(-3.0, 3.0, 4097, device=f"cuda:{device}")
        ours, its = no_tally(x.device), no_tally(x.device)
        counting.observe(x, *ours)
        plain.observe(x, *its)
        return not all(map(torch.equal, ours, its))

    return _failure(differs)


def no_tally(device: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return the counts, bounds and others of no elements, to add to with `observe`."""
    with torch.inference_mode(mode=False):  # or they could not be added to outside of it
        counts = torch.zeros(plain.KEYS, dtype=torch.int64, device=device)
        return counts, plain.no_bounds(device), torch.zeros(2, dtype=torch.int64, device=device)


def _failure(differs: Callable[[], bool]) -> str | None:
    try:
        with torch.no_grad():
            return "the kernel's results differ from PyTorch's own" if differs() else None
    except Exception as error:  # what a missing compiler, library or architecture raises is of many types
        return " ".join(str(error).split())[:300] or type(error).__name__
