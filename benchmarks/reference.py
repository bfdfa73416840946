"""The reference networks with real calibration and evaluation data, for development and for the benchmarks.

`python benchmarks/reference.py [NAME ...]` prints them as a table. benchmarks/README.md says what each is and what it needs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from judges import average_precision, character_error_rate, top1
from prepare_models import cache_folder, model_path, whole
from samples import (
    Feed,
    Pixels,
    Samples,
    cifar,
    coco,
    files,
    more_cifar,
    more_coco,
    more_sentences,
    more_text_lines,
    pages,
    photos,
    sentences,
    shared_model,
    text_lines,
    turned_lines,
    voices,
)

from zeropoint.errors import DataError, ZeropointError
from zeropoint.notes import Note

Kind = Literal["classifier", "recogniser", "detector", "encoder", "recurrent"]
SPLITS = ("calibration", "evaluation")
MORE = "more"  # the split of what two more draws calibrate by, in a file of its own: most uses have no need of it
DRAWS = 3
DRAWN_SHARE = 0.75  # of the calibration samples, where there are no more of the kind


@dataclass(frozen=True, slots=True)
class Affine:
    """What is done to pixels before the network: (pixel - mean) / std, in units of 0..255."""

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def feed(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return `pixels` (H, W, 3) as the network takes them: float32 (1, 3, H, W)."""
        normal = (pixels.astype(np.float32) - np.array(self.mean, np.float32)) / np.array(self.std, np.float32)
        return np.ascontiguousarray(normal.transpose(2, 0, 1)[None])


RAW, UNIT, LITE, CENTRED = Affine((0.0,), (1.0,)), Affine((0.0,), (255.0,)), Affine((127.0,), (128.0,)), Affine((127.5,), (127.5,))
IMAGENET = Affine((123.675, 116.28, 103.53), (58.395, 57.12, 57.375))


@dataclass(frozen=True, slots=True)
class Feeds(Sequence[Feed]):
    """The samples of one split, each read from the cache when it is asked for: inputs of batch 1 by name."""

    path: Path
    split: str
    size: int
    affine: Affine | None  # None where the samples are not images

    def __len__(self) -> int:
        return self.size

    @overload
    def __getitem__(self, index: int) -> Feed: ...
    @overload
    def __getitem__(self, index: slice) -> list[Feed]: ...
    def __getitem__(self, index: int | slice) -> Feed | list[Feed]:
        if isinstance(index, slice):
            return [self[i] for i in range(self.size)[index]]
        entries, prefix = _opened(self.path), f"{self.split}/{range(self.size)[index]}/"
        feed = {key.removeprefix(prefix): entries[key] for key in _members(self.path)[prefix]}
        return feed if self.affine is None else {name: self.affine.feed(array) for name, array in feed.items()}


def _opened(path: Path) -> Any:
    return _opened_by(path, os.getpid())


@lru_cache(maxsize=16)
def _opened_by(path: Path, _: int) -> Any:
    # One open file for each process: after a fork, parent and child would move one file position.
    return np.load(path, allow_pickle=False)


