"""The site, without building it: every page is in the navigation, and what is made from the code has all of it."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest
from typer.main import get_command

import zeropoint
from zeropoint.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
WRITTEN = sorted(str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md"))
NAVIGATION = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").split("\nnav:\n")[1].split("\n\n")[0]
FAQ = (DOCS / "faq.md").read_text(encoding="utf-8")
COMMANDS = getattr(get_command(app), "commands", {})


def script(name: str) -> ModuleType:
    """Import a script, which is no part of the package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


site = script("site_pages")


def test_navigation_names_every_page_once_and_no_other() -> None:
    named = re.findall(r": (\S+\.md)$", NAVIGATION, re.MULTILINE)
    assert sorted(named) == sorted([*WRITTEN, *site.PAGES])


@pytest.mark.parametrize("name", site.PAGES)
def test_made_pages_have_a_title_and_live_links(name: str) -> None:
    text = site.PAGES[name]()
    assert text.startswith("# ")
    folder = Path(name).parent
    targets = {str(folder / link) for link in re.findall(r"\]\((?!https?:)([^)#]+)", text)}
    pages = {*WRITTEN, *site.PAGES, *(str(path.relative_to(DOCS)) for path in (DOCS / "images").iterdir())}
    assert targets - pages == set()


@pytest.mark.parametrize("page", WRITTEN)
def test_links_to_headings_lead_to_one(page: str) -> None:
    text = (DOCS / page).read_text(encoding="utf-8")
    for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", text):
        other = text if not target else (DOCS / page).parent.joinpath(target).read_text(encoding="utf-8")
        headings = [re.sub(r"[^\w\- ]", "", heading).strip().lower() for heading in re.findall(r"^#+ (.*)$", other, re.MULTILINE)]
        assert anchor in [re.sub(r"[ \-]+", "-", heading) for heading in headings], (page, target, anchor)


@pytest.mark.parametrize("name", COMMANDS)
def test_command_line_reference_has_each_command_with_all_options(name: str) -> None:
    sections = {text.partition("\n")[0]: text for text in re.split(r"^## ", site.PAGES["reference/cli.md"](), flags=re.MULTILINE)}
    section = sections[f"zeropoint {name}"]
    assert f"$ zeropoint {name} " in section or f"$ zeropoint {name}\n" in section
    for parameter in COMMANDS[name].params:
        shown = [parameter.metavar] if parameter.param_type_name == "argument" else [*parameter.opts, *parameter.secondary_opts]
        row = next(
            line for line in section.splitlines() if line.startswith(("`", "| `")) and set(shown) <= set(re.findall(r"[^`\s]+", line))
        )
        assert " ".join(parameter.help.split()).replace("|", "\\|") in row
        if isinstance(parameter.default, int | str) and not isinstance(parameter.default, bool) and parameter.default != "":
            assert row.endswith(f"| `{getattr(parameter.default, 'value', parameter.default)}` |")


def test_python_reference_has_each_public_name() -> None:
    shown = re.findall(r"^::: \S+\.(\w+)$", site.PAGES["reference/api.md"](), re.MULTILINE)
    assert set(zeropoint.__all__) <= set(shown)
    assert len(shown) == len(set(shown))
    assert {"Result", "Inspection", "Evidence"} <= set(shown)


TEXT = 'One line.\n\nmodel: a path. data: samples\nof it. solver, seed: "a" or (b). evaluate=False skips.\n\nExample:\n    >>> 1\n    1'


def test_sentences_on_parameters_become_a_list() -> None:
    pytest.importorskip("griffe")
    found = script("site_docstrings").rewritten(TEXT, ["model", "data", "solver", "seed", "evaluate"])
    items = ["- `model`: a path.", "- `data`: samples of it.", '- `solver`, `seed`: "a" or (b).', "- `evaluate=False` skips."]
    assert found == "\n\n".join(["One line.", "\n".join(items), "Examples:\n    >>> 1\n    1"])


def test_words_that_are_no_parameters_stay() -> None:
    pytest.importorskip("griffe")
    text = "Take a model: it is read. data comes later."
    assert script("site_docstrings").rewritten(text, ["model", "data"]) == text


def test_each_question_has_an_answer() -> None:
    sections = re.split(r"^### ", FAQ, flags=re.MULTILINE)[1:]
    questions = [section.partition("\n")[0] for section in sections]
    assert len(questions) >= 35
    assert len(set(questions)) == len(questions)
    for question, section in zip(questions, sections, strict=True):
        answer = re.split(r"^## ", section, flags=re.MULTILINE)[0].partition("\n")[2].strip()
        assert "?" in question, question
        assert len(answer) > 20, f"no answer to {question!r}"


def test_picture_in_the_readme_is_there_and_fetches_nothing() -> None:
    assert "](docs/images/quantize.svg)" in (ROOT / "README.md").read_text(encoding="utf-8")
    picture = (DOCS / "images" / "quantize.svg").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"')]+", picture)) == {"http://www.w3.org/2000/svg"}
    assert "@font-face" not in picture
    assert not re.search(r"/(tmp|home|root|work|Users)/", picture)


def test_screen_forgets_what_was_drawn_over() -> None:
    recording = script("record_terminal")
    text = "\x1b[?25lbar 1\r\n\x1b[2K\x1b[1A\x1b[2K\x1b[32mdone\x1b[0m\r\nnext\n\x1b[?25h"
    assert recording.last_screen(text) == "\x1b[32mdone\x1b[0m\nnext"


def test_picture_with_a_path_or_a_web_font_is_refused(tmp_path: Path) -> None:
    recording = script("record_terminal")
    recording.check('<svg xmlns="http://www.w3.org/2000/svg">fine</svg>', tmp_path)
    for bad in (f"wrote {tmp_path}/x", "url(https://fonts.example/x.woff)"):
        with pytest.raises(SystemExit):
            recording.check(bad, tmp_path)
