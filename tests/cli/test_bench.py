from __future__ import annotations

import json
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

import pytest
from tests.benching.benches import FIRST, SECOND, bench
from tests.cli.commands import Place, Zeropoint, interrupt

from zeropoint import api
from zeropoint.api import benching
from zeropoint.benching.bench import Bench, Ratio, Regression
from zeropoint.benching.saved import load_bench
from zeropoint.cli import render  # before `asked` replaces what it takes the names of options from
from zeropoint.notes import Note

SLOWER = Regression(file="net.int8.onnx", runtime="onnxruntime", figure="ratio", before=0.5, after=0.6, tolerance=0.1)
NOTES = (Note("noise", "the machine was noisy", kind="warning"), Note("tensorrt", "not measured: [bold]by hand[/bold]", kind="warning"))


class Asked(dict[str, Any]):
    """What `api.bench` was asked, and what it found."""

    found: Bench = bench(notes=NOTES)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    told = Asked()

    def fake(models: Any, **options: Any) -> Bench:
        told.update(options, models=models)
        options["progress"]("timing", 1, 2)
        return told.found

    monkeypatch.setattr(api, "bench", fake)
    return told


def test_a_table_says_it_all_in_80_columns(asked: Asked, zeropoint: Zeropoint) -> None:
    run = zeropoint("bench", "net.onnx", "net.int8.onnx")
    assert (run.code, run.err) == (0, "")
    lines = run.out.splitlines()
    assert lines[0] == "NOISY MACHINE; net.int8.onnx is 2.0x faster on onnxruntime"
    assert lines[1] == "A fast one (x86_64), 4 cores"
    assert lines[3] == "onnxruntime 1.0: 1 thread, batch 2, 8 rounds"
    table = [line.split() for line in lines[5:9]]
    assert table[0] == ["model", "ms", "p90", "p99", "per", "s", "ratio", "between", "MB"]
    assert table[2] == ["net.onnx", "4.00", "5.00", "6.00", "500.0", "20"]
    assert table[3] == ["net.int8.onnx", "2.00", "5.00", "6.00", "1000", "0.50", "0.48-0.52", "20"]
    assert all(len(line) <= 80 for line in lines[4:10])
    assert "net.onnx: 25% of the time in integers: 86% Conv (2), 14% Gemm (1)" in lines
    assert "  slowest: /stem/<b>conv[0] 57%" in lines
    assert "energy: not measurable here: no counter" in lines
    assert "  noise: the machine was noisy" in lines
    assert "  tensorrt: not measured: [bold]by hand[/bold]" in lines
    assert "slower" not in run.out.lower()


def test_the_widest_table_still_fits(asked: Asked, zeropoint: Zeropoint) -> None:
    wide = replace(FIRST, median_ms=12345.6, p90_ms=23456.7, p99_ms=34567.8, throughput=0.081, peak_bytes=12_345_000_000, joules=123.4)
    wide = replace(wide, file="a" * 60 + ".onnx", ratio=Ratio(value=12.34, low=11.11, high=13.33))
    asked.found = bench(wide)
    run = zeropoint("bench", "net.onnx")
    rows = run.out.splitlines()[4:]
    assert all(len(line) <= 80 for line in rows[: rows.index("", 6) if "" in rows[6:] else 12] if "of the time" not in line)
    for figure in ("12346", "23457", "34568", "0.081", "12.34", "11.11-13.33", "12345", "1.23e+05"):
        assert figure in run.out
    assert "mJ: energy of a run" in run.out


def test_what_was_not_measured_is_a_dash(asked: Asked, zeropoint: Zeropoint) -> None:
    asked.found = bench(replace(FIRST, peak_bytes=None, profile=None, joules=0.5), replace(SECOND, ratio=None, profile=None))
    out = zeropoint("bench", "net.onnx").out
    first, second = (line.split() for line in out.splitlines()[7:9])
    assert first == ["net.onnx", "4.00", "5.00", "6.00", "500.0", "-", "500"]
    assert second == ["net.int8.onnx", "2.00", "5.00", "6.00", "1000", "20", "-"]