@lru_cache(maxsize=16)
def _members(path: Path) -> dict[str, list[str]]:
    members: dict[str, list[str]] = {}
    for key in _opened(path).files:
        members.setdefault(key[: key.rfind("/") + 1], []).append(key)
    return members


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A network and its data.

    labels: class indices int64 or texts, one for each evaluation sample, or the boxes of all of them, float32 (boxes, 6); None where
    nothing is known.
    """

    name: str
    model_path: Path
    calibration: Sequence[Feed]
    evaluation: Sequence[Feed]
    labels: npt.NDArray[np.generic] | None
    kind: Kind


@dataclass(frozen=True, slots=True)
class Source:
    """How one reference comes about; `make`, and `more` for the samples of two more draws, take the path of the network."""

    name: str
    kind: Kind
    model: Callable[[str], Path]
    make: Callable[[Path], Samples]
    affine: Affine | None = None
    more: Callable[[Path], Sequence[Feed]] | None = None

    def reference(self) -> Reference:
        """Return the reference, making what the cache lacks.

        Raises:
            ZeropointError: a network, a package or data cannot be had.
        """
        model = self.model(self.name)
        path = cache_folder("data") / f"{self.name}.npz"
        if not path.exists():
            made = self.make(model)
            _save(path, dict(zip(SPLITS, (made.calibration, made.evaluation), strict=True)), made.labels)
        groups = list(_members(path))
        sizes = {split: sum(group.startswith(f"{split}/") for group in groups) for split in SPLITS}
        calibration, evaluation = (Feeds(path, split, sizes[split], self.affine) for split in SPLITS)
        labels = _opened(path)["labels"] if "" in groups else None
        return Reference(self.name, model, calibration, evaluation, labels, self.kind)

    def more_feeds(self, make: Callable[[Path], Sequence[Feed]]) -> Feeds:
        """Return the samples of two more draws, which `make` makes where the cache lacks them."""
        path = cache_folder("data") / f"{self.name}-{MORE}.npz"
        if not path.exists():
            _save(path, {MORE: make(self.model(self.name))})
        return Feeds(path, MORE, len(_members(path)), self.affine)


def calibration_draw(reference: Reference, draw: int) -> Sequence[Feed]:
    """Return what calibrates in the draw of that number: the calibration samples in draw 0, as many others of their kind in 1 and 2.

    Where there are no others, 1 and 2 are random parts of the calibration samples, of three quarters each.
    """
    if draw == 0:
        return reference.calibration
    source, count = next(source for source in SOURCES if source.name == reference.name), len(reference.calibration)
    if source.more is not None:
        return source.more_feeds(source.more)[(draw - 1) * count : draw * count]
    chosen = np.random.default_rng(draw).permutation(count)[: round(DRAWN_SHARE * count)]
    return [reference.calibration[int(i)] for i in sorted(chosen)]


def _save(path: Path, splits: Mapping[str, Sequence[Feed]], labels: Any = None) -> None:
    arrays = {
        f"{split}/{i}/{name}": array for split, feeds in splits.items() for i, feed in enumerate(feeds) for name, array in feed.items()
    }
    if labels is not None:
        arrays["labels"] = np.array(labels)
    with whole(path) as unfinished, unfinished.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]  # its stub takes allow_pickle for one of them


SOURCES = (
    Source("efficientnet-lite0", "classifier", model_path, photos, LITE),
    Source("cifar_resnet8", "classifier", shared_model, cifar, RAW, more_cifar),
    Source("cifar_resnet20", "classifier", shared_model, cifar, IMAGENET, more_cifar),
    Source("cifar_mobilenetv3s", "classifier", shared_model, cifar, IMAGENET, more_cifar),
    Source("cifar_vit", "classifier", shared_model, cifar, IMAGENET, more_cifar),
    Source("fastestdet", "detector", shared_model, coco, UNIT, more_coco),
    Source("ppocr-rec", "recogniser", model_path, text_lines, CENTRED, more_text_lines),
    Source("ppocr-det", "detector", model_path, pages, IMAGENET),
    Source("ppocr-cls", "classifier", model_path, turned_lines, CENTRED),
    Source("minilm", "encoder", model_path, sentences, more=more_sentences),
    Source("silero-vad", "recurrent", model_path, voices),
    Source("silero-ifless", "recurrent", model_path, voices),
    Source("magika", "classifier", model_path, files),
)


def find(names: Sequence[str] = ()) -> tuple[list[Reference], list[Note]]:
    """Return the references called `names`, or all of them, and a note for each one that cannot be had here.

    Raises:
        DataError: there is no reference of such a name.
    """
    unknown = sorted(set(names) - {source.name for source in SOURCES})
    if unknown:
        raise DataError(f"reference: found {', '.join(unknown)}, expected some of {', '.join(source.name for source in SOURCES)}")
    found, missing = [], []
    for source in SOURCES:
        if not names or source.name in names:
            try:
                found.append(source.reference())
            except ZeropointError as error:
                missing.append(Note(source.name, f"skipped: {error}"))
    return found, missing


def references(names: Sequence[str] = ()) -> list[Reference]:
    """Return the references called `names`, or all of them; what cannot be had here is said on standard error and left out."""
    found, missing = find(names)
    for note in missing:
        print(note, file=sys.stderr)
    return found


def accuracy(reference: Reference, outputs: Sequence[npt.NDArray[np.float32]]) -> float | None:
    """Return the top-1 accuracy, or 1 - character error rate of a recogniser, or AP50 of a detector, or None without labels.

    outputs: the network's first output for each evaluation sample.
    """
    labels = reference.labels
    if labels is None:
        return None
    if reference.kind == "recogniser":
        return 1.0 - character_error_rate(outputs, [str(label) for label in labels], alphabet(reference.model_path))
    return average_precision(outputs, labels.astype(np.float32)) if reference.kind == "detector" else top1(outputs, labels)


@lru_cache(maxsize=1)
def alphabet(path: Path) -> tuple[str, ...]:
    """Return the characters of the recogniser at `path`: a blank, the lines of the network's metadata, a space."""
    metadata = ort.InferenceSession(path, providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    return ("", *metadata["character"].splitlines(), " ")


def run_all(path: Path, feeds: Sequence[Feed]) -> list[npt.NDArray[np.float32]]:
    """Return the first output of the network at `path` for each feed, by ONNX Runtime on the CPU."""
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    return [np.asarray(session.run(None, feed)[0], np.float32) for feed in feeds]


def _row(reference: Reference) -> tuple[str, ...]:
    network = onnx.load(reference.model_path)
    opset = next(entry.version for entry in network.opset_import if entry.domain in ("", "ai.onnx"))
    nodes, parameters = _size(network.graph)
    outputs = [] if reference.labels is None else run_all(reference.model_path, reference.evaluation)
    score = accuracy(reference, outputs)
    return (
        reference.name,
        reference.kind,
        str(opset),
        ", ".join(_input_texts(network.graph)),
        f"{nodes:,}",
        f"{parameters / 1e6:.2f} M",
        f"{reference.model_path.stat().st_size / 1e6:.1f}",
        str(len(reference.calibration)),
        str(len(reference.evaluation)),
        "" if score is None else f"{score:.4f}",
    )


def _size(graph: onnx.GraphProto) -> tuple[int, int]:
    """Return the nodes and the float parameters of a graph and the graphs inside its nodes."""
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    nodes, tensors = len(graph.node), list(graph.initializer)
    parameters = 0
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        if attribute.type == onnx.AttributeProto.TENSOR:
            tensors.append(attribute.t)
        elif attribute.type == onnx.AttributeProto.GRAPH:
            inner_nodes, inner_parameters = _size(attribute.g)
            nodes, parameters = nodes + inner_nodes, parameters + inner_parameters
    return nodes, parameters + sum(int(np.prod(tensor.dims)) for tensor in tensors if tensor.data_type in floats)


def _input_texts(graph: onnx.GraphProto) -> list[str]:
    """Return each input as name, type and shape; before IR version 4 a graph lists its weights there too."""
    weights = {tensor.name for tensor in graph.initializer}
    texts = []
    for value in graph.input:
        if value.name not in weights:
            kind = value.type.tensor_type
            shape = ",".join(str(dim.dim_value) if dim.dim_value > 0 else "?" for dim in kind.shape.dim)
            texts.append(f"{value.name} {onnx.TensorProto.DataType.Name(kind.elem_type).lower()}[{shape}]")
    return texts


def main(names: Sequence[str]) -> int:
    """Print the references called `names`, or all of them, as a table; return the exit code."""
    try:
        found, missing = find(names)
    except ZeropointError as error:
        print(error, file=sys.stderr)
        return 2
    columns = ("name", "kind", "opset", "inputs", "nodes", "parameters", "MB", "calibration", "evaluation", "FP32 accuracy")
    rows = [columns, *map(_row, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    for note in missing:
        print(note)
    return 0 if found else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
