"""GPUs as NVML and nvidia-smi tell of them, with neither needed."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from zeropoint.runtime import gpu
from zeropoint.runtime.gpu import Gpu, find_gpus, parse_smi

H100 = Gpu("NVIDIA H100 80GB HBM3", 81559 << 20, "580.65.06", "9.0")


class NVMLError(Exception):
    pass


def nvml(**changes: Any) -> SimpleNamespace:
    functions: dict[str, Any] = {
        "NVMLError": NVMLError,
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetCudaComputeCapability": lambda _: (9, 0),
        "nvmlDeviceGetMemoryInfo": lambda _: SimpleNamespace(total=81559 << 20),
        "nvmlDeviceGetName": lambda _: "NVIDIA H100 80GB HBM3",
        "nvmlSystemGetDriverVersion": lambda: "580.65.06",
    }
    return SimpleNamespace(**functions | changes)


def fails(*_: Any, **__: Any) -> Any:
    raise NVMLError("NVML Shared Library Not Found")


def missing(*_: Any, **__: Any) -> Any:
    raise FileNotFoundError("nvidia-smi")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("NVIDIA H100 80GB HBM3, 81559, 580.65.06, 9.0\n", (H100,), id="one"),
        pytest.param(
            "A, B, 16, 1, 8.9\nC, 8, 1, 7.5\n", (Gpu("A, B", 16 << 20, "1", "8.9"), Gpu("C", 8 << 20, "1", "7.5")), id="comma-in-name"
        ),
        pytest.param("GB10, [N/A], 580, 12.1\n", (Gpu("GB10", 0, "580", "12.1"),), id="shared-memory"),
        pytest.param("", (), id="none"),
    ],
)
def test_nvidia_smi(text: str, expected: tuple[Gpu, ...]) -> None:
    assert parse_smi(text) == expected


def test_what_nvidia_smi_should_not_say() -> None:
    with pytest.raises(ValueError, match="expected lines of four fields"):
        parse_smi("Failed to initialize NVML")


def test_nvml_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml())
    monkeypatch.setattr(subprocess, "run", missing)
    assert find_gpus() == gpu.Gpus((H100,), "NVML")


@pytest.mark.parametrize("module", [pytest.param(None, id="not-installed"), pytest.param(nvml(nvmlInit=fails), id="no-driver")])
def test_nvidia_smi_is_asked_where_nvml_fails(monkeypatch: pytest.MonkeyPatch, module: Any) -> None:
    said = SimpleNamespace(stdout="NVIDIA H100 80GB HBM3, 81559, 580.65.06, 9.0\n")
    monkeypatch.setitem(sys.modules, "pynvml", module)
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: said)
    assert find_gpus() == gpu.Gpus((H100,), "nvidia-smi")


def test_none_is_told_with_the_reasons(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml(nvmlInit=fails))
    monkeypatch.setattr(subprocess, "run", missing)
    found = find_gpus()
    assert (found.found, found.by) == ((), "")
    assert found.reason == "NVML: NVML Shared Library Not Found; nvidia-smi: not found"
