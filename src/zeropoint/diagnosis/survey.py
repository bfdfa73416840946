"""What is on this machine: processor, memory, GPUs, packages. Nothing is imported to find a package but the runtimes that run here."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from zeropoint import native
from zeropoint.notes import Note
from zeropoint.release import own_version
from zeropoint.runtime import onnxruntime, openvino
from zeropoint.runtime.cpu import Cpu, read_cpu
from zeropoint.runtime.gpu import Gpus, find_gpus
from zeropoint.runtime.machine import available_bytes, cores, memory_bytes

# Of each runtime the distributions that bring it; the first one is the one to name where there is none.
DISTRIBUTIONS: Mapping[str, tuple[str, ...]] = {
    "onnxruntime": ("onnxruntime", "onnxruntime-gpu", "onnxruntime-directml", "onnxruntime-openvino"),
    "openvino": ("openvino",),
    "tensorrt": ("tensorrt", "tensorrt-cu13", "tensorrt-cu12"),
    "torch": ("torch",),
}
# Of zeropoint's extras: the distributions that each takes, and what it adds.
EXTRAS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "openvino": (("openvino",), "what is quantized for the target openvino is timed where it will run"),
    "torch": (("torch", "onnxscript"), "zeropoint export writes PyTorch modules as ONNX networks"),
    "report": (("altair", "jinja2", "vl-convert-python"), "quantize and inspect write an HTML page"),
    "view": (("netron",), "zeropoint view shows a network as a graph in the browser"),
    "nvidia": (("nvidia-ml-py",), "NVIDIA GPUs are found also where there is no nvidia-smi"),
}
Packages = Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Survey:
    """A machine as it was found.

    system: "Linux" and the like. cores: that this process may use. packages: version by distribution, of those that matter here.
    runs_on: of each runtime that can be asked, its execution providers or devices. native: whether zeropoint's own loops are compiled.
    """

    zeropoint: str
    python: str
    system: str
    cpu: Cpu
    cores: int
    memory_bytes: int
    free_bytes: int
    gpus: Gpus
    packages: Packages
    runs_on: Mapping[str, tuple[str, ...]]
    native: bool
    notes: tuple[Note, ...] = ()


def survey() -> Survey:
    """Return what is on this machine."""
    providers = sorted((name.removesuffix(onnxruntime.SUFFIX) for name in onnxruntime.providers()), key=lambda name: name != "CPU")
    runs_on = {"onnxruntime": tuple(providers)}
    notes = []
    if openvino.is_installed():
        try:
            runs_on["openvino"] = openvino.devices()
        except (ImportError, RuntimeError) as error:
            notes.append(Note("openvino", f"it is installed, but does not start: {error}", kind="run"))
    return Survey(
        zeropoint=own_version(),
        python=platform.python_version(),
        system=platform.system(),
        cpu=read_cpu(),
        cores=cores(),
        memory_bytes=memory_bytes(),
        free_bytes=available_bytes(),
        gpus=find_gpus(),
        packages=find_packages(),
        runs_on=runs_on,
        native=native.library is not None,
        notes=tuple(notes),
    )


def find_packages(find: Callable[[str], str] = version) -> Packages:
    """Return the versions of the distributions that matter here, of those that are installed, without importing any."""
    of_extras = [name for names, _ in EXTRAS.values() for name in names]
    of_runtimes = [name for names in DISTRIBUTIONS.values() for name in names]
    found = {}
    for name in dict.fromkeys([*of_runtimes, *of_extras]):
        try:
            found[name] = find(name)
        except PackageNotFoundError:
            continue
    return found
