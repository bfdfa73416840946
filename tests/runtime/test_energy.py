from __future__ import annotations

import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zeropoint.runtime.energy import GpuMeter, PackageMeter, open_meter

linux = pytest.mark.skipif(sys.platform != "linux", reason="powercap is of Linux")


def domain(root: Path, name: str, *, called: str, energy: int, most: int = 1_000_000) -> Path:
    folder = root / name
    folder.mkdir()
    (folder / "name").write_text(f"{called}\n")
    (folder / "energy_uj").write_text(f"{energy}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    return folder


@linux
def test_packages_are_summed_and_their_parts_are_not_counted_twice(tmp_path: Path) -> None:
    first = domain(tmp_path, "intel-rapl:0", called="package-0", energy=100)
    second = domain(tmp_path, "intel-rapl:1", called="package-1", energy=200)
    part = domain(tmp_path, "intel-rapl:0:0", called="core", energy=50)
    whole = domain(tmp_path, "intel-rapl:2", called="psys", energy=900)
    again = domain(tmp_path, "intel-rapl-mmio:0", called="package-0", energy=100)
    meter = open_meter(powercap=tmp_path)
    assert isinstance(meter, PackageMeter)
    assert meter.source == "processor packages (2), by powercap"
    before = meter.read()
    for folder in (first, second, part, whole, again):
        counter = folder / "energy_uj"
        counter.write_text(str(int(counter.read_text()) + 300_000))
    assert meter.joules(before, meter.read()) == pytest.approx(0.6)


@linux
@pytest.mark.parametrize(
    ("before", "after", "joules"),
    [(100, 100, 0.0), (100, 600_100, 0.6), (900_000, 100_000, 0.2), (999_999, 0, 1e-6)],
    ids=["nothing", "up", "around", "just-around"],
)
def test_a_counter_that_begins_anew_goes_on(tmp_path: Path, before: int, after: int, joules: float) -> None:
    counter = domain(tmp_path, "intel-rapl:0", called="package-0", energy=before) / "energy_uj"
    meter = open_meter(powercap=tmp_path)
    assert not isinstance(meter, str)
    first = meter.read()
    counter.write_text(str(after))
    assert meter.joules(first, meter.read()) == pytest.approx(joules)


def _nothing(root: Path) -> Path:
    return root / "powercap"


def _no_package(root: Path) -> Path:
    domain(root, "intel-rapl:0", called="psys", energy=1)
    return root


def _not_a_number(root: Path) -> Path:
    (domain(root, "intel-rapl:0", called="package-0", energy=1) / "energy_uj").write_text("many")
    return root


def _no_counter(root: Path) -> Path:
    (domain(root, "intel-rapl:0", called="package-0", energy=1) / "energy_uj").unlink()
    return root


@linux
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_nothing, r"there is no .*powercap \(a virtual machine"),
        (_no_package, "has no counter of a processor package"),
        (_not_a_number, "cannot be read .*many"),
        (_no_counter, "cannot be read .*No such file"),
    ],
)
def test_says_why_nothing_is_measured(tmp_path: Path, make: Any, reason: str) -> None:
    found = open_meter(powercap=make(tmp_path))
    assert isinstance(found, str)
    assert re.match(rf"not measurable here: .*{reason}", found), found


@linux
def test_a_counter_that_may_not_be_read_names_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = domain(tmp_path, "intel-rapl:0", called="package-0", energy=1)
    read = Path.read_text

    def refuse(path: Path, *arguments: Any, **options: Any) -> str:
        if path.name == "energy_uj":  # root may read what nobody may
            raise PermissionError(13, "Permission denied", str(path))
        return read(path, *arguments, **options)

    monkeypatch.setattr(Path, "read_text", refuse)
    found = open_meter(powercap=tmp_path)
    assert isinstance(found, str)
    assert f"{folder / 'energy_uj'} may not be read" in found
    assert "chmod a+r" in found


class NVMLError(Exception):
    pass


def fake_nvml(*, gpus: int, millijoules: list[int], supported: bool = True) -> Any:
    def energy(handle: int) -> int:
        if not supported:
            raise NVMLError("Not Supported")
        return millijoules.pop(0)

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=lambda: None,
        nvmlDeviceGetCount=lambda: gpus,
        nvmlDeviceGetHandleByIndex=lambda index: index,
        nvmlDeviceGetName=lambda handle: b"GPU 9000",
        nvmlDeviceGetTotalEnergyConsumption=energy,
    )


def test_a_gpu_tells_its_millijoules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", fake_nvml(gpus=1, millijoules=[1, 5_000, 7_500]))
    meter = open_meter("CUDAExecutionProvider")
    assert isinstance(meter, GpuMeter)
    assert meter.source == "GPU 9000, by NVML"
    assert meter.joules(meter.read(), meter.read()) == pytest.approx(2.5)


@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (None, "nvidia-ml-py is not installed"),
        (fake_nvml(gpus=2, millijoules=[]), "2 GPUs"),
        (fake_nvml(gpus=1, millijoules=[], supported=False), "NVML says Not Supported"),
    ],
    ids=["no-library", "two-gpus", "no-counter"],
)
def test_says_why_a_gpu_is_not_measured(monkeypatch: pytest.MonkeyPatch, nvml: Any, reason: str) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    found = open_meter("CUDAExecutionProvider")
    assert isinstance(found, str)
    assert found.startswith("not measurable here: ")
    assert reason in found
