"""A benchmark in words, for the terminal and for the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from zeropoint.benching.bench import Bench, Ratio, Timing

NOISE = "noise"  # where notes on it stand
ALIKE = (0.95, 1.05)  # ratios between which a difference is not worth a word


def short_names(files: Iterable[str]) -> dict[str, str]:
    """Return what to call each file: its name, and its whole path where two have the same name.

    Example:
        >>> short_names(["a/net.onnx", "b/net.onnx", "b/other.onnx"])
        {'a/net.onnx': 'a/net.onnx', 'b/net.onnx': 'b/net.onnx', 'b/other.onnx': 'other.onnx'}
    """
    different = dict.fromkeys(files)
    names = [Path(file).name for file in different]
    return {file: name if names.count(name) == 1 else file for file, name in zip(different, names, strict=True)}


def verdict(bench: Bench) -> str:
    """Return what was found in a sentence, with the bad news first."""
    parts = list[str]()
    if bench.regressions:
        slower = dict.fromkeys(f"{Path(found.file).name} on {found.runtime}" for found in bench.regressions)
        parts.append(f"SLOWER than in {bench.against}: {', '.join(slower)}")
    elif bench.against:
        parts.append(f"no slower than in {bench.against}")
    noisy = ["NOISY MACHINE"] if is_noisy(bench) else []
    return "; ".join([*parts[:1], *noisy, *_judgements(bench)])


def is_bad(bench: Bench) -> bool:
    """Whether a model became slower, or is slower than the first one."""
    return bool(bench.regressions) or any(timing.ratio is not None and is_slower(timing.ratio) for timing in bench.timings)


def is_slower(ratio: Ratio) -> bool:
    """Whether a model is slower than the first one, surely and by more than a little."""
    return ratio.low > 1 and ratio.value > ALIKE[1]


def is_noisy(bench: Bench) -> bool:
    """Whether the machine was too noisy to trust milliseconds."""
    return any(note.where == NOISE for note in bench.notes)


def _judgements(bench: Bench) -> Iterator[str]:
    names = short_names(timing.file for timing in bench.timings)
    compared = [timing for timing in bench.timings if timing.ratio is not None]
    for timing in compared or bench.timings:
        yield f"{names[timing.file]} {_judgement(timing)} on {timing.runtime}"


def _judgement(timing: Timing) -> str:
    ratio = timing.ratio
    if ratio is None:
        return f"takes {timing.median_ms:.3g} ms"
    if not ratio.is_clear or ALIKE[0] <= ratio.value <= ALIKE[1]:
        return "is about as fast as the first"
    return f"is {1 / ratio.value:.1f}x faster" if ratio.value < 1 else f"is SLOWER: {ratio.value:.2f} times the latency of the first"
