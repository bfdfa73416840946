"""What the processor can multiply: the instruction sets that decide how fast integer kernels are."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Family = Literal["x86", "arm", "other"]
X86, ARM = ("x86_64", "amd64", "i386", "i686", "x86"), ("aarch64", "arm64")
# Each with the names that Linux and macOS give it, in lower case. AVX512 alone has no product of bytes that cannot overflow.
INSTRUCTION_SETS: Mapping[Family, Mapping[str, frozenset[str]]] = {
    "x86": {
        "AVX2": frozenset({"avx2", "hw.optional.avx2_0"}),
        "AVX512": frozenset({"avx512f", "hw.optional.avx512f"}),
        "AVX512-VNNI": frozenset({"avx512_vnni", "avx512vnni", "hw.optional.avx512vnni"}),
        "AVX-VNNI": frozenset({"avx_vnni", "avxvnni"}),
        "AMX-INT8": frozenset({"amx_int8"}),
    },
    "arm": {
        "NEON": frozenset({"asimd", "hw.optional.neon", "hw.optional.advsimd"}),
        "NEON dot product": frozenset({"asimddp", "hw.optional.arm.feat_dotprod"}),
        "i8mm": frozenset({"i8mm", "hw.optional.arm.feat_i8mm"}),
    },
    "other": {},
}
# Bytes times bytes, summed in 32 bits: the instructions that integer kernels want. The first ones multiply unsigned by signed bytes.
UNSIGNED_BY_SIGNED = ("AMX-INT8", "AVX512-VNNI", "AVX-VNNI")
SIGNED_BY_SIGNED = ("i8mm", "NEON dot product")
SYSCTL_SECONDS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    """A processor.

    architecture: as platform.machine() tells it. instruction_sets: of those that matter for integers, the ones that every core has; None
    where this system does not tell. bfloat16: whether it has products of bfloat16, in which a runtime may compute floats.
    """

    name: str
    architecture: str
    instruction_sets: tuple[str, ...] | None
    bfloat16: bool = False

    @property
    def family(self) -> Family:
        """Which of the tables of instruction sets is its own."""
        return family_of(self.architecture)

    @property
    def integer_dot_product(self) -> str:
        """The best instruction for products of bytes, or ""."""
        return next((name for name in (*UNSIGNED_BY_SIGNED, *SIGNED_BY_SIGNED) if name in (self.instruction_sets or ())), "")

    @property
    def missing(self) -> tuple[str, ...]:
        """The instruction sets of its family that it does not have; none where it is not known which it has."""
        known = self.instruction_sets
        return () if known is None else tuple(name for name in INSTRUCTION_SETS[self.family] if name not in known)


def family_of(architecture: str) -> Family:
    """Return the family of processors that `architecture`, in any case, belongs to."""
    name = architecture.lower()
    return "x86" if name in X86 else "arm" if name in ARM else "other"


def read_cpu() -> Cpu:
    """Return what this machine's processor is; on systems other than Linux and macOS its instruction sets are not known."""
    architecture = platform.machine()
    if sys.platform == "linux":
        return parse_cpuinfo(_cpuinfo(), architecture=architecture)
    if sys.platform == "darwin":
        return parse_sysctl(_sysctl(), architecture=architecture)
    return Cpu(name=platform.processor(), architecture=architecture, instruction_sets=None)


def parse_cpuinfo(text: str, *, architecture: str) -> Cpu:
    """Return the processor that `text`, of Linux's /proc/cpuinfo, describes."""
    blocks = [_fields(block) for block in text.split("\n\n")]
    flags = [set(told.lower().split()) for block in blocks if (told := block.get("flags") or block.get("Features"))]
    shared = set[str]().union(*flags[:1]).intersection(*flags)  # the small cores of a processor may lack what its big ones have
    first = {name: value for block in reversed(blocks) for name, value in block.items()}
    name = first.get("model name") or first.get("Hardware") or _part(first)
    return _cpu(name, architecture, shared if flags else None)


def parse_sysctl(text: str, *, architecture: str) -> Cpu:
    """Return the processor that `text`, lines of macOS's sysctl, describes."""
    fields = _fields(text)
    lists = ("machdep.cpu.features", "machdep.cpu.leaf7_features", "machdep.cpu.extfeatures")
    flags = {flag.lower() for name in lists for flag in fields.get(name, "").split()}
    flags |= {name.lower() for name, value in fields.items() if value == "1"}
    return _cpu(fields.get("machdep.cpu.brand_string", ""), architecture, flags or None)


def _cpu(name: str, architecture: str, flags: set[str] | None) -> Cpu:
    sets = INSTRUCTION_SETS[family_of(architecture)]
    found = None if flags is None else tuple(known for known, names in sets.items() if not names.isdisjoint(flags))
    halves = {"avx512_bf16", "amx_bf16", "bf16", "hw.optional.arm.feat_bf16"}
    return Cpu(name=name, architecture=architecture, instruction_sets=found, bfloat16=not halves.isdisjoint(flags or ()))


def _fields(text: str) -> dict[str, str]:
    pairs: Iterable[tuple[str, str, str]] = (line.partition(":") for line in text.splitlines())
    return {name.strip(): re.sub(r"\s+", " ", value).strip() for name, colon, value in pairs if colon}


def _part(fields: Mapping[str, str]) -> str:
    """What an ARM processor says of itself under Linux: numbers."""
    told = [f"{name.removeprefix('CPU ')} {fields[name]}" for name in ("CPU implementer", "CPU part") if name in fields]
    return ", ".join(told)


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:  # some sandboxes hide it
        return ""


def _sysctl() -> str:
    try:
        asked = ["/usr/sbin/sysctl", "machdep.cpu", "hw.optional"]
        return subprocess.run(asked, capture_output=True, text=True, timeout=SYSCTL_SECONDS, check=False).stdout
    except (OSError, subprocess.TimeoutExpired):
        return ""
