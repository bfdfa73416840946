"""Measure what quantizing costs in accuracy, by zeropoint at each effort and by its peers: `python benchmarks/accuracy.py [NETWORK ...]`.

Every file is made in a process of its own, in its peer's environment, from the same calibration samples, and judged here by the same
code: ONNX Runtime on the CPU, on evaluation samples that never calibrate. Records are kept as lines of JSON below
benchmarks/.cache/results, and `--again` prints the tables from them; benchmarks/README.md says how to read these.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import version_converter
from peers.protocol import save_samples
from prepare_models import cache_folder
from reference import DRAWS, SOURCES, Reference, accuracy, calibration_draw, find
from workers import Peer, Record, append, machine_record, machine_text, one_of, some_of, written_bytes
from written import read_written

from zeropoint import improve
from zeropoint.errors import DataError, ZeropointError
from zeropoint.evaluate.fidelity import compare_outputs
from zeropoint.runtime.onnxruntime import Session

Array = npt.NDArray[np.generic]
TARGETS = ("tensorrt", "onnxruntime")
NETWORKS = tuple(source.name for source in SOURCES if source.kind != "recurrent")  # of the others nothing is quantized
PER_CHANNEL_OPSET = 13  # the first whose QuantizeLinear has an axis
PEER_OPSET = 17

# --- who quantizes, and how ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A row of the tables: a name, who quantizes, the targets for which its files are, and a word of WEIGHTS."""

    name: str
    peer: Peer
    targets: tuple[str, ...]
    weights: str = "int8"

    @property
    def is_ours(self) -> bool:
        """Whether zeropoint makes it."""
        return self.peer.environment == ""


EFFORTS = ("fast", "balanced", "best")
# What the weights are in, and the arguments of zp.quantize that say so.
WEIGHTS: dict[str, dict[str, Any]] = {
    "int8": {},
    "int8-tensor": {"weight_granularity": "tensor"},
    "int4": {"weight_format": "int4"},
    "int4-block": {"weight_format": "int4", "weight_granularity": "block:32"},
}
BIAS = "bias"  # stands for the correction of biases, which every effort makes and bias="kept" leaves out


def zeropoint_arguments(configuration: str) -> dict[str, Any]:
    """Return the arguments of zp.quantize that a configuration's name stands for.

    It is an effort, then a word of WEIGHTS where that is not int8, then "only" or "less" and a refinement or "bias".

    Example:
        >>> zeropoint_arguments("best int4")
        {'effort': 'best', 'weight_format': 'int4'}
        >>> zeropoint_arguments("best only rounding")
        {'effort': 'best', 'without': ['smoothing'], 'bias': 'kept'}
    """
    effort, *words = configuration.split()
    arguments: dict[str, Any] = {"effort": effort}
    while words:
        word = words.pop(0)
        if word in ("only", "less"):
            named = words.pop(0)
            arguments |= _leaving_out(
                [name for name in parts(effort, arguments.get("weight_format", "int8")) if (name == named) is (word == "less")]
            )
        else:
            arguments |= WEIGHTS[word]
    return arguments


def parts(effort: str, weight_format: str) -> tuple[str, ...]:
    """Return what an effort does beside calibrating, for weights of that format."""
    bought = improve.EFFORTS[effort]
    return (*(name for name in bought.refinements if name != "rounding" or weight_format in bought.rounded), BIAS)


def _leaving_out(names: Sequence[str]) -> dict[str, Any]:
    without = [name for name in names if name != BIAS]
    return ({"without": without} if without else {}) | ({"bias": "kept"} if BIAS in names else {})


def configurations(efforts: Iterable[str], *, weights: str, ablation: bool) -> list[str]:
    """Return the names of zeropoint's configurations for weights of one kind.

    With `ablation` also those without each part of an effort and, where that is something else, with each part alone.
    """
    names = []
    for effort in efforts:
        base = effort if weights == "int8" else f"{effort} {weights}"
        names.append(base)
        made = parts(effort, WEIGHTS[weights].get("weight_format", "int8"))
        words = ("only", "less") if len(made) > 2 else ("less",)  # of two parts, one alone is both without the other
        names += [f"{base} {word} {name}" for word in words for name in made] if ablation else []
    return names


def our_row(configuration: str, target: str, weights: str) -> Row:
    """Return the row of one of zeropoint's configurations for a target."""
    peer = Peer("run_zeropoint.py", method=target, options=zeropoint_arguments(configuration))
    return Row(f"zeropoint {configuration}", peer, (target,), weights)


