"""Measure the time and memory of zeropoint and of its peers: `python benchmarks/calibration.py [NETWORK ...] [--growth]`.

Every measurement is a fresh process in its peer's own environment, on the same file and the same samples, fed one at a time from memory.
Wall and CPU time are those of the call alone, from the file of the model to the file that it writes; forward is a plain run of the float
network over the same samples, in the same process right after the call; memory is resident, in MB of 1e6 bytes. Records are kept as
lines of JSON below benchmarks/.cache/results; benchmarks/README.md says how to read the table.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from peers.environments import ENVIRONMENTS
from peers.protocol import Feed, save_samples
from prepare_models import cache_folder, model_path, smooth_image, whole
from reference import find
from workers import Peer, Record, append, machine_record, machine_text, one_of, some_of, written_bytes

from zeropoint.errors import DataError, ZeropointError

SAMPLES = 128
GROWTH = (32, 128, 512, 2048)  # samples
PHOTOS = "efficientnet-lite0"  # the reference whose photos the other image networks take too
NETWORKS = {"resnet50": PHOTOS, PHOTOS: PHOTOS, "mobilenetv2": PHOTOS, "squeezenet": PHOTOS, "minilm": "minilm"}  # and their samples


PEERS = {
    "forward": Peer("run_forward.py"),
    "zeropoint": Peer("run_zeropoint.py", method="onnxruntime", options={"effort": "fast"}),  # what calibrating costs, and no more
    "zeropoint-trt": Peer("run_zeropoint.py", method="tensorrt", options={"effort": "fast"}),
    "ort-minmax": Peer("run_onnxruntime.py", "onnxruntime", "MinMax"),
    "ort-entropy": Peer("run_onnxruntime.py", "onnxruntime", "Entropy"),
    "ort-percentile": Peer("run_onnxruntime.py", "onnxruntime", "Percentile"),
    "nncf-onnx": Peer("run_nncf.py", "nncf", "onnx"),
    "nncf-openvino": Peer("run_nncf.py", "nncf", "openvino", ".xml"),
    "onnxsim": Peer("run_onnxsim.py", "onnxsim", options={"full_graph": True}),
    "modelopt-max": Peer("run_modelopt.py", "modelopt", "max"),
    "modelopt-entropy": Peer("run_modelopt.py", "modelopt", "entropy"),
}
assert {peer.environment for peer in PEERS.values()} == {"", *ENVIRONMENTS}


# --- one measurement -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Trial:
    """A peer on a network, with the file of the samples, how many of them to use, and whether they are photos or made up."""

    network: str
    peer: str
    samples: Path
    count: int

    def run(self) -> Record:
        """Measure once; what fails is said in the record's `error`."""
        record: Record = {"network": self.network, "peer": self.peer, "samples": self.count, "data": self.samples.stem}
        peer = PEERS[self.peer]
        with tempfile.TemporaryDirectory() as folder:
            # A link in the folder, since some peers write beside the model.
            model, output = Path(folder) / f"{self.network}.onnx", Path(folder) / f"int8{peer.suffix}"
            model.symlink_to(model_path(self.network))
            try:
                record |= peer.run(model, self.samples, output, count=self.count)
            except DataError as error:
                return record | {"error": str(error)}
            written = written_bytes(output)
            return record | {"file_mb": None if written is None else written / 1e6}


def sample_file(name: str) -> Path:
    """Return the file of the calibration samples of the reference called `name`, writing it on first use.

    Photos that are not here are replaced by smooth random images, in a file of that name.

    Raises:
        DataError: the sentences cannot be had.
    """
    found, missing = find([name])
    if not found and name != PHOTOS:
        raise DataError(str(missing[0]))
    path = cache_folder("samples") / f"{name if found else 'random-images'}.npz"
    if not path.exists():
        images: Iterator[Feed] = ({"image": smooth_image(seed)[np.newaxis]} for seed in range(1000, 1000 + SAMPLES))
        with whole(path) as unfinished:
            save_samples(unfinished, list(found[0].calibration if found else images))
    return path


# --- the table -------------------------------------------------------------------------------------------------------------

COLUMNS = ("network", "peer", "samples", "wall s", "CPU s", "forward s", "wall/fwd", "wall/med", "before MB", "peak MB", "file MB", "note")
WIDTHS = (18, 16, 7, 8, 8, 9, 8, 8, 9, 8, 7, 4)
# Each a field of the records, and how many decimals it has in the table.
FIGURES = (
    ("wall_s", 2),
    ("cpu_s", 2),
    ("forward_s", 2),
    ("ratio", 2),
    ("steady_ratio", 2),
    ("before_mb", 0),
    ("peak_mb", 0),
    ("file_mb", 2),
)
LONGEST_NOTE = 120


def print_row(cells: Sequence[str]) -> None:
    """Print one line, names and notes to the left and figures to the right."""
    left = (0, 1, len(cells) - 1)
    aligned = [cell.ljust(width) if i in left else cell.rjust(width) for i, (cell, width) in enumerate(zip(cells, WIDTHS, strict=True))]
    print("  ".join(aligned).rstrip(), flush=True)


