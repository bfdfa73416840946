"""NVIDIA GPUs on this machine, as NVML or nvidia-smi tell of them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

ASKED = ("nvidia-smi", "--query-gpu=name,memory.total,driver_version,compute_cap", "--format=csv,noheader,nounits")
SMI_SECONDS = 10
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its memory in bytes, the version of its driver, and its compute capability as "8.9"; "" for what is not told."""

    name: str
    memory_bytes: int
    driver: str
    compute_capability: str


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that were found, by what; `reason` says why there are none."""

    found: tuple[Gpu, ...]
    by: str
    reason: str = ""


def find_gpus() -> Gpus:
    """Return the NVIDIA GPUs: from NVML where nvidia-ml-py is installed, otherwise from nvidia-smi."""
    reasons = []
    ways: tuple[tuple[str, Callable[[], tuple[Gpu, ...]]], ...] = (("NVML", _from_nvml), ("nvidia-smi", _from_smi))
    for by, ask in ways:
        try:
            return Gpus(ask(), by)
        except (ImportError, OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            reasons.append(f"{by}: {_said(error)}")
    return Gpus((), "", "; ".join(reasons))


def parse_smi(text: str) -> tuple[Gpu, ...]:
    """Return the GPUs in what nvidia-smi prints, a line each.

    Raises:
        ValueError: a line is no list of name, memory in MiB, driver and compute capability.
    """
    rows = [[cell.strip() for cell in line.rsplit(",", 3)] for line in text.splitlines() if line.strip()]
    if any(len(row) != 4 for row in rows):
        raise ValueError(f"found {text.strip()[:200]!r}, expected lines of four fields")
    return tuple(Gpu(name, _bytes(memory), driver, capability) for name, memory, driver, capability in rows)


def _bytes(mebibytes: str) -> int:
    return int(mebibytes) * MEBIBYTE if mebibytes.isdigit() else 0  # "[N/A]" where GPU and processor share their memory


def _from_smi() -> tuple[Gpu, ...]:
    return parse_smi(subprocess.run(ASKED, capture_output=True, text=True, timeout=SMI_SECONDS, check=True).stdout)


def _from_nvml() -> tuple[Gpu, ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise RuntimeError(str(error)) from None
    try:
        return tuple(_device(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount()))
    except pynvml.NVMLError as error:
        raise RuntimeError(str(error)) from None
    finally:
        pynvml.nvmlShutdown()


def _device(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = nvml.nvmlDeviceGetCudaComputeCapability(handle)
    memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
    return Gpu(str(nvml.nvmlDeviceGetName(handle)), memory, str(nvml.nvmlSystemGetDriverVersion()), f"{major}.{minor}")


def _said(error: Exception) -> str:
    if isinstance(error, ImportError):
        return "not installed (nvidia-ml-py)"
    return "not found" if isinstance(error, FileNotFoundError) else str(error).splitlines()[0] if str(error) else type(error).__name__
