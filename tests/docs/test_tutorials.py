"""Run what the documents show: their ```python blocks in order, and compare what a block prints with the ```text block after it."""

from __future__ import annotations

import contextlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted((ROOT / "docs").rglob("*.md")) + [path for path in [ROOT / "README.md"] if path.exists()]
# A fence that is exactly ```python runs; ```python no-run does not, for what needs a file or a machine that a test has not.
FENCE = re.compile(r"^```(?P<kind>[^\n]*)\n(?P<body>.*?)^```[ ]*$", re.MULTILINE | re.DOTALL)
NEEDS = {"pytorch.md": ("torch", "onnxscript"), "qat.md": ("torch", "onnxscript")}  # what a page shows, and zeropoint itself does without
FIGURE = re.compile(r"\d+\.\d+")


@dataclass(frozen=True, slots=True)
class Block:
    """Code, the line of the document that it starts on, and what it should print where the document says."""

    code: str
    line: int
    expected: str | None


def read_blocks(text: str) -> list[Block]:
    fences = list(FENCE.finditer(text))
    blocks = []
    for fence, after in zip(fences, [*fences[1:], None], strict=True):
        if fence["kind"] != "python":
            continue
        shown = after is not None and after["kind"] == "text" and not text[fence.end() : after.start()].strip()
        line = text.count("\n", 0, fence.start("body")) + 1
        blocks.append(Block(fence["body"], line, after["body"] if after is not None and shown else None))
    return blocks


def run_blocks(blocks: list[Block], name: str) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        printed = io.StringIO()
        # The blank lines make a traceback point at the line of the document.
        code = compile("\n" * (block.line - 1) + block.code, name, "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, namespace)
        if block.expected is not None:
            assert printed.getvalue() == block.expected, f"{name}, line {block.line}: the block prints something else"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_document_runs_and_prints_what_it_shows(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in NEEDS.get(path.name, ()):
        pytest.importorskip(library)
    monkeypatch.chdir(tmp_path)
    run_blocks(read_blocks(path.read_text(encoding="utf-8")), path.name)


def test_lesson_by_hand_prints_its_figures() -> None:
    text = (ROOT / "docs" / "tutorials" / "by-hand.md").read_text(encoding="utf-8")
    blocks = read_blocks(text)
    assert len(blocks) >= 10
    computed = set(FIGURE.findall(" ".join(block.expected or "" for block in blocks)))
    given = set(FIGURE.findall(blocks[0].code))
    assert not set(FIGURE.findall(FENCE.sub("", text))) - computed - given, "figures in the prose that no block prints"


TEXT = "words\n\n```python\nx = 1\nprint(x)\n```\n\n```text\n1\n```\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param(TEXT, [("x = 1\nprint(x)\n", 4, "1\n")], id="code-and-output"),
        pytest.param(TEXT.replace("\n\n```text", "\nwords\n```text"), [("x = 1\nprint(x)\n", 4, None)], id="words-between"),
        pytest.param(TEXT.replace("python", "python no-run"), [], id="not-run"),
        pytest.param(TEXT.replace("```text", "```sh"), [("x = 1\nprint(x)\n", 4, None)], id="other-fence"),
        pytest.param(TEXT + "```python\ny\n```\n", [("x = 1\nprint(x)\n", 4, "1\n"), ("y\n", 12, None)], id="two"),
    ],
)
def test_read_blocks(text: str, expected: list[tuple[str, int, str | None]]) -> None:
    assert [(block.code, block.line, block.expected) for block in read_blocks(text)] == expected


def test_blocks_share_a_namespace() -> None:
    run_blocks([Block("x = 1\n", 1, None), Block("print(x + 1)\n", 2, "2\n")], "page.md")


def test_wrong_output_is_found() -> None:
    with pytest.raises(AssertionError, match=r"page\.md, line 7"):
        run_blocks([Block("print(1)\n", 7, "2\n")], "page.md")
