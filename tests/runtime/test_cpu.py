"""What a processor is read to be, from what Linux and macOS tell of well-known ones."""

from __future__ import annotations

import platform
import sys

import pytest

from zeropoint.runtime import cpu
from zeropoint.runtime.cpu import parse_cpuinfo, parse_sysctl, read_cpu

X86 = "processor : {number}\nmodel name\t: {name}\nflags\t\t: fpu sse4_2 {flags}\n"
ARM = "processor\t: {number}\nFeatures\t: fp asimd {flags}\nCPU implementer\t: 0x41\nCPU part\t: 0xd0c\n"


def cores(pattern: str, *flags: str, name: str = "") -> str:
    return "\n".join(pattern.format(number=number, name=name, flags=told) for number, told in enumerate(flags))


AVX512 = "avx2 avx512f avx512_vnni avx512_bf16"
CASES = [
    pytest.param(
        cores(X86, "avx2 avx512f avx512_vnni", name="Intel(R) Xeon(R) Platinum 8375C"),
        "x86_64",
        ("AVX2", "AVX512", "AVX512-VNNI"),
        "AVX512-VNNI",
        id="ice-lake",
    ),
    pytest.param(cores(X86, AVX512, AVX512, name="AMD EPYC 9R14"), "x86_64", ("AVX2", "AVX512", "AVX512-VNNI"), "AVX512-VNNI", id="zen-4"),
    pytest.param(
        cores(X86, "avx2 avx512f avx512_vnni avx_vnni amx_int8", name="Sapphire Rapids"),
        "x86_64",
        ("AVX2", "AVX512", "AVX512-VNNI", "AVX-VNNI", "AMX-INT8"),
        "AMX-INT8",
        id="sapphire-rapids",
    ),
    pytest.param(cores(X86, "avx2 avx_vnni", name="Alder Lake"), "AMD64", ("AVX2", "AVX-VNNI"), "AVX-VNNI", id="alder-lake"),
    pytest.param(cores(X86, "avx2", name="Intel(R) Core(TM) i5-4590"), "x86_64", ("AVX2",), "", id="avx2-only"),
    pytest.param(cores(X86, "avx2 avx512f", name="Skylake-X"), "x86_64", ("AVX2", "AVX512"), "", id="avx512-without-vnni"),
    pytest.param(cores(ARM, "asimddp i8mm bf16"), "aarch64", ("NEON", "NEON dot product", "i8mm"), "i8mm", id="arm-with-i8mm"),
    pytest.param(cores(ARM, "asimddp"), "aarch64", ("NEON", "NEON dot product"), "NEON dot product", id="arm-with-dot-product"),
    pytest.param(cores(ARM, "crc32"), "aarch64", ("NEON",), "", id="old-arm"),
    pytest.param(
        cores(ARM, "asimddp i8mm", "asimddp"), "arm64", ("NEON", "NEON dot product"), "NEON dot product", id="small-core-lacks-i8mm"
    ),
    pytest.param("processor : 0\n", "riscv64", None, "", id="no-flags"),
]


@pytest.mark.parametrize(("text", "architecture", "sets", "best"), CASES)
def test_linux(text: str, architecture: str, sets: tuple[str, ...] | None, best: str) -> None:
    found = parse_cpuinfo(text, architecture=architecture)
    assert (found.instruction_sets, found.integer_dot_product) == (sets, best)
    assert set(found.missing).isdisjoint(sets or ())


@pytest.mark.parametrize(
    ("text", "architecture", "name", "sets", "best"),
    [
        pytest.param(
            "machdep.cpu.brand_string: Apple M2\nhw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 1\n",
            "arm64",
            "Apple M2",
            ("NEON", "NEON dot product", "i8mm"),
            "i8mm",
            id="apple-m2",
        ),
        pytest.param(
            "machdep.cpu.brand_string: Apple M1\nhw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\nhw.optional.arm.FEAT_I8MM: 0\n",
            "arm64",
            "Apple M1",
            ("NEON", "NEON dot product"),
            "NEON dot product",
            id="apple-m1",
        ),
        pytest.param(
            "machdep.cpu.brand_string: Intel(R) Core(TM) i7\nmachdep.cpu.leaf7_features: RDWRFSGS AVX2 BMI2\nhw.optional.avx512f: 0\n",
            "x86_64",
            "Intel(R) Core(TM) i7",
            ("AVX2",),
            "",
            id="intel-mac",
        ),
        pytest.param("", "arm64", "", None, "", id="sysctl-failed"),
    ],
)
def test_macos(text: str, architecture: str, name: str, sets: tuple[str, ...] | None, best: str) -> None:
    found = parse_sysctl(text, architecture=architecture)
    assert (found.name, found.instruction_sets, found.integer_dot_product) == (name, sets, best)


@pytest.mark.parametrize(
    ("flags", "expected"), [pytest.param(AVX512, True, id="avx512-bf16"), pytest.param("avx2 avx512f", False, id="none")]
)
def test_bfloat16(flags: str, expected: bool) -> None:
    assert parse_cpuinfo(cores(X86, flags), architecture="x86_64").bfloat16 is expected


def test_names_of_processors() -> None:
    assert parse_cpuinfo(cores(X86, "avx2", name="AMD EPYC"), architecture="x86_64").name == "AMD EPYC"
    assert parse_cpuinfo(cores(ARM, "asimddp"), architecture="aarch64").name == "implementer 0x41, part 0xd0c"


def test_elsewhere_the_instruction_sets_are_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(platform, "machine", lambda: "AMD64")
    found = read_cpu()
    assert (found.instruction_sets, found.family, found.missing) == (None, "x86", ())


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/cpuinfo")
def test_this_machine() -> None:
    found = read_cpu()
    assert found.architecture == platform.machine()
    assert found.instruction_sets is None or set(found.instruction_sets) <= set(cpu.INSTRUCTION_SETS[found.family])