def _onnxruntime(method: str, *, signed: bool, per_channel: bool = True) -> Peer:
    return Peer("run_onnxruntime.py", "onnxruntime", method, options={"signed": signed, "per_channel": per_channel})


# What runs on TensorRT has int8 activations around zero. NNCF and onnxsim choose the codes themselves, and are shown where they suit.
PEERS = (
    Row("ort-s8-minmax", _onnxruntime("MinMax", signed=True), ("tensorrt",)),
    Row("ort-s8-percentile", _onnxruntime("Percentile", signed=True), ("tensorrt",)),
    Row("ort-u8-minmax", _onnxruntime("MinMax", signed=False), ("onnxruntime",)),
    Row("ort-u8-percentile", _onnxruntime("Percentile", signed=False), ("onnxruntime",)),
    Row("modelopt-max", Peer("run_modelopt.py", "modelopt", "max"), ("tensorrt",)),
    Row("modelopt-entropy", Peer("run_modelopt.py", "modelopt", "entropy"), ("tensorrt",)),
    Row("nncf", Peer("run_nncf.py", "nncf", "onnx"), TARGETS),
    Row("nncf-transformer", Peer("run_nncf.py", "nncf", "onnx", options={"transformer": True}), TARGETS),
    Row("onnxsim", Peer("run_onnxsim.py", "onnxsim"), TARGETS),
    Row("onnxsim-auto", Peer("run_onnxsim.py", "onnxsim", options={"method": "auto"}), TARGETS),
    Row("onnxsim-full", Peer("run_onnxsim.py", "onnxsim", options={"full_graph": True}), TARGETS),
    Row("onnxsim-full-auto", Peer("run_onnxsim.py", "onnxsim", options={"full_graph": True, "method": "auto"}), TARGETS),
    Row("ort-s8-minmax-tensor", _onnxruntime("MinMax", signed=True, per_channel=False), ("tensorrt",), "int8-tensor"),
    Row("ort-u8-minmax-tensor", _onnxruntime("MinMax", signed=False, per_channel=False), ("onnxruntime",), "int8-tensor"),
)


# --- one measurement -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Judge:
    """A reference network's evaluation samples, and what the float network makes of them."""

    reference: Reference

    @cached_property
    def float_outputs(self) -> list[dict[str, Array]]:
        """The float network's outputs, by name, for each sample."""
        return self._outputs(self.reference.model_path)

    @cached_property
    def float_task(self) -> float | None:
        """What the float network is worth at its task: see `_task`."""
        return self._task(self.float_outputs)

    def judge(self, path: Path) -> Record:
        """Return how near the network at `path` stays to the float one, and what it is worth at its task, both of the first output.

        Raises:
            ZeropointError: it does not load or run.
        """
        outputs = self._outputs(path)
        ours, theirs = (_in_turn(found) for found in (outputs, self.float_outputs))
        fidelity = compare_outputs(theirs, ours, self.reference.evaluation)[0]
        figures = ("sqnr_db", "sqnr_median_db", "sqnr_worst_db", "cosine", "agreement", "incomparable")
        return {name: getattr(fidelity, name) for name in figures} | {
            "judged": len(outputs),
            "float_task": self.float_task,
            "task": self._task(outputs),
        }

    def _outputs(self, path: Path) -> list[dict[str, Array]]:
        session = Session(path)
        return [session.run(feed) for feed in self.reference.evaluation]

    def _task(self, outputs: Sequence[dict[str, Array]]) -> float | None:
        """Return the top-1 accuracy, the character error rate or AP50, each a share; None without labels."""
        found = accuracy(self.reference, [np.asarray(next(iter(named.values())), np.float32) for named in outputs])
        return 1.0 - found if found is not None and self.reference.kind == "recogniser" else found


