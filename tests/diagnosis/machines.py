"""Machines as a survey would find them, and trials on them."""

from __future__ import annotations

from typing import Any

from zeropoint.diagnosis.survey import Survey
from zeropoint.diagnosis.trials import Trial
from zeropoint.runtime.cpu import Cpu
from zeropoint.runtime.gpu import Gpu, Gpus

PACKAGES = {"onnxruntime": "1.32.0", "openvino": "2026.4.1"}
ZEN_4 = Cpu(name="AMD EPYC", architecture="x86_64", instruction_sets=("AVX2", "AVX512", "AVX512-VNNI"), bfloat16=True)
ICE_LAKE = Cpu(name="Xeon", architecture="x86_64", instruction_sets=("AVX2", "AVX512", "AVX512-VNNI"))
OLD = Cpu(name="Core i5", architecture="x86_64", instruction_sets=("AVX2",))
ARM = Cpu(name="Neoverse N2", architecture="aarch64", instruction_sets=("NEON", "NEON dot product", "i8mm"))
UNKNOWN = Cpu(name="", architecture="AMD64", instruction_sets=None)
H100 = Gpus((Gpu("NVIDIA H100", 80 * 10**9, "580", "9.0"),), "NVML")


def machine(cpu: Cpu, **changes: Any) -> Survey:
    found: dict[str, Any] = {
        "zeropoint": "0.1.0",
        "python": "3.12.1",
        "system": "Linux",
        "cpu": cpu,
        "cores": 4,
        "memory_bytes": 16 * 10**9,
        "free_bytes": 8 * 10**9,
        "gpus": Gpus((), "", "nvidia-smi: not found"),
        "packages": PACKAGES,
        "runs_on": {"onnxruntime": ("CPU",), "openvino": ("CPU",)},
        "native": True,
    }
    return Survey(**found | changes)


def trials(**ratios: tuple[float, float]) -> tuple[Trial, ...]:
    """The trials of targets, whose names have _ for -, with their ratios for convolutions and products."""
    activations = {"onnxruntime": "uint8", "onnxruntime-arm": "int8", "openvino": "int8"}
    return tuple(
        Trial(
            runtime="openvino" if target == "openvino" else "onnxruntime",
            target=target,
            network=network,
            activation=activations[target],
            weight="int8",
            float_ms=2.0,
            quantized_ms=2.0 * ratio,
            ratio=ratio,
        )
        for name, both in ratios.items()
        for target in (name.replace("_", "-"),)
        for network, ratio in zip(("convolutions", "products"), both, strict=True)
    )
