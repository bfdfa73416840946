from __future__ import annotations

import base64
import hashlib
import json
import re
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import ClassVar

import pytest
from tests.report.networks import ATTACK

from zeropoint.errors import OutputError, RecipeError
from zeropoint.notes import Note
from zeropoint.report import page as pages
from zeropoint.report.chart import Chart
from zeropoint.report.figures import Bar, Figure, Figures
from zeropoint.report.manifest import Command, Manifest
from zeropoint.report.page import Page, Section, render, write
from zeropoint.report.reasons import Reasons, grouped
from zeropoint.report.table import Cell, Column, Row, Table

pytest.importorskip("jinja2")
pytest.importorskip("vl_convert")


class Read(HTMLParser):
    """What a browser makes of a page: the tags, and the text that is shown."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.texts += [value for _, value in attrs if value]

    def handle_data(self, data: str) -> None:
        (self.scripts if self.tags[-1:] == ["script"] else self.texts).append(data)


def page(*sections: Section, title: str = "A page", verdict: str = "All is well") -> Page:
    return Page(kind="test", title=title, verdict=verdict, sections=sections)


EVIL_SECTIONS: dict[str, Section] = {
    "figures": Figures("Numbers", [Figure(label=ATTACK, bars=(Bar(ATTACK, ATTACK, 0.5),), comparison=ATTACK, detail=ATTACK)]),
    "table": Table(
        heading="Rows",
        lead=ATTACK,
        columns=[Column(title=ATTACK, hint=ATTACK)],
        rows=[Row([Cell(ATTACK, None, "code", ATTACK)], ATTACK)],
        search=ATTACK,
    ),
    "reasons": Reasons(heading="Why", groups=grouped([Note(ATTACK, ATTACK), Note("b", ATTACK), Note(ATTACK, "other")])),
    "manifest": Manifest(heading="With what", facts=[(ATTACK, ATTACK)], commands=[Command(ATTACK, ATTACK)]),
    "chart": Chart(heading="Drawn", lead=ATTACK, spec={"data": {"values": [{"a": ATTACK}]}}, described=ATTACK),
}


@pytest.mark.parametrize("section", EVIL_SECTIONS.values(), ids=EVIL_SECTIONS)
def test_every_kind_of_section_shows_strings_as_they_are(section: Section) -> None:
    harmless = render(page(section, title=ATTACK, verdict=ATTACK))
    assert "<script>alert" not in harmless
    assert 'onerror="' not in harmless
    read = Read(harmless)
    assert "img" not in read.tags
    assert sum(ATTACK in text for text in read.texts) >= 4
    assert "49" not in "".join(text for text in read.texts if "7*7" in text)


def test_specs_of_charts_come_through_whole() -> None:
    html = render(page(EVIL_SECTIONS["chart"]))
    [content] = re.findall(r'<script type="application/json" id="drawn-spec">(.*?)</script>', html, re.DOTALL)
    assert json.loads(content) == {"data": {"values": [{"a": ATTACK}]}}


def test_only_the_scripts_of_the_page_may_run_and_nothing_is_loaded() -> None:
    html = render(page(EVIL_SECTIONS["chart"]))
    policy = unescape(re.search(r'Content-Security-Policy" content="(.*?)"', html)[1])  # type: ignore[index]
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 2
    for script in scripts:
        assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe-eval" not in policy


def test_vega_is_in_pages_with_charts_alone_and_once() -> None:
    assert len(render(page(EVIL_SECTIONS["table"]))) < 60_000
    with_charts = render(page(EVIL_SECTIONS["chart"], Chart(heading="More", spec={}, described="")))
    assert with_charts.count("window.vegaEmbed=") == 1


@dataclass(frozen=True, slots=True)
class Missing:
    heading: str = "Missing"
    template: ClassVar[str] = "no-such-template.html"
    draws: ClassVar[bool] = False


def test_page_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert write(page(), path) == path
    before = path.read_text(encoding="utf-8")
    with pytest.raises(Exception, match="no-such-template"):
        write(page(Missing()), path)
    assert path.read_text(encoding="utf-8") == before
    with pytest.raises(OutputError, match="cannot be written"):
        write(page(), tmp_path / "nowhere" / "report.html")
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_same_page_gives_the_same_bytes() -> None:
    assert render(page(*EVIL_SECTIONS.values())) == render(page(*EVIL_SECTIONS.values()))


def test_missing_library_is_an_error_that_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "LIBRARIES", ("jinja2", "not_here", "nor_here"))
    with pytest.raises(RecipeError, match=r'report: not_here and nor_here not found.*pip install "zeropoint\[report\]"'):
        render(page())


def test_notes_are_grouped_by_kind_and_reason() -> None:
    notes = [
        Note("a", "few", "float"),
        Note("run", "slow", "run"),
        Note("c", "many", "float"),
        Note("d", "many", "float"),
        Note("w", "look", "warning"),
    ]
    found = [(group.title, [(reason.text, reason.places) for reason in group.reasons]) for group in grouped(notes)]
    assert found == [
        ("Read this first", [("look", ("w",))]),
        ("Stays in float", [("many", ("c", "d")), ("few", ("a",))]),
        ("About this run", [("slow", ("run",))]),
    ]