def _in_turn(outputs: Sequence[dict[str, Array]]) -> Callable[[object], dict[str, Array]]:
    """Return a network that has run already: whatever it is fed, it returns its outputs one after the other."""
    rest = iter(outputs)
    return lambda _: next(rest)


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """What is the same for all rows of a network and a draw of calibration samples, which are in a file."""

    judge: Judge
    draw: int
    samples: Path
    count: int

    def run(self, row: Row) -> Record:
        """Quantize and judge once; what fails is said in the record's `error`."""
        reference = self.judge.reference
        record: Record = {"network": reference.name, "kind": reference.kind, "row": row.name, "targets": row.targets}
        record |= {"weights": row.weights, "draw": self.draw, "samples": self.count}
        with tempfile.TemporaryDirectory() as folder:
            model, output = Path(folder) / f"{reference.name}.onnx", Path(folder) / "int8.onnx"
            try:
                _place(reference.model_path, model, exactly=row.is_ours)
                record |= row.peer.run(model, self.samples, output, count=self.count)
                size = written_bytes(output)
                if size is None:
                    raise DataError("failed: wrote nothing")
                return record | {"size_ratio": size / reference.model_path.stat().st_size} | _codes(output) | self.judge.judge(output)
            except ZeropointError as error:
                return record | {"error": str(error)}


def _codes(path: Path) -> Record:
    written = read_written(path)
    return {
        "weighted": written.weighted,
        "integer": written.integer,
        "codes": written.codes,
        "suits": [target for target in TARGETS if target != "tensorrt" or written.suits_tensorrt],
    }


def _place(given: Path, path: Path, *, exactly: bool) -> None:
    """Put the network where its peer may write beside it, in a form that has scales per channel unless it is to be as it is."""
    network = None if exactly else onnx.load(given)
    if network is None or any(entry.domain == "" and entry.version >= PER_CHANNEL_OPSET for entry in network.opset_import):
        path.symlink_to(given)
    else:
        network = version_converter.convert_version(network, PEER_OPSET)
        _lift_weights(network.graph)
        onnx.save(network, path)


def _lift_weights(graph: onnx.GraphProto) -> None:
    """Make initializers of the weights in Constant nodes, of which Model Optimizer sees no channels.

    What is less than a matrix stays: NNCF fails where a Cast reads an initializer.
    """
    constants = [node for node in graph.node if node.op_type == "Constant" and node.attribute[0].HasField("t")]
    for node in constants:
        tensor = node.attribute[0].t
        if len(tensor.dims) > 1:
            graph.initializer.add().CopyFrom(tensor)
            graph.initializer[-1].name = node.output[0]
            graph.node.remove(node)


def measure_network(reference: Reference, rows: Sequence[Row], *, draws: int, log: Path) -> list[Record]:
    """Measure rows on one network, on one draw of calibration samples after the other."""
    judge, records = Judge(reference), []
    for draw in range(draws):
        with tempfile.TemporaryDirectory() as folder:
            feeds = calibration_draw(reference, draw)
            trial = Trial(judge, draw, Path(folder) / "samples.npz", len(feeds))
            save_samples(trial.samples, list(feeds))
            for row in rows:
                records.append(trial.run(row))
                append(log, records[-1])
                print(_progress(records[-1]), file=sys.stderr, flush=True)
    return records


def _progress(record: Record) -> str:
    told = record.get("error") or f"{record['sqnr_db']:.2f} dB, {record['wall_s']:.1f} s"
    return f"{record['network']}, draw {record['draw']}, {record['row']} for {' and '.join(record['targets'])}: {told}"


# --- the tables ------------------------------------------------------------------------------------------------------------

COLUMNS = (
    "network",
    "row",
    "SQNR",
    "median",
    "worst",
    "cosine",
    "agree",
    "task",
    "FP32",
    "INT8",
    "time",
    "size",
    "codes",
    "int8 ops",
    "note",
)
LEFT = ("network", "row", "task", "codes", "note")
TASKS = {"classifier": "top-1", "recogniser": "CER", "detector": "AP50"}
LONGEST_NOTE = 120


@dataclass(frozen=True, slots=True)
class Figure:
    """A column of figures: its field in the records, its factor and decimals in the tables, and the kinds of network that have it."""

    field: str
    factor: float = 1.0
    decimals: int = 2
    kinds: tuple[str, ...] = ("classifier", "recogniser", "detector", "encoder")

    def text(self, records: Sequence[Record]) -> str:
        """Return the mean over draws and, where they differ, half the distance from the least to the largest."""
        values = [self.factor * record[self.field] for record in records if record["kind"] in self.kinds and record[self.field] is not None]
        if not values:
            return "-"
        mean = f"{statistics.fmean(values):.{self.decimals}f}"
        spread = (max(values) - min(values)) / 2 if all(map(math.isfinite, values)) else 0.0
        return f"{mean}±{spread:.{self.decimals}f}" if spread > 0.0 else mean


