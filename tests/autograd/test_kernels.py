"""The kernels of fake quantization, against the plain ones and on any layout of memory."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from contextlib import suppress
from threading import Event, active_count, current_thread, main_thread
from types import SimpleNamespace
from typing import Any
from weakref import ReferenceType, ref

import numpy as np
import onnx
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch._subclasses import FakeTensorMode  # noqa: E402
from torch.fx.experimental.proxy_tensor import make_fx  # noqa: E402

from zeropoint.autograd.fake_quantize import fake_quantize  # noqa: E402
from zeropoint.autograd.kernels import compiled, dispatch, plain  # noqa: E402
from zeropoint.autograd.kernels.layout import Layout, alike, flat, layout, memory_order  # noqa: E402
from zeropoint.autograd.kernels.plain import Codes, Wanted  # noqa: E402

Tensor = Any
on_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
needs_compiler = pytest.mark.skipif(not compiled.INSTALLED, reason="no C compiler was there at installation")
FUSED = [pytest.param("cpu", marks=needs_compiler), pytest.param("cuda", marks=on_gpu)]
IMAGE = (2, 3, 4, 5)


@pytest.mark.parametrize(
    ("x", "scale", "expected"),
    [
        (torch.empty(IMAGE), (), Layout(1, 1, 120)),
        (torch.empty(IMAGE), (1, 1, 1, 1), Layout(1, 1, 120)),
        (torch.empty(IMAGE), (3, 1, 1), Layout(2, 3, 20)),
        (torch.empty(IMAGE), (2, 1, 1, 1), Layout(1, 2, 60)),
        (torch.empty(IMAGE), (2, 3, 1, 1), Layout(1, 6, 20)),
        (torch.empty(IMAGE), (5,), Layout(24, 5, 1)),
        (torch.empty(IMAGE), (2, 1, 4, 1), None),
        (torch.empty(IMAGE).to(memory_format=torch.channels_last), (3, 1, 1), Layout(40, 3, 1)),
        (torch.empty(IMAGE).to(memory_format=torch.channels_last), (5,), Layout(8, 5, 3)),
        (torch.empty(IMAGE).to(memory_format=torch.channels_last), (3, 1, 5), None),
        (torch.empty(4, 6).t(), (6, 1), Layout(4, 6, 1)),
        (torch.empty(4, 6)[:, ::2], (), None),
        (torch.empty(4, 1).expand(4, 6), (), None),
        (torch.empty(4, 1, 6), (4, 1, 1), Layout(1, 4, 6)),
        (torch.empty(9)[1:], (), Layout(1, 1, 8)),
        (torch.empty(()), (), Layout(1, 1, 1)),
    ],
    ids=lambda value: f"{tuple(value.shape)}, strides {value.stride()}" if isinstance(value, torch.Tensor) else str(value),
)
def test_layout_follows_memory(x: Tensor, scale: tuple[int, ...], expected: Layout | None) -> None:
    assert layout(x, scale) == expected


def test_flat_is_a_view_of_what_is_dense() -> None:
    x = torch.arange(120.0).view(IMAGE).permute(0, 2, 3, 1)
    assert memory_order(x) == (0, 3, 1, 2)
    assert flat(x).data_ptr() == x.data_ptr()
    assert flat(x).tolist() == list(range(120))
    assert sorted(flat(x[:, ::2]).tolist()) == sorted(x[:, ::2].flatten().tolist())


def test_alike_puts_elements_where_the_pattern_has_them() -> None:
    x, pattern = torch.randn(IMAGE), torch.empty(IMAGE).to(memory_format=torch.channels_last)
    moved = alike(x, pattern)
    assert moved.stride() == pattern.stride()
    assert torch.equal(moved, x)
    assert alike(x, x) is x


def test_the_path_that_runs_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert dispatch.paths("meta") == dispatch.Paths("plain", "plain")
    monkeypatch.setattr(compiled, "INSTALLED", True)
    assert dispatch.paths("cpu") == dispatch.Paths("native", "native")
    monkeypatch.setattr(compiled, "INSTALLED", False)
    assert dispatch.paths("cpu") == dispatch.Paths("plain", "native", (dispatch.NOT_COMPILED,))


@on_gpu
def test_gpu_has_its_kernels() -> None:
    assert dispatch.paths("cuda") == dispatch.Paths("triton", "cuda")


def drawn(shape: tuple[int, ...], scale_shape: tuple[int, ...], device: str = "cpu") -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return gradient, x, scale and zero point."""
    draw = torch.Generator().manual_seed(2)
    x, grad = (torch.randn(shape, generator=draw) for _ in range(2))
    scale, zero_point = torch.rand(scale_shape, generator=draw) / 5 + 0.01, torch.randint(-9, 9, scale_shape, generator=draw).float()
    return tuple(tensor.to(device) for tensor in (grad, x * 4, scale, zero_point))


