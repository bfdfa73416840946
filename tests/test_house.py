"""The complexity budget and the house rules that no linter holds."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "zeropoint"
SOURCES = sorted(PACKAGE.rglob("*.py"))

MAX_LINES_OF_FILE = 400
MAX_LINES_OF_FUNCTION = 60
MAX_PARAMETERS = 7
# The facades show users each option as a parameter, and hand it on, in a line each; what they call takes values that group them.
FACADES = {"api", "cli", "torch", "autograd/kernels/fused.py"}  # a kernel takes pointers, sizes and constants one by one
# An operator takes ONNX's inputs and attributes one by one.
FACADES |= {
    f"autograd/operators/{name}.py"
    for name in ("attention", "convolution", "normalization", "pooling", "quantization", "recurrent", "resizing")
}
MAX_OPTIONS = 29
MAX_LINES_OF_FACADE = 63
BANNED_MODULE_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "base", "misc"}
PRINTING_PACKAGES = {"cli", "demo"}
# `import zeropoint` must be fast: these take from 0.1 to several seconds each, or belong to one command only.
HEAVY_LIBRARIES = {"torch", "onnxscript", "onnxruntime", "openvino", "onnx", "onnx_ir", "PIL", "rich", "typer", "pydantic", "sympy"}
# ruff's TID251 exempts an owner from all bans at once; this table holds each library to its owners.
OWNERS = {
    "PIL": "data",
    "typer": "cli",
    "rich": "cli",
    "netron": "cli",
    "torch": "torch autograd",
    "triton": "autograd",
    "onnxscript": "torch",
    "onnxruntime": "runtime",
    "openvino": "runtime",
    "psutil": "runtime",
    "pynvml": "runtime",
    "onnx": "graph",
    "onnx_ir": "graph",
    "jinja2": "report",
    "altair": "report",
    "vl_convert": "report",
}

every_source = pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PACKAGE)))
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def parsed(source: Path) -> ast.Module:
    return ast.parse(source.read_text(encoding="utf-8"))


def functions(source: Path) -> Iterator[Function]:
    return (node for node in ast.walk(parsed(source)) if isinstance(node, Function))


def lines(function: Function) -> int:
    """Lines from `def` to the end, less the docstring: a long example is no complexity."""
    total = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    has_docstring = ast.get_docstring(function, clean=False) is not None
    return total - ((first.end_lineno or first.lineno) - first.lineno + 1 if has_docstring else 0)


def parameters(function: Function) -> int:
    args = function.args
    named = [a.arg for a in [*args.posonlyargs, *args.args, *args.kwonlyargs] if a.arg not in ("self", "cls")]
    return len(named) + (args.vararg is not None) + (args.kwarg is not None)


def imported_libraries(source: Path) -> set[str]:
    modules = [alias.name for node in ast.walk(parsed(source)) if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in ast.walk(parsed(source)) if isinstance(node, ast.ImportFrom) and node.module and not node.level]
    return {module.partition(".")[0] for module in modules}


def layer(source: Path) -> str:
    return source.relative_to(PACKAGE).parts[0].removesuffix(".py")


def is_facade(source: Path) -> bool:
    return not FACADES.isdisjoint((layer(source), source.relative_to(PACKAGE).as_posix()))


def test_there_are_sources() -> None:
    assert PACKAGE / "numerics" / "affine.py" in SOURCES


@every_source
def test_file_can_be_read_in_a_sitting(source: Path) -> None:
    assert len(source.read_text(encoding="utf-8").splitlines()) <= MAX_LINES_OF_FILE


@every_source
def test_functions_can_be_seen_whole(source: Path) -> None:
    limit = MAX_LINES_OF_FACADE if is_facade(source) else MAX_LINES_OF_FUNCTION
    assert {f.name: lines(f) for f in functions(source) if lines(f) > limit} == {}


@every_source
def test_functions_take_few_parameters(source: Path) -> None:
    limit = MAX_OPTIONS if is_facade(source) else MAX_PARAMETERS
    assert {f.name: parameters(f) for f in functions(source) if parameters(f) > limit} == {}


@every_source
def test_only_the_command_line_and_the_demo_print(source: Path) -> None:
    calls = [node for node in ast.walk(parsed(source)) if isinstance(node, ast.Call)]
    printing = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
    assert layer(source) in PRINTING_PACKAGES or printing == []


@every_source
def test_module_is_named_for_what_it_holds(source: Path) -> None:
    assert BANNED_MODULE_NAMES.isdisjoint(source.relative_to(PACKAGE).with_suffix("").parts)


@every_source
def test_third_party_libraries_are_imported_by_their_owner(source: Path) -> None:
    assert {library for library in imported_libraries(source) if layer(source) not in OWNERS.get(library, layer(source)).split()} == set()


def test_importing_zeropoint_imports_no_heavy_library() -> None:
    code = "import sys, zeropoint; print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(result.stdout.split())
    assert "zeropoint" in loaded
    assert loaded & HEAVY_LIBRARIES == set()
