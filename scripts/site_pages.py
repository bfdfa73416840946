"""The pages of the site that nobody writes: `make docs` makes them from the code and from files outside of docs/.

MkDocs calls `on_files`. Each page is a function that returns its text, so that the tests need no MkDocs.
"""

from __future__ import annotations

import importlib
import inspect
import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator
from dataclasses import fields, is_dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
# Where the site has what a link in the repository leads to; all other links into docs/ lose that folder.
MOVED = {
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "README.md": "index.md",
}
CODES = (
    "Every command has `--help`. It ends with code 0 when all went well, with 2 and one paragraph where the user can mend what is wrong, "
    "and with 3 where it did what was asked but the result does not pass, as a file that breaks its target's rules."
)
ERRORS, ARRAYS, NETWORKS = "Errors", "Arrays", "Networks"


def copied(source: str) -> Callable[[], str]:
    """Return the page that is a file of the repository's root, with its links as they are in the site."""

    def page() -> str:
        text = (ROOT / source).read_text(encoding="utf-8")
        return re.sub(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)", _moved_link, text)

    return page


def _moved_link(link: re.Match[str]) -> str:
    target = MOVED.get(link[1]) or link[1].removeprefix("docs/")
    return f"]({target}{link[2] or ''})"


def command_line() -> str:
    """Return the reference of every command: what it does, its arguments, options and defaults, and an example."""
    from typer.main import get_command

    from zeropoint.cli.app import app

    root = get_command(app)
    commands: dict[str, Any] = getattr(root, "commands", {})
    lines = ["# Command line", "", root.help or "", "", "| command | what it does |", "|---|---|"]
    lines += [f"| [`zeropoint {name}`](#zeropoint-{name}) | {_cell(command.help or '')} |" for name, command in commands.items()]
    lines += ["", CODES, "", *_options(root.params), ""]
    for name, command in commands.items():
        lines += [f"## zeropoint {name}", "", command.help or "", ""]
        example = re.sub(r"\[/?bold\]", "", command.epilog or "").removeprefix("Example: ")
        lines += ["```console", f"$ {example}", "```", ""] if example else []
        lines += [*_arguments(command.params), *_panels(command.params)]
    return "\n".join(lines)


def _arguments(parameters: Iterable[Any]) -> Iterator[str]:
    for parameter in parameters:
        if parameter.param_type_name == "argument":
            yield f"`{parameter.metavar}`{'' if parameter.required else ', which may be left out'}: {parameter.help}"
            yield ""


def _panels(parameters: Iterable[Any]) -> Iterator[str]:
    options = [parameter for parameter in parameters if parameter.param_type_name == "option"]
    order = list(dict.fromkeys(option.rich_help_panel for option in options))
    for panel, found in groupby(
        sorted(options, key=lambda option: order.index(option.rich_help_panel)), lambda option: option.rich_help_panel
    ):
        yield from ([f"**{panel}**", ""] if panel else [])
        yield from [*_options(found), ""]


def _options(parameters: Iterable[Any]) -> Iterator[str]:
    yield "| option | what | default |"
    yield "|---|---|---|"
    for option in parameters:
        if option.hidden:
            continue
        names = " ".join([*option.opts, *option.secondary_opts, option.metavar or ""]).strip()
        repeated = " Can be given several times." if option.multiple else ""
        yield f"| `{names}` | {_cell(option.help or '')}{repeated} | {_default(option)} |"


def _default(option: Any) -> str:
    if option.required:
        return "required"
    if option.is_flag or option.multiple or option.default in (None, ""):
        return ""
    return f"`{getattr(option.default, 'value', option.default)}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|")


def python() -> str:
    """Return the reference of every public name, and of what the functions return."""
    import zeropoint
    from zeropoint.errors import ZeropointError

    homes = zeropoint._HOMES
    public = {name: getattr(importlib.import_module(homes[name]), name) for name in zeropoint.__all__}
    group = {name: _group(value, homes[name], ZeropointError) for name, value in public.items()}
    lines = ["# Python", "", "All of these are in `zeropoint`: `import zeropoint as zp`, then `zp.quantize(...)`.", ""]
    for heading in (NETWORKS, ARRAYS, ERRORS):
        lines += [f"## {heading}", ""]
        for name in [name for name in public if group[name] == heading]:
            lines += [f"::: {homes[name]}.{name}", ""]
    lines += ["## PyTorch", "", '`zp.torch` needs `pip install "zeropoint[torch]"`.', "", "::: zeropoint.torch.exporting.export", ""]
    lines += ["::: zeropoint.torch.exporting.Exported", "", "::: zeropoint.torch.verification.Check", ""]
    lines += ["## What the functions return", "", "Frozen dataclasses: their fields are read, and never set.", ""]
    for kind in returned(value for name, value in public.items() if inspect.isfunction(value)):
        if kind not in public.values():
            lines += [f"::: {kind.__module__}.{kind.__qualname__}", ""]
    return "\n".join(lines)


def _group(value: Any, home: str, error: type) -> str:
    if isinstance(value, type) and issubclass(value, error):
        return ERRORS
    return NETWORKS if home.startswith("zeropoint.api") and home != "zeropoint.api.ranges" else ARRAYS


def returned(functions: Iterable[Callable[..., Any]]) -> list[type]:
    """Return the dataclasses of the package that functions return, followed by those in their fields, each once."""
    found: dict[type, None] = {}
    waiting = [kind for function in functions for kind in _classes(typing.get_type_hints(function).get("return"))]
    for _ in range(2):  # what is returned, and what stands in its fields: further down are details
        new = [kind for kind in dict.fromkeys(waiting) if kind not in found]
        found.update(dict.fromkeys(new))
        waiting = [inner for kind in new for field in fields(kind) for inner in _classes(_hints(kind)[field.name]) if field.repr]
    return list(found)


def _hints(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind)


def _classes(hint: Any) -> Iterator[type]:
    """Yield the package's own dataclasses in a type, however deep."""
    if typing.get_origin(hint) is not None or isinstance(hint, types.UnionType):
        for part in typing.get_args(hint):
            yield from _classes(part)
    elif isinstance(hint, type) and is_dataclass(hint) and hint.__module__.startswith("zeropoint"):
        yield hint


PAGES: dict[str, Callable[[], str]] = {
    "index.md": copied("README.md"),
    "contributing.md": copied("CONTRIBUTING.md"),
    "changelog.md": copied("CHANGELOG.md"),
    "benchmarks.md": copied("benchmarks/README.md"),
    "reference/cli.md": command_line,
    "reference/api.md": python,
}


def on_files(files: Any, config: Any) -> Any:
    """Add the pages; MkDocs calls this when it has found those in docs/."""
    from mkdocs.structure.files import File

    for path, page in PAGES.items():
        files.append(File.generated(config, path, content=page()))
    return files
