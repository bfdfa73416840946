"""Energy counters of the machine: of processors through Linux's powercap, of NVIDIA GPUs through NVML. Owns pynvml."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from zeropoint.runtime.onnxruntime import CPU

POWERCAP = Path("/sys/class/powercap")
PACKAGE = re.compile(r"intel-rapl:\d+")  # AMD's too; with one more number it is a part of a package, which that counts already
Reading = tuple[int, ...]


class Meter(Protocol):
    """Counters of energy that only go up, but for where they begin anew.

    What the whole chip takes is counted, also for other programs and when it is idle: nothing is subtracted, for what idling takes depends
    on what the machine did just before. To compare two networks, run them on a machine that does nothing else.
    """

    @property
    def source(self) -> str:
        """What is counted, in words."""

    def read(self) -> Reading:
        """Return what the counters stand at."""

    def joules(self, before: Reading, after: Reading) -> float:
        """Return the energy between two readings, in joules."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One processor package: the file of its counter, in microjoules, and how high it counts before it begins at 0."""

    counter: Path
    range_uj: int


@dataclass(frozen=True, slots=True)
class PackageMeter:
    """The processor packages of this machine, without what its memory takes."""

    domains: tuple[Domain, ...]

    @property
    def source(self) -> str:
        """What is counted, in words."""
        return f"processor packages ({len(self.domains)}), by powercap"

    def read(self) -> Reading:
        """Return what the counters stand at, in microjoules."""
        return tuple(_number(domain.counter) for domain in self.domains)

    def joules(self, before: Reading, after: Reading) -> float:
        """Return the energy between two readings, between which each counter began anew once at most: it takes minutes to go round."""
        spent = 0
        for domain, first, last in zip(self.domains, before, after, strict=True):
            spent += last - first if last >= first else last + domain.range_uj - first
        return spent * 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class GpuMeter:
    """The one NVIDIA GPU of this machine, with its memory."""

    nvml: Any
    handle: Any
    name: str

    @property
    def source(self) -> str:
        """What is counted, in words."""
        return f"{self.name}, by NVML"

    def read(self) -> Reading:
        """Return what the counter stands at, in millijoules since the driver was loaded."""
        return (int(self.nvml.nvmlDeviceGetTotalEnergyConsumption(self.handle)),)

    def joules(self, before: Reading, after: Reading) -> float:
        """Return the energy between two readings."""
        return (after[0] - before[0]) * 1e-3


def open_meter(provider: str = CPU, *, powercap: Path = POWERCAP) -> Meter | str:
    """Return what counts the energy of the device that an execution provider of ONNX Runtime runs on, or why nothing does."""
    return _open_packages(powercap) if provider == CPU else _open_gpu()


def _open_packages(powercap: Path) -> Meter | str:
    if sys.platform != "linux":
        return f"not measurable here: the counters of processors are read through Linux's powercap, and this is {sys.platform}"
    if not powercap.is_dir():
        return f"not measurable here: there is no {powercap} (a virtual machine or a container, or the module intel_rapl is not loaded)"
    packages = sorted(path for path in powercap.iterdir() if PACKAGE.fullmatch(path.name))
    try:
        packages = [path for path in packages if (path / "name").read_text(encoding="utf-8").startswith("package")]  # psys is no package
        if not packages:
            return f"not measurable here: {powercap} has no counter of a processor package"
        meter = PackageMeter(tuple(Domain(path / "energy_uj", _number(path / "max_energy_range_uj")) for path in packages))
        meter.read()
    except PermissionError as error:
        return f"not measurable here: {error.filename} may not be read by this user; as root: chmod a+r {powercap}/intel-rapl:*/energy_uj"
    except (OSError, ValueError) as error:
        return f"not measurable here: the counters in {powercap} cannot be read ({error})"
    return meter


def _open_gpu() -> Meter | str:
    try:
        import pynvml
    except ImportError:
        return "not measurable here: nvidia-ml-py is not installed; pip install zeropoint[nvidia]"
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        if count != 1:  # which of them CUDA takes, it does not tell in NVML's numbers
            return f"not measurable here: {count} GPUs, of which the one that runs is not known"
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        name = pynvml.nvmlDeviceGetName(handle)
        meter = GpuMeter(pynvml, handle, name.decode() if isinstance(name, bytes) else str(name))
        meter.read()
    except pynvml.NVMLError as error:
        return f"not measurable here: NVML says {error}"
    return meter


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