def test_each_runtime_has_a_table(asked: Asked, zeropoint: Zeropoint) -> None:
    asked.found = bench(FIRST, SECOND, replace(FIRST, runtime="openvino", runtime_version="2", threads=0))
    out = zeropoint("bench", "net.onnx").out
    assert "\nonnxruntime 1.0: 1 thread, batch 2, 8 rounds\n" in out
    assert "\nopenvino 2: its own choice of threads, batch 2, 8 rounds\n" in out


def test_options_reach_the_library(asked: Asked, zeropoint: Zeropoint, tmp_path: Path) -> None:
    options = [
        "--runtime",
        "onnxruntime, openvino",
        "--threads",
        "2",
        "--batch",
        "4",
        "--time",
        "0.5",
        "--shape",
        "a=b=1x3",
        "--shape",
        "c=2",
    ]
    options += ["--provider", "cuda", "--against", "old.json", "--tolerance", "5%", "--by", "ratio", "--report", "page.html"]
    zeropoint("bench", "net.onnx", "net.int8.onnx", *options)
    del asked["progress"]
    assert asked == {
        "models": ["net.onnx", "net.int8.onnx"],
        "runtimes": ("onnxruntime", "openvino"),
        "threads": 2,
        "batch": 4,
        "seconds": 0.5,
        "shapes": {"a=b": (1, 3), "c": (2,)},
        "provider": "cuda",
        "against": Path("old.json"),
        "tolerance": 0.05,
        "by": ("ratio",),
        "report": Path("page.html"),
    }


def test_defaults_are_those_of_the_library(asked: Asked, zeropoint: Zeropoint) -> None:
    zeropoint("bench", "net.onnx")
    defaults = {name: told.default for name, told in signature(benching.bench).parameters.items()}
    for name in ("runtimes", "threads", "batch", "seconds", "provider", "against", "tolerance", "by", "report"):
        assert asked[name] == defaults[name], name


def test_options_of_other_names_mirror_a_parameter() -> None:
    assert render.OTHER_NAMES.keys() <= signature(benching.bench).parameters.keys() | signature(api.export).parameters.keys()


@pytest.mark.parametrize(("text", "share"), [("10%", 0.1), ("0.1", 0.1), ("0", 0.0), ("150%", 1.5)])
def test_a_tolerance_is_a_share(asked: Asked, zeropoint: Zeropoint, text: str, share: float) -> None:
    zeropoint("bench", "net.onnx", "--tolerance", text)
    assert asked["tolerance"] == pytest.approx(share)


def test_slower_than_before_is_exit_code_3_with_a_line_for_each_and_after_saving(asked: Asked, zeropoint: Zeropoint, place: Place) -> None:
    asked.found = bench(against="old.json", regressions=(SLOWER, replace(SLOWER, figure="latency", before=2.0, after=2.5)))
    run = zeropoint("bench", "net.onnx", "--against", "old.json", "--save", "new.json")
    assert run.code == 3
    lines = run.out.splitlines()
    assert lines[0].startswith("SLOWER than in old.json: net.int8.onnx on onnxruntime; ")
    assert lines[-4:-2] == [
        "net.int8.onnx on onnxruntime: ratio 0.5 -> 0.6, +20.0%, more than the 10% allowed",
        "net.int8.onnx on onnxruntime: latency 2 ms -> 2.5 ms, +25.0%, more than the 10% allowed",
    ]
    assert lines[-1] == "wrote new.json"
    assert load_bench("new.json") == asked.found


@pytest.mark.parametrize("save", ["old.json", "./old.json", "link.json"])
@pytest.mark.parametrize("json_", [(), ("--json",)], ids=["text", "json"])
def test_what_became_slower_is_not_written_over_what_it_was_compared_with(
    asked: Asked, zeropoint: Zeropoint, place: Place, save: str, json_: tuple[str, ...]
) -> None:
    bench().save("old.json")
    Path("link.json").symlink_to("old.json")
    before, asked.found = Path("old.json").read_bytes(), bench(against="old.json", regressions=(SLOWER,))
    run = zeropoint("bench", "net.onnx", "--against", "old.json", "--save", save, *json_)
    assert (run.code, Path("old.json").read_bytes(), Path("link.json").is_symlink()) == (3, before, True)
    assert run.err == f"{Path(save)} was not written: models became slower than they are in it, which --against compares with\n"
    assert "wrote" not in run.out


