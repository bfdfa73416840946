"""A page: a title, a verdict and sections, and the one file that it becomes."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, Protocol

from zeropoint.errors import OutputError, RecipeError
from zeropoint.graph.store import write_text

if TYPE_CHECKING:
    from jinja2 import Environment

LIBRARIES = ("jinja2", "altair", "vl_convert")
TEMPLATES = files("zeropoint.report") / "templates"
SCRIPT = "report.js"
HEAD, GENERATOR = 4096, b'<meta name="generator" content="zeropoint">'  # by which a report is known, near its beginning


class Section(Protocol):
    """A part of a page under a heading of its own; `template` is a file in templates/, which gets the section as `section`.

    draws: whether the template uses Vega, which is then put into the page, once.
    """

    template: ClassVar[str]
    draws: ClassVar[bool]

    @property
    def heading(self) -> str:
        """What the section is headed, which no other section of the page is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What one file shows. kind: what was done, such as "quantize"; tone: how the verdict is meant."""

    kind: str
    title: str
    verdict: str
    tone: Literal["good", "bad", "plain"] = "plain"
    sections: Sequence[Section]


def missing_libraries() -> tuple[str, ...]:
    """Return the names of the libraries that a report needs and that are not installed."""
    return tuple(name for name in LIBRARIES if find_spec(name) is None)


def check_libraries() -> None:
    """Refuse to begin a report that cannot be made.

    Raises:
        RecipeError: a library is not installed.
    """
    missing = missing_libraries()
    if missing:
        raise RecipeError(f'report: {" and ".join(missing)} not found, expected what draws it; pip install "zeropoint[report]"')


def check_report(path: str | Path) -> None:
    """Refuse to begin a report that cannot be made, or that would be written over anything else than a report.

    Raises:
        RecipeError: a library is not installed.
        OutputError: something else has that name.
    """
    check_libraries()
    path = Path(path)
    if path.is_dir():
        raise OutputError(f"report: found the folder {path}, expected the name of the file to write, as in report.html")
    if path.exists() and GENERATOR not in path.read_bytes()[:HEAD]:
        raise OutputError(f"report: {path} is there and is no report, so that it is not written over; name another file, or take it away")


def render(page: Page) -> str:
    """Return the page as HTML with all that it needs inside.

    The page says itself which scripts may run, by their hashes, and that nothing may be loaded: what a network calls its tensors is text.

    Raises:
        RecipeError: a library is not installed.
    """
    check_libraries()
    scripts = [*([vega()] if any(section.draws for section in page.sections) else []), (TEMPLATES / SCRIPT).read_text(encoding="utf-8")]
    style = (TEMPLATES / "report.css").read_text(encoding="utf-8")
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return _environment().get_template("page.html").render(page=page, scripts=scripts, style=style, hashes=hashes)


def write(page: Page, path: str | Path) -> Path:
    """Write the page to `path`, whole or not at all, and return the path.

    Raises:
        RecipeError: a library is not installed.
        OutputError: the file cannot be written, or something else has its name.
    """
    check_report(path)
    write_text(path, render(page))
    return Path(path)


@lru_cache(maxsize=1)
def vega() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, which takes a second or two to put together.

    Raises:
        RecipeError: the library is not installed.
    """
    check_libraries()
    import vl_convert

    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("zeropoint.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # A NaN would be no JSON: it raises here, where a test sees it, and not in a browser.
    environment.policies["json.dumps_kwargs"] = {"allow_nan": False, "separators": (",", ":")}
    environment.filters["anchor"] = _anchor
    return environment


def _anchor(heading: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", heading.lower()).strip("-")
