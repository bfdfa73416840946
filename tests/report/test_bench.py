from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tests.benching.benches import FIRST, PROFILE, SECOND, bench

from zeropoint.benching.bench import Ratio, Regression
from zeropoint.notes import Note
from zeropoint.report.bench import bench_page
from zeropoint.report.figures import Figures
from zeropoint.report.manifest import Manifest
from zeropoint.report.page import render
from zeropoint.report.table import Table

pytest.importorskip("jinja2")
pytest.importorskip("altair")
pytest.importorskip("vl_convert")

EVIL = "</script><script>alert('\"')</script>"


def tables(page: object) -> dict[str, Table]:
    return {section.heading: section for section in page.sections if isinstance(section, Table)}  # type: ignore[attr-defined]


def test_a_page_has_a_row_for_each_timing_operator_and_node() -> None:
    page = bench_page(bench())
    found = tables(page)
    assert (page.kind, page.title, page.tone) == ("bench", "net.onnx and net.int8.onnx", "good")
    assert [[cell.text for cell in row.cells] for row in found["Timings"].rows] == [
        ["net.onnx", "onnxruntime", "4 ms", "5 ms", "6 ms", "500", "", "5%", "20.00 MB", "25%"],
        ["net.int8.onnx", "onnxruntime", "2 ms", "5 ms", "6 ms", "1000", "0.50 (0.48–0.52)", "5%", "20.00 MB", "25%"],
    ]
    assert all(len(row.cells) == len(table.columns) for table in found.values() for row in table.rows)
    assert [row.cells[0].text for row in found["Where the time goes"].rows] == ["Conv", "Gemm"] * 2
    assert [row.cells[0].text for row in found["Slowest nodes"].rows] == ["/stem/<b>conv[0]"] * 2


def test_bars_are_as_long_as_the_values() -> None:
    [section] = [
        section for section in bench_page(bench(FIRST, SECOND, replace(FIRST, runtime="openvino"))).sections if isinstance(section, Figures)
    ]
    figures = {figure.label: figure for figure in section.figures}
    assert list(figures) == [
        "Latency on onnxruntime",
        "Peak memory on onnxruntime",
        "Latency on openvino",
        "Peak memory on openvino",
        "Size of the file",
    ]
    assert [(bar.label, bar.text, bar.share) for bar in figures["Latency on onnxruntime"].bars] == [
        ("net.onnx", "4 ms", 1.0),
        ("net.int8.onnx", "2 ms", 0.5),
    ]
    assert [bar.share for bar in figures["Size of the file"].bars] == [1.0, 0.25]
    assert figures["Latency on onnxruntime"].comparison == "0.50 of the first"


def test_what_was_not_measured_leaves_its_place_empty() -> None:
    bare = replace(FIRST, peak_bytes=None, profile=None)
    page = bench_page(bench(bare))
    assert [cell.text for cell in tables(page)["Timings"].rows[0].cells][-2:] == ["", ""]
    html = render(page)
    assert "No runtime told where the time goes." in html
    assert "Peak memory on" not in html


def test_what_is_slower_is_said_and_in_red() -> None:
    slow = replace(SECOND, ratio=Ratio(value=1.5, low=1.4, high=1.6), joules=0.25)
    page = bench_page(bench(FIRST, slow))
    assert page.tone == "bad"
    assert bench_page(bench(notes=(Note("noise", "x", kind="warning"),))).tone == "plain"
    cells = {cell.text: cell.tone for cell in tables(page)["Timings"].rows[1].cells}
    assert cells["1.50 (1.40–1.60)"] == "bad"
    assert "250 mJ" in cells
    alike = bench_page(bench(FIRST, replace(SECOND, ratio=Ratio(value=1.03, low=1.02, high=1.04))))
    assert alike.tone == "good"
    assert {cell.text: cell.tone for cell in tables(alike)["Timings"].rows[1].cells}["1.03 (1.02–1.04)"] == ""
    regression = Regression(file="n", runtime="r", figure="latency", before=1.0, after=2.0, tolerance=0.1)
    assert "n on r: latency 1 ms -&gt; 2 ms, +100.0%" in render(bench_page(bench(against="b", regressions=(regression,))))


def test_the_manifest_has_the_provider() -> None:
    [section] = [section for section in bench_page(bench(replace(FIRST, provider="cuda"))).sections if isinstance(section, Manifest)]
    assert ("execution provider", "cuda") in section.facts


def test_names_are_text() -> None:
    profile = replace(PROFILE, slowest=(replace(PROFILE.slowest[0], node=EVIL, operator=EVIL),))
    evil = replace(FIRST, file=f"{EVIL}.onnx", shapes={EVIL: (1, 2)}, profile=profile)
    html = render(bench_page(bench(evil, notes=(Note(EVIL, EVIL),))))
    assert "alert(" in html
    assert "<script>alert" not in html


def test_the_facade_writes_it(tmp_path: Path) -> None:
    import zeropoint as zp
    from zeropoint.demo import load_digits

    zp.bench(load_digits().model, seconds=0.01, report=tmp_path / "page.html")
    assert "zeropoint bench" in (tmp_path / "page.html").read_text(encoding="utf-8")