FIGURES = {
    "SQNR": Figure("sqnr_db"),
    "median": Figure("sqnr_median_db"),
    "worst": Figure("sqnr_worst_db"),
    "cosine": Figure("cosine", decimals=4, kinds=("encoder",)),
    "agree": Figure("agreement", 100.0, kinds=("classifier",)),
    "FP32": Figure("float_task", 100.0),
    "INT8": Figure("task", 100.0),
    "time": Figure("time", decimals=1),
    "size": Figure("size_ratio"),
}


def print_tables(records: Sequence[Record], targets: Sequence[str]) -> None:
    """Print a table for each target, and below it the best peer in each column."""
    for target in targets:
        found = [record for record in records if target in _shown_for(record)]
        if found:
            print(f"\n{target}")
            _print_table([COLUMNS, *(_row(runs) for runs in _grouped(found, "network", "row"))])
            _print_best([record for record in found if not record["row"].startswith("zeropoint")])


def _shown_for(record: Record) -> Sequence[str]:
    """Return the targets in whose tables a record belongs: those that it is for, and of several those that its codes suit."""
    suits = record["targets"] if len(record["targets"]) == 1 else record.get("suits", TARGETS)
    return [target for target in record["targets"] if target in suits]


def _grouped(records: Sequence[Record], *fields: str) -> Iterator[list[Record]]:
    """Gather the records that are alike in `fields`, in the order in which each such group begins, network by network."""
    groups: dict[tuple[Any, ...], list[Record]] = {}
    for record in sorted(records, key=lambda record: NETWORKS.index(record["network"])):
        groups.setdefault(tuple(record[name] for name in fields), []).append(record)
    yield from groups.values()


def _row(runs: Sequence[Record]) -> tuple[str, ...]:
    good = [_with_time(run) for run in runs if "error" not in run]
    failures = [run["error"] for run in runs if "error" in run]
    notes = [f"{len(failures)} of {len(runs)} draws failed"] if failures and good else []
    notes += [failures[0][:LONGEST_NOTE]] if failures else []
    notes += [f"{run['incomparable']} samples without a number" for run in good if run["incomparable"]][:1]
    texts = {name: figure.text(good) for name, figure in FIGURES.items()}
    texts |= {"network": runs[0]["network"], "row": runs[0]["row"], "note": "; ".join(notes)}
    texts["task"] = TASKS.get(runs[0]["kind"], "") if texts["FP32"] != "-" else ""
    texts["codes"] = " ".join(good[0]["codes"]) if good else "-"
    texts["int8 ops"] = f"{good[0]['integer']} of {good[0]['weighted']}" if good else "-"
    return tuple(texts[name] for name in COLUMNS)


def _with_time(run: Record) -> Record:
    return run | {"time": run["wall_s"] / run["forward_s"]}


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = zip(COLUMNS, row, widths, strict=True)
        print("  ".join(cell.ljust(width) if name in LEFT else cell.rjust(width) for name, cell, width in cells).rstrip(), flush=True)


def _print_best(records: Sequence[Record]) -> None:
    """Print the best peer of each network in each column, which need not be the same one."""
    judged = ("SQNR", "median", "worst", "cosine", "agree", "INT8")
    for runs in _grouped([record for record in records if "error" not in record], "network"):
        found = (f"{name} {best}" for name in judged if (best := _best(runs, FIGURES[name])))
        print(f"best peer of {runs[0]['network']}: {', '.join(found)}")


def _best(runs: Sequence[Record], figure: Figure) -> str:
    """Return the best row's figure and name, or nothing where the network has no such figure."""
    scored = []
    for group in _grouped(runs, "row"):
        values = [run[figure.field] for run in group if run["kind"] in figure.kinds and run[figure.field] is not None]
        if values:
            scored.append((statistics.fmean(values), group))
    if not scored:
        return ""
    falling = figure.field == "task" and runs[0]["kind"] == "recogniser"
    _, group = (min if falling else max)(scored, key=lambda pair: pair[0])
    return f"{figure.text(group)} ({group[0]['row']})"


def print_foot(records: Sequence[Record], machine: Record) -> None:
    """Say where and with what the figures came about."""
    versions = sorted({f"{name} {version}" for record in records for name, version in record.get("versions", {}).items()})
    commits = sorted({record["commit"] for record in records if record["row"].startswith("zeropoint")})
    print(f"\n{machine_text(machine)}")
    print(", ".join((*versions, *(f"zeropoint at commit {commit}" for commit in commits))))


