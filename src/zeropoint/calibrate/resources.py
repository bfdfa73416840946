"""How much of the machine a calibration may take. Processes and memory change no bit of the statistics."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from zeropoint.autograd.devices import device_name, is_device
from zeropoint.errors import RecipeError
from zeropoint.runtime.onnxruntime import CPU, provider_name

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """workers: processes. memory_budget: bytes that the process may take in all, None for half of what is free.

    provider: of ONNX Runtime, or "torch" with a device of PyTorch behind it. checkpoint: the file that keeps the statistics as they grow.
    """

    workers: int = 1
    memory_budget: int | None = None
    provider: str = CPU
    checkpoint: Path | None = None

    def check_beside_plan(self) -> None:
        """Refuse what would do nothing where a plan takes the place of calibration.

        Raises:
            RecipeError: an option is not at its default.
        """
        for option in fields(self):
            value = getattr(self, option.name)
            if value != option.default:
                raise RecipeError(f"{option.name}: found {value} beside a plan, with which nothing is calibrated; leave one of them out")


def resources(*, workers: int, memory_budget: int | str | None, provider: str, checkpoint: str | Path | None) -> Resources:
    """Return the resources that a user's words stand for.

    memory_budget: bytes, or text such as "500MB" or "2GiB". provider: "cpu", "cuda" or any other that ONNX Runtime has here; "torch"
    for PyTorch on the CPU, "torch:cuda" for a GPU.

    Raises:
        RecipeError: one of them is impossible.
    """
    given: object = workers
    if not isinstance(given, int) or given < 1:
        raise RecipeError(f"workers: found {workers!r}, expected at least 1 process")
    if is_device(provider):
        provider = provider.lower()
        device_name(provider)  # which must be there
        if workers > 1:
            raise RecipeError(f"workers: found {workers} with provider {provider!r}, expected 1: PyTorch runs in this process alone")
        if memory_budget is not None:
            raise RecipeError(
                f"memory_budget: found it with provider {provider!r}, which holds a batch's tensors in one pass; leave it out"
            )
    return Resources(
        workers=workers,
        memory_budget=None if memory_budget is None else parsed_bytes(memory_budget),
        provider=provider if is_device(provider) else provider_name(provider),
        checkpoint=None if checkpoint is None else Path(checkpoint),
    )


def parsed_bytes(text: int | str) -> int:
    """Return how many bytes `text` stands for.

    Raises:
        RecipeError: it is no number of bytes.

    Example:
        >>> parsed_bytes("1.5 GB"), parsed_bytes("2GiB"), parsed_bytes(4096)
        (1500000000, 2147483648, 4096)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]I?)?B?\s*", str(text).upper())
    size = int(float(match[1]) * UNITS[match[2] or ""]) if match else 0
    if size < 1:
        raise RecipeError(f"memory_budget: found {text!r}, expected a number of bytes, such as 500MB or 2GB")
    return size
