"""Reports in a real browser: what runs there, what a click and a key do, and what a network's names cannot do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.report.networks import ATTACK, Subject, subject

from zeropoint import api
from zeropoint.demo import load_digits
from zeropoint.report.page import write
from zeropoint.report.quantization import quantization_page

CHROMIUM = Path("/usr/bin/chromium")
SECTIONS = ["Before and after", "Layers", "Tensors", "Refinements", "Notes", "Samples", "Manifest"]
RECTANGLES = '#tensor svg path[aria-roledescription="rect mark"]'
PHONE, DESK = 390, 1280


@dataclass
class Tab:
    """A page that is open, with all that it complained of and asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def column(self, title: str, table: str = "#layers-table") -> list[str]:
        titles: list[str] = self.page.locator(f"{table} thead button").all_inner_texts()
        texts: list[str] = self.page.locator(f"{table} tbody tr:not([hidden]) td:nth-child({titles.index(title) + 1})").all_inner_texts()
        return texts

    def names(self) -> list[str]:
        return self.column("Layer")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api")
    for library in ("jinja2", "altair", "vl_convert"):
        pytest.importorskip(library)
    if not CHROMIUM.exists():
        pytest.skip(f"no browser at {CHROMIUM}")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, file: Path, *, width: int = DESK, scheme: str = "light") -> Tab:
    tab = Tab(browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme))
    tab.page.on("console", lambda message: tab.errors.append(message.text) if message.type in ("error", "warning") else None)
    tab.page.on("pageerror", lambda error: tab.errors.append(str(error)))
    tab.page.on("dialog", lambda dialog: tab.errors.append("a dialog opened"))
    tab.page.on("request", lambda request: tab.requests.append(request.url))
    tab.page.set_default_timeout(10_000)
    tab.page.goto(file.as_uri())
    tab.page.wait_for_function("() => !document.querySelector('#tensor') || document.querySelector('#tensor svg')")
    return tab


@pytest.fixture(scope="module")
def digits_report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    digits = load_digits()
    data = {"eval_data": digits.test[:40], "labels": digits.test_labels[:40]}
    result = api.quantize(digits.model, data=digits.calibration[:16], target="onnxruntime", effort="fast", **data)  # type: ignore[arg-type]
    return result.report(tmp_path_factory.mktemp("digits") / "report.html")


@pytest.fixture
def digits(browser: Any, digits_report: Path) -> Iterator[Tab]:
    tab = opened(browser, digits_report)
    yield tab
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []
    tab.page.close()


def written(found: Subject, folder: Path) -> Path:
    return write(quantization_page(found, found.material, samples=2), folder / "report.html")


def test_every_section_is_there(digits: Tab) -> None:
    assert digits.page.locator("h2").all_inner_texts() == SECTIONS
    assert digits.page.locator("nav a").all_inner_texts() == SECTIONS
    assert all(digits.page.locator(link).count() == 1 for link in digits.page.locator("nav a").evaluate_all("all => all.map(a => a.hash)"))
    assert "digits.onnx" in digits.page.inner_text("h1")
    assert "smaller" in digits.page.inner_text(".verdict")


def test_table_is_sorted_by_a_click_and_the_worst_comes_first(digits: Tab) -> None:
    in_order = digits.names()
    header = digits.page.locator("#layers-table").get_by_role("button", name="SQNR", exact=True)
    header.click()
    values = [float(text.removesuffix(" dB")) for text in digits.column("SQNR") if text.endswith("dB")]
    assert values == sorted(values)
    assert len(set(values)) > 5
    assert digits.column("SQNR")[-1] == ""  # what was not measured comes last
    assert digits.page.locator("th[aria-sort=ascending]").inner_text().startswith("SQNR")
    header.click()
    assert [float(t.removesuffix(" dB")) for t in digits.column("SQNR") if t.endswith("dB")] == values[::-1]
    assert digits.column("SQNR")[-1] == ""
    assert digits.page.locator("th[aria-sort=descending]").count() == 1
    digits.page.get_by_role("button", name="#", exact=True).click()
    assert digits.names() == in_order


def test_table_is_sorted_by_keyboard(digits: Tab) -> None:
    digits.page.get_by_role("button", name="Operator", exact=True).focus()
    digits.page.keyboard.press("Enter")
    assert digits.column("Operator") == sorted(digits.column("Operator"), key=str.lower)
    outline = digits.page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        pytest.param("relu stage2", ["stage2.first.relu", "stage2.relu"], id="every-word-counts"),
        pytest.param("GEMM", ["head"], id="case-does-not"),
        pytest.param("nowhere", [], id="nothing"),
    ],
)
def test_table_is_searched(digits: Tab, words: str, expected: list[str]) -> None:
    rows = len(digits.names())
    digits.page.get_by_role("searchbox").fill(words)
    assert digits.names() == expected
    assert digits.page.inner_text("[data-found]") == f"{len(expected)} of {rows} rows"
    digits.page.get_by_role("searchbox").fill("")
    assert len(digits.names()) == rows