def test_what_became_no_slower_is_written_over_what_it_was_compared_with(asked: Asked, zeropoint: Zeropoint, place: Place) -> None:
    bench().save("old.json")
    asked.found = bench(against="old.json")
    run = zeropoint("bench", "net.onnx", "--against", "old.json", "--save", "old.json")
    assert (run.code, run.out.splitlines()[-1]) == (0, "wrote old.json")
    assert load_bench("old.json") == asked.found


def test_as_fast_as_before_is_said_too(asked: Asked, zeropoint: Zeropoint) -> None:
    asked.found = bench(against="old.json")
    run = zeropoint("bench", "net.onnx", "--against", "old.json")
    assert run.code == 0
    assert "no slower than in old.json" in run.out


@pytest.mark.parametrize("code", [0, 3])
def test_json_is_one_document_and_nothing_else(asked: Asked, zeropoint: Zeropoint, code: int) -> None:
    asked.found = bench(against="old.json", regressions=(SLOWER,) if code else ())
    run = zeropoint("bench", "net.onnx", "--json")
    document = json.loads(run.out)
    assert (run.code, run.err) == (code, "")
    assert document["timings"][1]["provider"] == "cpu"
    assert document["timings"][1]["ratio"] == {"value": 0.5, "low": 0.48, "high": 0.52}
    assert len(document["regressions"]) == (code == 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--tolerance", "much"), "error: --tolerance: found 'much', expected a share as 10% or 0.1"),
        (("--shape", "x=1xa"), "error: --shape: found 'x=1xa'"),
        (("--shape", "x=1", "--shape", "x=2"), "error: --shape: found two for 'x', (1,) and (2,), expected one"),
        (("--shape", "no=1"), "error: --shape: found the name 'no', expected an input"),
        (("--shape", "image=1"), "error: --shape: digits.onnx: found (1,) for 'image'"),
        (("--save", "no/b.json"), "error: --save: folder"),
        (("--save", "."), "error: --save: found the folder"),
        (("--save", "few.npy"), "error: benchmark few.npy: found another kind of file there"),
        (("--save", "one.x", "--report", "one.x"), "error: --save: found one.x, which --report names too"),
        (("--save", "digits.onnx"), "error: --save: found digits.onnx, which is the model itself"),
        (("--report", "./digits.onnx"), "error: --report: found digits.onnx, which is the model itself"),
        (("--runtime", "tflite"), "error: --runtime: found 'tflite', expected one of onnxruntime"),
        (("--time", "0"), "error: --time: found 0.0"),
        (("--batch", "0"), "error: --batch: found 0"),
        (("--threads", "-1"), "error: --threads: found -1"),
        (("--by", "speed"), "error: --by: found 'speed'"),
        (("--against", "no.json"), "error: benchmark no.json: cannot be read"),
        (("--provider", "abacus"), "error: --provider: found 'abacus'"),
    ],
)
def test_mistakes_are_one_paragraph_and_exit_code_2(zeropoint: Zeropoint, place: Place, options: tuple[str, ...], message: str) -> None:
    run = zeropoint("bench", "digits.onnx", *options)
    assert (run.code, run.out) == (2, "")
    assert run.err.startswith(message)
    assert run.err.count("\n") == 1


def test_an_interruption_says_that_nothing_was_written(monkeypatch: pytest.MonkeyPatch, zeropoint: Zeropoint, place: Place) -> None:
    monkeypatch.setattr(api, "bench", interrupt)
    run = zeropoint("bench", "digits.onnx", "--save", "b.json")
    assert (run.code, run.err) == (130, "interrupted: nothing was written\n")
    assert not Path("b.json").exists()


def test_a_real_run_and_its_own_regression(zeropoint: Zeropoint, place: Place) -> None:
    first = zeropoint("bench", "digits.onnx", "--time", "0.05", "--save", "b.json")
    assert first.code == 0
    assert "digits.onnx" in first.out
    again = zeropoint("bench", "digits.onnx", "--time", "0.05", "--against", "b.json", "--tolerance", "100000%")
    assert again.code == 0
    saved = load_bench("b.json")
    replace(saved, timings=tuple(replace(timing, median_ms=1e-9) for timing in saved.timings)).save("fast.json")
    slower = zeropoint("bench", "digits.onnx", "--time", "0.05", "--against", "fast.json")
    assert slower.code == 3
    assert "digits.onnx on onnxruntime: latency 1e-09 ms ->" in slower.out
