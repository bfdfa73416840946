"""Compile CUDA C++ at run time, by the library that comes with PyTorch, and launch it: no compiler and no CUDA toolkit need be installed.

PyTorch's own `torch.cuda._compile_kernel` asks for the headers of a toolkit even where a kernel includes none, is private, and takes no
64-bit integer; the C interfaces below are NVIDIA's, and stable.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

Tensor = Any  # of PyTorch, which has no types here

MOST_SHARED_BYTES, SHARED_CARVEOUT = 8, 9  # the driver's numbers for two attributes of a function


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel on one device."""

    function: ctypes.c_void_p
    context: ctypes.c_void_p
    device: int
    shared_bytes: int

    def launch(self, blocks: int, threads: int, arguments: Sequence[Tensor | int]) -> None:
        """Launch it on the device's current stream; a tensor is passed as its address, an int with 64 bits."""
        values = [ctypes.c_int64(a) if isinstance(a, int) else ctypes.c_void_p(a.data_ptr()) for a in arguments]
        places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
        stream = torch.cuda.current_stream(self.device).cuda_stream
        driver = _driver()
        with torch.cuda.device(self.device):
            _check(driver.cuCtxSetCurrent(self.context))  # a thread that has not met the device yet has none
            _check(driver.cuLaunchKernel(self.function, blocks, 1, 1, threads, 1, 1, self.shared_bytes, stream, places, None))


def compile_kernels(source: str, names: Sequence[str], *, device: int, shared_bytes: int, defines: Mapping[str, int]) -> dict[str, Kernel]:
    """Compile `source` for the device of this index, and return its kernels, `extern "C"`, by name.

    shared_bytes: dynamic shared memory of a block. defines: macros.

    Raises:
        OSError: a library is missing.
        RuntimeError: the compiler or the driver refuses.
    """
    major, minor = torch.cuda.get_device_capability(device)
    options = [f"--gpu-architecture=sm_{major}{minor}", *(f"-D{name}={value}" for name, value in defines.items())]
    binary = _compiled(source, options)
    driver, module, context, handle = _driver(), ctypes.c_void_p(), ctypes.c_void_p(), ctypes.c_int()
    with torch.cuda.device(device):
        _check(driver.cuInit(0))
        _check(driver.cuDeviceGet(ctypes.byref(handle), device))
        _check(driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), handle))
        _check(driver.cuCtxSetCurrent(context))
        _check(driver.cuModuleLoadData(ctypes.byref(module), binary))
        kernels = {}
        for name in names:
            function = ctypes.c_void_p()
            _check(driver.cuModuleGetFunction(ctypes.byref(function), module, name.encode()))
            _check(driver.cuFuncSetAttribute(function, MOST_SHARED_BYTES, shared_bytes))
            _check(driver.cuFuncSetAttribute(function, SHARED_CARVEOUT, 100))
            kernels[name] = Kernel(function, context, device, shared_bytes)
    return kernels


def _compiled(source: str, options: Sequence[str]) -> bytes:
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    _check_nvrtc(nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None))
    try:
        texts = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        failed = nvrtc.nvrtcCompileProgram(program, len(options), texts)
        size = ctypes.c_size_t()
        if failed:
            _check_nvrtc(nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
            log = ctypes.create_string_buffer(size.value)
            _check_nvrtc(nvrtc.nvrtcGetProgramLog(program, log))
            raise RuntimeError(f"NVRTC: {log.value.decode(errors='replace')}")
        _check_nvrtc(nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)))
        binary = ctypes.create_string_buffer(size.value)
        _check_nvrtc(nvrtc.nvrtcGetCUBIN(program, binary))
        return binary.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


@cache
def _driver() -> ctypes.CDLL:
    driver = ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")
    driver.cuLaunchKernel.argtypes = [ctypes.c_void_p, *[ctypes.c_uint] * 7, *[ctypes.c_void_p] * 3]
    return driver


@cache
def _nvrtc() -> ctypes.CDLL:
    reasons = []
    for name in _nvrtc_names():
        try:
            return ctypes.CDLL(name)
        except OSError as error:
            reasons.append(str(error))
    raise OSError("NVRTC: " + "; ".join(reasons))


def _nvrtc_names() -> Iterator[str]:
    """Yield where the library may be: where the system looks, in PyTorch, and in NVIDIA's packages beside it."""
    major = str(torch.version.cuda).partition(".")[0]
    name = f"nvrtc64_{major}0_0.dll" if sys.platform == "win32" else f"libnvrtc.so.{major}"
    yield name
    packages = Path(torch.__file__).parents[1]
    for pattern in (f"torch/lib/{name}", f"nvidia/*/lib/{name}", f"nvidia/*/bin/{name}"):
        yield from map(str, sorted(packages.glob(pattern)))


def _check(status: int) -> None:
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"CUDA driver: error {status}: {(text.value or b'unknown').decode()}")


def _check_nvrtc(status: int) -> None:
    if status:
        _nvrtc().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise RuntimeError(f"NVRTC: error {status}: {(_nvrtc().nvrtcGetErrorString(status) or b'unknown').decode()}")