@pytest.mark.parametrize("places", ["contiguous", "channels last", "strided"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("scale_shape", [(), (3, 1, 1), (33, 1, 1, 1), (33, 1, 5, 1), (70,)], ids=str)
@pytest.mark.parametrize("device", FUSED)
def test_fused_equals_plain(device: str, scale_shape: tuple[int, ...], dtype: Any, places: str) -> None:
    shape = (33, 3, 5, 140 if places == "strided" else 70)
    grad, x, scale, zero_point = drawn(shape, scale_shape, device)
    grad, x = grad.to(dtype), x.to(dtype)
    x = x.to(memory_format=torch.channels_last) if places == "channels last" else x[..., ::2] if places == "strided" else x
    grad, codes = grad[..., :70].contiguous(), Codes(-127, 127)
    assert torch.equal(dispatch.quantized(x, scale, zero_point, codes), plain.quantized(x, scale, zero_point, codes))
    compare(grad, x, scale, zero_point, codes)


def compare(grad: Tensor, x: Tensor, scale: Tensor, zero_point: Tensor, codes: Codes) -> None:
    ours, again, its = (
        kernel.gradients(grad, x, scale, zero_point, codes=codes, wanted=Wanted(scale=0.5)) for kernel in (dispatch, dispatch, plain)
    )
    assert torch.equal(ours.x, its.x)
    for mine, same, expected in ((ours.scale, again.scale, its.scale), (ours.zero_point, again.zero_point, its.zero_point)):
        assert torch.equal(mine, same)
        assert (mine.shape, mine.dtype) == (expected.shape, expected.dtype)
        torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@needs_compiler
@pytest.mark.parametrize(
    ("shape", "scale_shape"),
    [
        ((), ()),
        ((1,), ()),
        ((15,), ()),
        ((17,), ()),
        ((400_003,), ()),
        ((3, 100_001), (3, 1)),
        ((2, 3, 40_001), (3, 1)),
        ((40_001, 9), (9,)),
        ((9, 40_001), (40_001,)),
        ((3, 3, 7), (3, 3, 1)),
    ],
    ids=str,
)
def test_compiled_equals_plain_on_any_number_of_threads(shape: tuple[int, ...], scale_shape: tuple[int, ...]) -> None:
    grad, x, scale, zero_point = drawn(shape, scale_shape)
    codes, threads = Codes(-8, 7), torch.get_num_threads()
    expected, found = plain.quantized(x, scale, zero_point, codes), []
    assert dispatch._fused(x, scale, zero_point, codes)[0] is compiled
    try:
        for number in (1, 2, 5):
            torch.set_num_threads(number)
            assert torch.equal(dispatch.quantized(x, scale, zero_point, codes), expected)
            compare(grad, x, scale, zero_point, codes)
            found.append(dispatch.gradients(grad, x, scale, zero_point, codes=codes, wanted=Wanted()))
    finally:
        torch.set_num_threads(threads)
    for one, other in itertools.pairwise(found):
        assert torch.equal(one.scale, other.scale)
        assert torch.equal(one.zero_point, other.zero_point)


@needs_compiler
@pytest.mark.parametrize("codes", [Codes(-8, 7), Codes(0, 255), Codes(-32768, 32767)], ids=str)
@pytest.mark.parametrize("scale", [1.0, 0.0371, 1e-38, 3e38])
def test_compiled_equals_plain_on_any_float(scale: float, codes: Codes) -> None:
    patterns = np.random.default_rng(3).integers(0, 1 << 32, 200_000, dtype=np.uint32)
    with np.errstate(over="ignore"):
        halves = np.arange(-70_000, 70_000, dtype=np.float32) / 2 * np.float32(scale)
    edges = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 2.0**23, 2.0**23 - 0.5, -(2.0**22) - 0.5, 1e-45], np.float32)
    x = torch.from_numpy(np.concatenate([patterns.view(np.float32), halves, edges]))
    numbers, grad = (torch.tensor(scale), torch.tensor(2.0)), torch.ones_like(x)
    ours, its = (kernel.quantized(x, *numbers, codes).numpy() for kernel in (dispatch, plain))
    known = ~np.isnan(its)
    assert np.array_equal(np.isnan(ours), ~known)
    assert np.array_equal(ours[known].view(np.int32), its[known].view(np.int32))
    mine, expected = (kernel.gradients(grad, x, *numbers, codes=codes, wanted=Wanted()).x for kernel in (dispatch, plain))
    assert torch.equal(mine, expected)


