"""Known traps of versions: a table. What stands here was seen to happen, or is documented by those who make the package.

A version range is [since, before); "" leaves an end open. `source` says how it is known.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from zeropoint.diagnosis.survey import Survey
from zeropoint.runtime.cpu import Cpu, Family

DOT_PRODUCTS = ("AMX-INT8", "AVX512-VNNI", "AVX-VNNI")


@dataclass(frozen=True, slots=True, kw_only=True)
class Trap:
    """One thing that goes wrong with a package, and what to do about it.

    family: of processors that it happens on, None for all. lacks: it happens where the processor is known to have none of these
    instruction sets. bfloat16: whether it happens only where the processor has products of bfloat16. beside: it happens where this
    distribution is installed too.
    """

    package: str
    since: str = ""
    before: str = ""
    family: Family | None = None
    lacks: tuple[str, ...] = ()
    bfloat16: bool = False
    beside: str = ""
    what: str
    remedy: str
    source: str


@dataclass(frozen=True, slots=True)
class FoundTrap:
    """A trap of what is installed here."""

    package: str
    version: str
    what: str
    remedy: str
    source: str


TRAPS = (
    Trap(
        package="onnxruntime",
        family="x86",
        lacks=DOT_PRODUCTS,
        what="without VNNI, sums of two products of uint8 by int8 saturate in 16 bits, and accuracy is lost where both are large",
        remedy="judge accuracy on this kind of machine; where it suffers, set session.x64quantprecision to 1, which is exact and slower",
        source="ONNX Runtime's documentation of quantization; the option is in 1.32.0",
    ),
    Trap(
        package="openvino",
        family="x86",
        lacks=DOT_PRODUCTS,
        what="without VNNI, sums of two products of bytes saturate in 16 bits, and accuracy is lost where both are large",
        remedy="judge accuracy on this kind of machine, and leave the layers that suffer in float with --exclude",
        source="measured with 2026.4.1 held to AVX2: half of the right sum; OpenVINO's documentation of the saturation issue",
    ),
    Trap(
        package="onnxruntime",
        family="x86",
        what="files with int8 activations run about as slow as float, or slower: their pairs fuse into integer kernels in part only",
        remedy="quantize for the target onnxruntime, whose activations are uint8; `zeropoint lint` finds such files",
        source="measured with 1.32.0: 1.0 to 2.7 of float's latency on four networks",
    ),
    Trap(
        package="onnxruntime",
        beside="onnxruntime-gpu",
        what="onnxruntime and onnxruntime-gpu put their files in one folder: what runs is what was installed last",
        remedy="uninstall both, and install the one that you want",
        source="both wheels hold the package onnxruntime",
    ),
    Trap(
        package="onnxruntime",
        what="the threads of an idle session keep spinning for a while: two sessions timed in turns in one process disturb each other",
        remedy="pause 20 ms at each switch, or set session.intra_op.allow_spinning to 0",
        source="measured with 1.32.0: up to twice the latency",
    ),
    Trap(
        package="openvino",
        bfloat16=True,
        what="on this processor what stays in float is computed in bfloat16 by default, and outputs differ from other runtimes'",
        remedy="compile with INFERENCE_PRECISION_HINT f32 where that matters; zeropoint does so when it times",
        source="asked of a compiled network of 2026.4.1",
    ),
    Trap(
        package="openvino",
        what="files quantized for onnxruntime, with zero points other than 0, run slower than float on transformers",
        remedy="quantize for the target openvino, whose activations are symmetric",
        source="measured with 2026.4.1: 1.7 times float's latency on MiniLM",
    ),
    Trap(
        package="openvino",
        what="where a Gemm has int8 weights in blocks of 32, its data is rounded anew in groups of 32",
        remedy="set DYNAMIC_QUANTIZATION_GROUP_SIZE to 0, or give a scale for each output channel",
        source="measured with 2026.4.1: 0.5 % of the largest output",
    ),
    Trap(
        package="tensorrt",
        before="10",
        what="the target's rules are those of TensorRT 10 and 11: older versions find no implementation for some of the same networks",
        remedy="install TensorRT 10 or 11",
        source="TensorRT's release notes",
    ),
    Trap(
        package="tensorrt",
        since="10",
        before="11",
        what="without --stronglyTyped trtexec chooses the types of layers by itself, and int8 needs --int8 then",
        remedy="build with --stronglyTyped, as the next command that is printed does; never beside --int8 or --fp16",
        source="TensorRT's migration guide from 10 to 11",
    ),
    Trap(
        package="tensorrt",
        since="11",
        what="calibrators, dynamic ranges and --int8, --fp16, --best are gone: a network runs in what its file says",
        remedy="build from a file with Q/DQ pairs; calibration caches of older versions are not read",
        source="TensorRT's migration guide from 10 to 11",
    ),
)


def find_traps(found: Survey, traps: tuple[Trap, ...] = TRAPS) -> tuple[FoundTrap, ...]:
    """Return the traps of what is installed, in the order of the table."""
    return tuple(_found(found, traps))


def _found(found: Survey, traps: tuple[Trap, ...]) -> Iterator[FoundTrap]:
    for trap in traps:
        installed = _installed(found.packages, trap.package)
        if installed is None or not (within(installed[1], trap.since, trap.before) and _happens_on(found.cpu, trap)):
            continue
        if trap.beside and not {trap.package, trap.beside} <= found.packages.keys():
            continue
        yield FoundTrap(trap.package, installed[1], trap.what, trap.remedy, trap.source)


def _installed(packages: Mapping[str, str], package: str) -> tuple[str, str] | None:
    """The distribution that brings the package, and its version: onnxruntime-gpu is onnxruntime too."""
    return next(((name, version) for name, version in packages.items() if name == package or name.startswith(f"{package}-")), None)


def _happens_on(cpu: Cpu, trap: Trap) -> bool:
    if trap.family is not None and cpu.family != trap.family:
        return False
    if trap.lacks and (cpu.instruction_sets is None or not set(trap.lacks).isdisjoint(cpu.instruction_sets)):
        return False
    return cpu.bfloat16 or not trap.bfloat16


def within(version: str, since: str, before: str) -> bool:
    """Return whether `version` lies in [since, before), by its numbers.

    Example:
        >>> within("10.9.0.34", "10", "11"), within("11.0.0", "10", "11"), within("9.3", "", "10")
        (True, False, True)
    """
    return _numbers(since) <= _numbers(version) and (not before or _numbers(version) < _numbers(before))


def _numbers(version: str) -> tuple[int, ...]:
    release = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(int(number) for number in release[0].split(".")) if release is not None else ()
