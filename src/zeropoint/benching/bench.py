"""What a benchmark found: a frozen value that can be saved, drawn, and compared with a later one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import ClassVar, Literal

from zeropoint.errors import OutputError
from zeropoint.graph.store import write_text
from zeropoint.notes import Note

VERSION = 2
SURE = 0.1
Figure = Literal["latency", "ratio"]
Strict: dict[str, object] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What it was measured on. Two benchmarks compare in milliseconds only where all of this is the same.

    system: as "Linux". architecture: as "x86_64". processor: its name. cores: that this process may use. instruction_sets: of those
    that matter for integers, where the system tells.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    system: str
    architecture: str
    processor: str
    cores: int
    instruction_sets: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """The latency of a model over that of the first one on the same runtime: below 1 is faster.

    value: the median over the rounds, in each of which both ran. low, high: between which the true median lies, at a confidence of 95 % or
    more, where what disturbs the machine comes as it likes.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    value: float
    low: float
    high: float

    @property
    def is_sure(self) -> bool:
        """Whether the interval is narrow: a tenth of the ratio."""
        return self.high - self.low <= SURE * self.value

    @property
    def is_clear(self) -> bool:
        """Whether the interval says which one is faster."""
        return not self.low <= 1 <= self.high


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorTime:
    """What all nodes of one type take of a run; the types are those of the runtime, once it has fused and replaced nodes.

    milliseconds: in one run. share: of the time of all nodes.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    operator: str
    nodes: int
    milliseconds: float
    share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowNode:
    """One node among those that take the most; fields as in OperatorTime. in_integers: whether its kernel computes on 8-bit codes."""

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    node: str
    operator: str
    milliseconds: float
    share: float
    in_integers: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Where the time of a run goes, by the runtime's own profiler, in runs of their own: what they take is not in the latency.

    runs: how many it is the mean of. milliseconds: of all nodes of a run. operators: by their share. slowest: the nodes that take the most.
    integer_share: of the time, in kernels that compute on 8-bit codes; quantizing and dequantizing are none.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    runs: int
    milliseconds: float
    operators: tuple[OperatorTime, ...]
    slowest: tuple[SlowNode, ...]
    integer_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """One model on one runtime.

    file: as it was given. bytes: of the file, with the weights that lie beside it. provider: the execution provider of ONNX Runtime, as
    "cpu", which other runtimes run on too. threads: that the runtime was asked for, 0 for its own choice. batch: samples in a run. shapes:
    of the inputs. rounds: in how many turns it was timed; runs: how often in all, behind one run in each round that is not timed.
    median_ms, p90_ms, p99_ms: of all timed runs. throughput: samples per second, one run after the other at the median latency. ratio: None
    for the first model of a runtime, which is the baseline of the others.
    noise: how far its rounds lie apart: what is between the 10th and the 90th percentile of their medians, over their median.
    peak_bytes: the most memory that a process takes which loads the model and runs it twice, less what one takes that loads the runtime and
    the same inputs alone; None where that was not found. joules: for one run, None where it was not measured.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    file: str
    bytes: int
    runtime: str
    runtime_version: str
    provider: str
    threads: int
    batch: int
    shapes: dict[str, tuple[int, ...]]
    rounds: int
    runs: int
    median_ms: float
    p90_ms: float
    p99_ms: float
    throughput: float
    ratio: Ratio | None
    noise: float
    peak_bytes: int | None
    joules: float | None
    profile: Profile | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Regression:
    """One figure that is worse than it was by more than the tolerance; before and after in ms for the latency."""

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    file: str
    runtime: str
    figure: Figure
    before: float
    after: float
    tolerance: float

    def __str__(self) -> str:
        unit = " ms" if self.figure == "latency" else ""
        return (
            f"{self.file} on {self.runtime}: {self.figure} {self.before:.3g}{unit} -> {self.after:.3g}{unit}, "
            f"{self.after / self.before - 1:+.1%}, more than the {self.tolerance:.0%} allowed"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Every model on every runtime that is here, measured in turns.

    timings: by runtime, and on each in the order of the models, of which the first is the baseline. energy: what measured it, or why
    nothing did. notes: what was not measured, and why, and whether the machine was too noisy; `warning` for what to read first.
    against: the file or benchmark that it was compared with, "" for none; regressions: what is worse than there.
    """

    __pydantic_config__: ClassVar[dict[str, object]] = Strict

    version: int = VERSION
    zeropoint: str
    machine: Machine
    timings: tuple[Timing, ...]
    energy: str
    notes: tuple[Note, ...]
    against: str = ""
    regressions: tuple[Regression, ...] = ()

    def save(self, path: str | Path) -> None:
        """Write it as JSON, whole or not at all, for `bench(against=...)` later.

        Raises:
            OutputError: the file cannot be written, or something else has its name.
        """
        check_place(path)
        write_text(path, json.dumps(asdict(self), indent=2, allow_nan=False) + "\n")


def check_place(path: str | Path) -> None:
    """Refuse to write a benchmark over anything else than one, of whatever version.

    Raises:
        OutputError: something else has that name.
    """
    path = Path(path)
    if path.is_file() and not (path.read_bytes()[:1] == b"{" and b'"timings"' in path.read_bytes()):
        raise OutputError(
            f"benchmark {path}: found another kind of file there, which is not written over; name another one, or take it away"
        )
