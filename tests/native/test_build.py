"""The hook that compiles the C files, and what becomes of an installation without a compiler."""

from __future__ import annotations

import ctypes
import importlib.util
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

import pytest

from zeropoint import native

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src" / "zeropoint" / "native").glob("*.c"))

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="there is no C compiler here")


class Interface(Generic[T]):
    """What the hook needs of hatchling, which builds wheels and is not needed beside them."""


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    interface = ModuleType("hatchling.builders.hooks.plugin.interface")
    interface.BuildHookInterface = Interface  # type: ignore[attr-defined]
    parts = interface.__name__.split(".")
    for end in range(1, len(parts)):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    monkeypatch.setitem(sys.modules, interface.__name__, interface)
    spec = importlib.util.spec_from_file_location("hatch_build", ROOT / "hatch_build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def flags() -> list[str]:
    """Those of hatch_build.py, read as text: importing it needs hatchling."""
    found = re.search(r"^FLAGS = \((.*?)\)", (ROOT / "hatch_build.py").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    return re.findall(r'"([^"]+)"', found[1])


@needs_compiler
@pytest.mark.parametrize("strict", [[], ["-Wall", "-Wextra", "-Werror"]], ids=["as installed", "without a warning"])
def test_the_flags_compile_the_sources(strict: list[str], tmp_path: Path) -> None:
    assert SOURCES
    command = ["cc", *flags(), *strict, *map(str, SOURCES), "-o", str(tmp_path / "kernels.so"), "-lm"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    library = ctypes.CDLL(str(tmp_path / "kernels.so"))
    assert all(hasattr(library, name) for name in native.FUNCTIONS)


def test_no_flag_lets_the_compiler_round_otherwise() -> None:
    assert "-ffp-contract=off" in flags()
    assert {"-Ofast", "-ffast-math", "-march=native"}.isdisjoint(flags())


@pytest.mark.parametrize("name", native.FUNCTIONS)
def test_every_function_is_in_a_source(name: str) -> None:
    assert any(re.search(rf"^\w.*\b{name}\(", source.read_text(encoding="utf-8"), re.MULTILINE) for source in SOURCES)


@dataclass(frozen=True)
class Built:
    """What the hook told the build, its warnings, and the bytes of the library that a wheel takes in."""

    data: dict[str, Any]
    warnings: list[str]
    library: bytes | None


NOTHING: dict[str, Any] = {"force_include": {}}


def build(hook: ModuleType, root: Path, *, target: str = "wheel", version: str = "standard") -> Built:
    warnings: list[str] = []
    data: dict[str, Any] = {"force_include": {}}
    itself = hook.CompileKernels()
    itself.root, itself.target_name, itself.app = str(root), target, SimpleNamespace(display_warning=warnings.append)
    itself.initialize(version, data)
    taken = [Path(path) for path in data["force_include"]]
    content = taken[0].read_bytes() if taken else None
    itself.finalize(version, data, "a.whl")
    assert not any(path.exists() for path in taken), "what was compiled for the wheel alone is removed"
    return Built(data, warnings, content)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "src" / "zeropoint" / "native"
    folder.mkdir(parents=True)
    for source in SOURCES:
        shutil.copy(source, folder)
    return tmp_path


def beside_sources(root: Path) -> Path:
    return root / "src" / "zeropoint" / "native" / "kernels.so"


@needs_compiler
def test_a_wheel_holds_the_library_and_says_for_which_machines(hook: ModuleType, copied: Path, tmp_path: Path) -> None:
    built = build(hook, copied)
    assert built.warnings == []
    assert list(built.data["force_include"].values()) == ["zeropoint/native/kernels.so"]
    assert built.data["pure_python"] is False
    assert re.fullmatch(r"py3-none-\w+", built.data["tag"])
    assert not beside_sources(copied).exists()
    assert built.library is not None
    (tmp_path / "own.so").write_bytes(built.library)
    assert all(hasattr(ctypes.CDLL(str(tmp_path / "own.so")), name) for name in native.FUNCTIONS)


@needs_compiler
def test_an_editable_installation_has_it_beside_the_sources(hook: ModuleType, copied: Path) -> None:
    beside_sources(copied).write_bytes(b"of an older source")
    assert build(hook, copied, version="editable") == Built(NOTHING, [], None)
    assert all(hasattr(ctypes.CDLL(str(beside_sources(copied))), name) for name in native.FUNCTIONS)


def test_a_source_distribution_holds_none(hook: ModuleType, copied: Path) -> None:
    assert build(hook, copied, target="sdist") == Built(NOTHING, [], None)
    assert not beside_sources(copied).exists()


@pytest.mark.parametrize("version", ["standard", "editable"])
@pytest.mark.parametrize(("compiler", "warning"), [("no-such-compiler", "no C compiler was found"), ("false", r"false -O3 .* failed")])
def test_without_a_compiler_that_works_the_wheel_is_for_any_machine(
    hook: ModuleType, copied: Path, compiler: str, warning: str, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CC", compiler)
    built = build(hook, copied, version=version)
    assert (built.data, built.library) == (NOTHING, None)
    assert len(built.warnings) == 1
    assert re.search(warning, built.warnings[0])
    assert not beside_sources(copied).exists()


@pytest.mark.parametrize("content", [None, b"", b"not a library"], ids=["missing", "empty", "foreign"])
def test_a_library_that_cannot_be_loaded_is_none(content: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "FILE", tmp_path / "kernels.so")
    if content is not None:
        native.FILE.write_bytes(content)
    assert native._load() is None


@needs_compiler
def test_a_library_of_an_older_source_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "old.c").write_text("int old(void) { return 0; }\n")
    subprocess.run(["cc", *flags(), str(tmp_path / "old.c"), "-o", str(tmp_path / "kernels.so")], check=True)
    monkeypatch.setattr(native, "FILE", tmp_path / "kernels.so")
    assert native._load() is None


def test_without_a_library_numpy_gives_the_same_answers() -> None:
    solved = (
        "from zeropoint.api import solve_range\n"
        "print(*(solve_range([-0.5, 0.25, 1.0], solver=s, symmetric=False).hi for s in ('minmax', 'mse', 'entropy', 'auto')))\n"
    )
    without = (
        "from zeropoint import native\nnative.library = None\n"
        "from zeropoint.statistics import counting\nassert counting.count is counting.count_in_numpy\n"
    )
    found, expected = (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        for code in (without + solved, solved)
    )
    assert found == expected
    assert len(found.split()) == 4