@pytest.mark.parametrize("wanted", [Wanted(x=False), Wanted(scale=None), Wanted(zero_point=None)], ids=str)
@pytest.mark.parametrize("device", FUSED)
def test_fused_kernels_give_what_is_wanted(device: str, wanted: Wanted) -> None:
    grad, x, scale, zero_point = drawn((5, 4), (4,), device)
    ours, its = (kernel.gradients(grad, x, scale, zero_point, codes=Codes(-8, 7), wanted=wanted) for kernel in (dispatch, plain))
    for mine, expected in ((ours.x, its.x), (ours.scale, its.scale), (ours.zero_point, its.zero_point)):
        assert (mine is None) == (expected is None)
        if mine is not None:
            torch.testing.assert_close(mine, expected)


def test_where_there_are_no_numbers_the_plain_kernels_are_traced() -> None:
    def total(x: Tensor) -> Tensor:
        return fake_quantize(x, torch.tensor(0.1), torch.tensor(0.0), qmin=-8, qmax=7).sum()

    with FakeTensorMode():
        assert total(torch.randn(4, 5)).shape == ()
    x = torch.randn(4, 5)
    assert torch.equal(torch.compile(total, backend="eager", fullgraph=True)(x), total(x))
    assert torch.equal(make_fx(total)(torch.randn(4, 5))(x), total(x))
    jacobian = torch.autograd.functional.jacobian(total, x, vectorize=True)
    assert torch.equal(jacobian, torch.autograd.functional.jacobian(total, x))


@pytest.mark.filterwarnings("ignore")
def test_the_older_exporter_of_pytorch_records_what_is_computed() -> None:
    class Rounds(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return fake_quantize(x, torch.tensor(0.1), torch.tensor(0.0), qmin=-8, qmax=7)

    file = io.BytesIO()
    torch.onnx.export(Rounds(), (torch.randn(4, 5),), file, dynamo=False)
    operators = {node.op_type for node in onnx.load_from_string(file.getvalue()).graph.node}
    assert {"Div", "Round", "Clip", "Mul"} <= operators


@pytest.mark.parametrize("device", FUSED)
def test_a_sign_that_is_put_off_counts(device: str) -> None:
    x = torch.complex(torch.ones(1), torch.full((1,), 0.5)).to(device).conj().imag
    assert x.is_neg()
    assert fake_quantize(x, torch.tensor(0.5, device=device), torch.tensor(0.0, device=device), qmin=-8, qmax=7).item() == -0.5


@needs_compiler
def test_where_no_thread_is_to_be_had_the_caller_does_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(process: int, threads: int) -> None:
        raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(compiled, "_pool", refused)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        grad, x, scale, zero_point = drawn((3, 100_001), (3, 1))
        assert torch.equal(dispatch.quantized(x, scale, zero_point, Codes(-8, 7)), plain.quantized(x, scale, zero_point, Codes(-8, 7)))
        compare(grad, x, scale, zero_point, Codes(-8, 7))
    finally:
        torch.set_num_threads(threads)


@needs_compiler
def test_tensors_of_all_sizes_share_threads() -> None:
    before, threads = active_count(), torch.get_num_threads()
    try:
        torch.set_num_threads(7)
        for parts in range(1, 9):
            _, x, scale, zero_point = drawn((parts << 16,), ())
            dispatch.quantized(x, scale, zero_point, Codes(-8, 7))
    finally:
        torch.set_num_threads(threads)
    assert active_count() <= before + 6


def test_threads_hold_what_they_write_to_when_the_wait_for_them_is_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    release, made, threads, empty_like = Event(), list[ReferenceType[Tensor]](), torch.get_num_threads(), torch.empty_like

    def work(*_: object) -> None:
        if current_thread() is main_thread():
            raise KeyboardInterrupt
        release.wait(10)

    def seen(x: Tensor) -> Tensor:
        out = empty_like(x)
        made.append(ref(out))
        return out

    monkeypatch.setattr(compiled, "library", SimpleNamespace(zeropoint_quantize_rows=work))
    monkeypatch.setattr(torch, "empty_like", seen)
    try:
        torch.set_num_threads(2)
        _, x, scale, zero_point = drawn((1 << 18,), ())
        with suppress(KeyboardInterrupt):
            compiled.quantized(x, scale, zero_point, codes=Codes(-8, 7), places=Layout(1, 1, 1 << 18))
        assert made[0]() is not None
    finally:
        release.set()
        torch.set_num_threads(threads)


FORKED = """
import os, torch
from zeropoint.autograd.fake_quantize import fake_quantize

x, scale, zero_point = torch.ones(1 << 20), torch.tensor(0.1), torch.tensor(0.0)
torch.set_num_threads(4)
for _ in range(50):  # until all threads are there
    fake_quantize(x, scale, zero_point, qmin=-8, qmax=7)
child = os.fork()
if child == 0:  # where PyTorch's own threads are not either
    fake_quantize(x, scale, zero_point, qmin=-8, qmax=7)
    os._exit(0)
raise SystemExit(os.waitpid(child, 0)[1])
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_has_threads_of_its_own() -> None:
    assert subprocess.run([sys.executable, "-c", FORKED], timeout=60, check=False).returncode == 0