def test_click_on_a_row_opens_its_tensors(digits: Tab) -> None:
    digits.page.get_by_role("button", name="stage1.second.conv", exact=True).click()
    part = "#tensor [data-part={}]".format
    assert digits.page.locator(f"{part('tabs')} button").all_inner_texts() == ["input", "weight", "output"]
    assert digits.page.inner_text(part("name")) == "stage1.first.relu"
    assert "uint8" in digits.page.inner_text(part("facts"))
    digits.page.get_by_role("button", name="weight", exact=True).click()
    assert digits.page.inner_text(part("name")) == "stage1.second.conv.weight/folded"
    assert "int8" in digits.page.inner_text(part("facts"))
    digits.page.wait_for_function(f"() => document.querySelectorAll('{RECTANGLES}').length === 96")
    assert digits.page.locator("#tensor [aria-pressed=true]").all_inner_texts() == ["weight"]
    digits.page.select_option("#tensor-choice", label="image")
    assert digits.page.inner_text(part("name")) == "image"
    digits.page.wait_for_function("() => document.querySelector('#tensor svg').textContent.includes('entropy')")


def test_tensor_is_opened_and_left_by_keyboard(digits: Tab) -> None:
    row = digits.page.get_by_role("button", name="head", exact=True)
    row.focus()
    digits.page.keyboard.press("Enter")
    assert digits.page.evaluate("() => document.activeElement.id") == "tensor"
    assert digits.page.inner_text("#tensor [data-part=name]") == "features"
    digits.page.keyboard.press("Tab")
    digits.page.keyboard.press("Escape")
    assert digits.page.evaluate("() => document.activeElement.textContent") == "head"


def test_clipped_bins_are_marked(browser: Any, tmp_path: Path) -> None:
    tab = opened(browser, written(subject(), tmp_path))
    styles = "name => getComputedStyle(document.documentElement).getPropertyValue(name)"
    hexadecimal = [tab.page.evaluate(styles, f"--{name}").strip() for name in ("bad", "quantized")]
    fills = tab.page.locator(RECTANGLES).evaluate_all("all => all.map(a => getComputedStyle(a).fill)")
    assert set(fills) == {f"rgb({int(c[1:3], 16)}, {int(c[3:5], 16)}, {int(c[5:7], 16)})" for c in hexadecimal}
    assert "clipped" in tab.page.inner_text("#tensor [data-part=beyond]")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone(browser: Any, digits_report: Path, scheme: str) -> None:
    tab = opened(browser, digits_report, width=PHONE, scheme=scheme)
    assert tab.page.evaluate("() => document.documentElement.scrollWidth") == PHONE
    red, green, blue = (int(v) for v in tab.page.evaluate("() => getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"))
    assert (red + green + blue < 200) == (scheme == "dark")
    assert tab.errors == []


def test_page_prints_whole_and_light(browser: Any, digits_report: Path) -> None:
    tab = opened(browser, digits_report, scheme="dark")
    tab.page.emulate_media(media="print", color_scheme="dark")
    assert tab.page.evaluate("() => getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert tab.page.evaluate("() => [...document.querySelectorAll('.scroll')].every(box => box.scrollHeight <= box.clientHeight + 1)")
    assert tab.page.pdf().startswith(b"%PDF")


def test_names_are_text_and_nothing_else(browser: Any, tmp_path: Path) -> None:
    found = subject(prefix=ATTACK)
    tab = opened(browser, written(found, tmp_path))
    assert tab.names() == [f"{ATTACK}/in", *(f"{ATTACK}{i}" for i in range(6))]
    for i in (0, 2):
        tab.page.get_by_role("button", name=f"{ATTACK}{i}", exact=True).click()
        assert tab.page.inner_text("#tensor [data-part=name]") in (f"{ATTACK}/in", f"{ATTACK}{i - 1}/out")
        assert tab.page.inner_text("#tensor [data-part=layer]") == f"MatMul {ATTACK}{i}"
    tab.page.get_by_role("button", name="weight", exact=True).click()
    tab.page.locator(RECTANGLES).last.hover()
    for heading in ("notes", "refinements", "manifest"):
        assert ATTACK in tab.page.inner_text(f"#{heading}")
    assert tab.page.locator("script:not([type])").count() == 2  # Vega and the page's own
    assert tab.page.locator("img").count() == 0
    assert tab.errors == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:"))] == []


def test_row_of_a_name_with_line_breaks_opens_its_tensors(browser: Any, tmp_path: Path) -> None:
    tab = opened(browser, written(subject(prefix="a\r\nb"), tmp_path))
    tab.page.locator("#layers-table button.open").nth(4).click()
    assert tab.page.locator("#tensor [data-part=layer]").text_content() == "MatMul a\r\nb4"
    assert tab.errors == []


def test_page_of_two_thousand_nodes(browser: Any, tmp_path: Path) -> None:
    found = subject(2000, judged=False)
    tab = opened(browser, written(found, tmp_path))
    assert (tmp_path / "report.html").stat().st_size < 3_000_000
    assert tab.names() == ["layer/in", *(f"layer{i}" for i in range(2000))]
    assert tab.column("Operator") == ["input", *(["MatMul", "Relu"] * 1000)]
    tab.page.get_by_role("searchbox").fill("layer1998")
    tab.page.get_by_role("button", name="layer1998", exact=True).click()
    assert tab.page.inner_text("#tensor [data-part=name]") == "layer1997/out"
    assert tab.errors == []


def test_report_without_judges_says_what_is_missing(browser: Any, tmp_path: Path) -> None:
    tab = opened(browser, written(subject(judged=False), tmp_path))
    assert "not compared on samples" in tab.page.inner_text("#layers")
    assert "not compared on samples" in tab.page.inner_text("#samples")
    assert "not compared on samples" in tab.page.inner_text("#before-and-after")
    assert tab.column("SQNR") == [""] * 7
    assert tab.errors == []