# --- the command -----------------------------------------------------------------------------------------------------------


def kept_records(paths: Sequence[Path]) -> tuple[list[Record], Record]:
    """Return the records of files, the last of each measurement, and the machine of the last file.

    Raises:
        DataError: there are no such files.
    """
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        raise DataError(f"{missing[0]}: not found, expected records of an earlier run")
    if not paths:
        raise DataError(f"{cache_folder('results')}: found no accuracy-*.jsonl, expected records of an earlier run; run one first")
    found: dict[tuple[Any, ...], Record] = {}
    for path in paths:
        machine, *records = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
        for record in records:
            key = (record["network"], record["row"], tuple(record["targets"]), record["draw"])
            found.pop(key, None)
            found[key] = record | {"commit": machine["commit"]}
    return list(found.values()), machine


def chosen_rows(options: argparse.Namespace) -> list[Row]:
    """Return the rows that the command line asks for."""
    rows = [
        our_row(configuration, target, weights)
        for weights in options.weights
        for target in options.targets
        for configuration in configurations(options.efforts, weights=weights, ablation=options.ablation)
    ]
    return [*rows, *(row for row in PEERS if row.name in options.peers and row.weights in options.weights and _meets(row, options))]


def _meets(row: Row, options: argparse.Namespace) -> bool:
    return bool(set(row.targets) & set(options.targets))


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line names, or take what was measured, print it, and return the exit code."""
    options = _parser().parse_args(arguments)
    names = options.networks or NETWORKS
    try:
        records, machine = _earlier(options, names) if options.again is not None else _measured(options, names)
    except ZeropointError as error:
        print(error, file=sys.stderr)
        return 2
    print_tables(records, options.targets)
    print_foot(records, machine)
    return 0 if any("error" not in record for record in records) else 1


def _earlier(options: argparse.Namespace, names: Sequence[str]) -> tuple[list[Record], Record]:
    """Return what earlier runs found of the networks and rows that the command line asks for."""
    records, machine = kept_records(options.again or sorted(cache_folder("results").glob("accuracy-*.jsonl")))
    order = {name: i for i, name in enumerate(dict.fromkeys(row.name for row in chosen_rows(options)))}
    chosen = (record for record in records if record["network"] in names and record["row"] in order and record["draw"] < options.draws)
    return sorted(chosen, key=lambda record: order[record["row"]]), machine


def _measured(options: argparse.Namespace, names: Sequence[str]) -> tuple[list[Record], Record]:
    log, machine = cache_folder("results") / f"accuracy-{time.strftime('%Y%m%d-%H%M%S')}.jsonl", machine_record()
    append(log, machine)
    found, missing = find(names)
    for note in missing:
        print(note, file=sys.stderr)
    rows = chosen_rows(options)
    records = [record for reference in found for record in measure_network(reference, rows, draws=options.draws, log=log)]
    print(f"records: {log}", file=sys.stderr)
    return [record | {"commit": machine["commit"]} for record in records], machine


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure what quantizing costs in accuracy.")
    peers = tuple(row.name for row in PEERS)
    parser.add_argument("networks", nargs="*", type=one_of(NETWORKS), metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--targets", type=some_of(TARGETS), default=TARGETS, help=f"of {', '.join(TARGETS)}")
    parser.add_argument("--efforts", type=_some_or_none(EFFORTS), default=EFFORTS, help=f"of {', '.join(EFFORTS)}, or none")
    parser.add_argument("--weights", type=some_of(tuple(WEIGHTS)), default=("int8",), help=f"of {', '.join(WEIGHTS)}; int8 by default")
    parser.add_argument("--peers", type=_some_or_none(peers), default=peers, help=f"of {', '.join(peers)}, or none")
    parser.add_argument("--draws", type=int, choices=range(1, DRAWS + 1), default=1, help="how many times other samples calibrate")
    parser.add_argument("--ablation", action="store_true", help="zeropoint also with each refinement alone, and without each")
    again = "print what these files or, without any, all files of records say, the last of each measurement; measure nothing"
    parser.add_argument("--again", type=Path, nargs="*", metavar="FILE", help=again)
    return parser


def _some_or_none(names: Sequence[str]) -> Callable[[str], list[str]]:
    return lambda text: [] if text == "none" else some_of(names)(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