def print_rows(records: Sequence[Record]) -> None:
    """Print a row for each peer and number of samples on each network."""
    groups: dict[tuple[str, int, str], list[Record]] = {}
    forwards: dict[tuple[str, int], list[float]] = {}
    for record in records:
        groups.setdefault((record["network"], record["samples"], record["peer"]), []).append(record)
        if "error" not in record:
            forwards.setdefault((record["network"], record["samples"]), []).append(record["forward_s"])
    for (network, count, peer), runs in groups.items():
        figures = _figures(runs, statistics.median(forwards.get((network, count), [0.0])))
        print_row((network, peer, str(count), *figures))


def _figures(runs: Sequence[Record], forward: float) -> tuple[str, ...]:
    """Return the medians of what was measured again and again, or what went wrong.

    forward: the median of the plain run over all peers, in s.
    """
    good = [run for run in runs if "error" not in run]
    if not good:
        return (*["-"] * len(FIGURES), runs[0]["error"][:LONGEST_NOTE])
    with_ratios = [run | {"ratio": run["wall_s"] / run["forward_s"], "steady_ratio": run["wall_s"] / forward} for run in good]
    note = "" if len(good) == len(runs) else f"{len(runs) - len(good)} of {len(runs)} runs failed"
    return (*(_median(with_ratios, *column) for column in FIGURES), note)


def _median(runs: Sequence[Record], field: str, decimals: int) -> str:
    values = [run[field] for run in runs if run[field] is not None]
    return f"{statistics.median(values):.{decimals}f}" if values else "-"


def print_foot(records: Sequence[Record], machine: Record) -> None:
    """Say where and with what the figures came about."""
    versions = {f"{name} {version}" for record in records for name, version in record.get("versions", {}).items()}
    made_up = any(record["data"] == "random-images" for record in records)
    print(machine_text(machine))
    print(", ".join((*sorted(versions), f"zeropoint at commit {machine['commit']}")))
    if made_up:
        print("images: smooth random ones, since the photos are not here (benchmarks/README.md says how to point at them)")


def print_again(path: Path) -> None:
    """Print the table of a file of records."""
    machine, *records = (json.loads(line) for line in path.read_text(encoding="utf-8").splitlines())
    print_row(COLUMNS)
    print_rows(records)
    print_foot(records, machine)


# --- the command -----------------------------------------------------------------------------------------------------------


def measure_network(network: str, pairs: Sequence[tuple[str, int]], *, repeat: int, log: Path) -> list[Record]:
    """Measure pairs of a peer and a number of samples on one network, and print a row for each.

    The peers take turns, so that what disturbs the machine for a while disturbs them all.
    """
    samples = sample_file(NETWORKS[network])
    model_path(network)
    records: list[Record] = []
    for turn in range(repeat):
        for peer, count in pairs:
            print(f"{network}: {peer}, {count} samples, run {turn + 1} of {repeat}", file=sys.stderr)
            records.append(Trial(network, peer, samples, count).run())
            append(log, records[-1])
    print_rows(records)
    return records


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line names, print it, and return the exit code."""
    options = _parser().parse_args(arguments)
    if options.again is not None:
        print_again(options.again)
        return 0
    kind = "growth" if options.growth else "calibration"
    log, machine = cache_folder("results") / f"{kind}-{time.strftime('%Y%m%d-%H%M%S')}.jsonl", machine_record()
    append(log, machine)
    pairs = [(peer, count) for count in (GROWTH if options.growth else (options.samples,)) for peer in options.peers or _peers(kind)]
    print_row(COLUMNS)
    records: list[Record] = []
    for network in options.networks or NETWORKS:
        try:
            records += measure_network(network, pairs, repeat=options.repeat, log=log)
        except ZeropointError as error:
            print(f"{network}: skipped: {error}", file=sys.stderr)
    print_foot(records, machine)
    print(f"records: {log}")
    return 0 if any("error" not in record for record in records) else 1


def _peers(kind: str) -> Sequence[str]:
    return ("forward", "zeropoint") if kind == "growth" else tuple(PEERS)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the time and memory of quantizing.")
    parser.add_argument("networks", nargs="*", type=one_of(tuple(NETWORKS)), metavar="NETWORK", help=f"of {', '.join(NETWORKS)}")
    parser.add_argument("--peers", type=some_of(tuple(PEERS)), help=f"of {', '.join(PEERS)}")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="how many calibrate; after 128 they come again")
    parser.add_argument("--growth", action="store_true", help=f"zeropoint and the plain run, on {', '.join(map(str, GROWTH))} samples")
    parser.add_argument("--repeat", type=int, default=1, help="how often to measure; medians are printed")
    parser.add_argument("--again", type=Path, metavar="FILE", help="print the table of these records, and measure nothing")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
