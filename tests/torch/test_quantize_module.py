from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from tests.torch.modules import Branching, Nested, Network, Reshaping, Tokens, TwoInTwoOut, randn
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

import zeropoint as zp
from zeropoint import cli
from zeropoint.torch import sources
from zeropoint.torch.arguments import bind
from zeropoint.torch.feeding import forward_of, match, parts_by_name, ready
from zeropoint.torch.verification import trial

IMAGES, LABELS = randn(21, 3, 8, 8), torch.arange(21) % 4
FAST: dict[str, Any] = {"target": "tensorrt", "effort": "fast", "samples": 12}


class Residual(nn.Module):
    """Two convolutions with batch normalization around a shortcut."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.norm1 = nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.conv2, self.norm2 = nn.Conv2d(16, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(16, 4)
        for norm in (self.norm1, self.norm2):
            norm.running_mean += randn(16) / 4
            norm.running_var += randn(16).abs()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.norm1(self.conv1(image)))
        x = torch.relu(self.norm2(self.conv2(x)) + x)
        return self.head(self.drop(x.mean((2, 3))))


class Pairs(Dataset):
    def __len__(self) -> int:
        return len(IMAGES)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return IMAGES[index], int(LABELS[index])


class Stream(IterableDataset):
    """Has a length too, but no index."""

    def __len__(self) -> int:
        return len(IMAGES)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, int]]:
        return ((image, int(label)) for image, label in zip(IMAGES, LABELS, strict=True))


@pytest.fixture(scope="module")
def module() -> nn.Module:
    return Residual()


@pytest.fixture(scope="module")
def file(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("exported") / "residual.onnx"
    zp.torch.export(module, IMAGES[:2], path)
    return path


@pytest.fixture(scope="module")
def expected(file: Path) -> Any:
    """The two-step way: the module's file, and the samples as an array."""
    return zp.quantize(file, data=IMAGES.numpy(), labels=LABELS.numpy(), **FAST)


@pytest.fixture
def exported(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """What the first module is exported as, also for those that follow: the exporter takes seconds. It lists the shapes of the samples."""
    shapes: list[tuple[int, ...]] = []

    def export(module: nn.Module, args: Any, path: Path, **options: Any) -> Any:
        tensors = [*args, *options["kwargs"].values()]
        shapes.extend(tuple(tensor.shape) for tensor in tensors)
        key = (id(type(module)), *(tensor.ndim for tensor in tensors))
        if key not in KEPT:
            found = zp.torch.export(module, args, path, **options)
            KEPT[key] = (found, path.read_bytes())
        found, content = KEPT[key]
        path.write_bytes(content)
        return found

    monkeypatch.setattr(sources, "export", export)
    return shapes


KEPT: dict[tuple[int, ...], Any] = {}


# --- it is the network that zeropoint.torch.export writes --------------------------------------------------------------------


def test_module_is_quantized_as_its_file_is(module: nn.Module, file: Path, expected: Any, tmp_path: Path) -> None:
    module.train()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    modes = [part.training for part in module.modules()]
    found = zp.quantize(module, data=DataLoader(TensorDataset(IMAGES, LABELS), batch_size=4), labels="data", **FAST)
    assert found.plan.entries == expected.plan.entries
    assert found.plan.corrections == expected.plan.corrections
    assert len(found.plan.entries) >= 2
    assert found.plan.provenance.model_sha256 == expected.plan.provenance.model_sha256
    assert found.plan.provenance.model == "Residual"
    assert found.plan.provenance.calibration_data == "12 of 21 samples of a DataLoader (6 items read and held)"
    assert found.evidence.fidelity[0].accuracy == expected.evidence.fidelity[0].accuracy
    assert found.evidence.float_bytes == file.stat().st_size
    found.save(tmp_path / "q.onnx")
    assert (tmp_path / "q.onnx").read_bytes() == _saved(expected, tmp_path)
    assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items())
    assert [part.training for part in module.modules()] == modes == [True] * len(modes)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    assert all(p.requires_grad and p.grad is None for p in module.parameters())


def _saved(result: Any, folder: Path) -> bytes:
    result.save(folder / "expected.onnx")
    return (folder / "expected.onnx").read_bytes()


LOADED = DataLoader(TensorDataset(IMAGES, LABELS), batch_size=5)
DATA: dict[str, Callable[[], object]] = {
    "loader-of-odd-batches": lambda: LOADED,
    "loader-of-single-samples": lambda: DataLoader(Pairs(), batch_size=None),
    "loader-with-workers": lambda: DataLoader(Pairs(), batch_size=8, num_workers=1),
    "data-set": Pairs,
    "tensor-data-set": lambda: TensorDataset(IMAGES, LABELS),
    "iterable-data-set": Stream,
    "list-of-loaded": lambda: list(LOADED),
    "list-of-pairs": lambda: list(Pairs()),
    "list-of-single-tensors": lambda: list(IMAGES),
    "list-of-batches": lambda: [IMAGES[:2], IMAGES[2:9], IMAGES[9:]],
    "generator": lambda: (batch for batch in LOADED),
    "generator-of-pairs": lambda: iter(Stream()),
    "tensor": lambda: IMAGES,
    "tensor-with-gradient": lambda: IMAGES.clone().requires_grad_(),
    "double-array": lambda: IMAGES.double().numpy(),
    "dict": lambda: {"image": IMAGES, "label": LABELS},
    "dicts": lambda: [{"image": i, "target": t, "index": n} for n, (i, t) in enumerate(LOADED)],
    "images-with-targets-in-dicts": lambda: [(image[None], {"boxes": torch.zeros(2, 4)}) for image in IMAGES],
    "function": lambda: lambda: LOADED,
    "three-parts": lambda: TensorDataset(IMAGES, LABELS, torch.arange(21)),
    "inputs-in-a-dict-and-a-label": lambda: [({"image": i}, t) for i, t in LOADED],
}


@pytest.mark.parametrize("data", DATA.values(), ids=DATA)
def test_every_form_of_data_gives_the_same_plan(
    data: Callable[[], object], module: nn.Module, expected: Any, exported: list[tuple[int, ...]]
) -> None:
    found = zp.quantize(module, data=data(), **FAST)
    assert found.plan.entries == expected.plan.entries
    assert found.evidence.evaluation_data.startswith("9 of 21 samples")
    assert len(exported[0]) == 4
    assert exported[0][0] <= 2  # however large the batches are


def test_bfloat16_samples_are_widened(module: nn.Module, exported: list[tuple[int, ...]]) -> None:
    coarse = IMAGES.bfloat16()
    found = zp.quantize(module, data=coarse, **FAST, evaluate=False)
    assert found.plan.entries == zp.quantize(module, data=coarse.float(), **FAST, evaluate=False).plan.entries


@pytest.mark.parametrize("kind", ["npy", "npz", "folder", "reference"])
def test_files_and_references_feed_modules_too(
    kind: str, module: nn.Module, expected: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exported: list[tuple[int, ...]]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("images.npy", IMAGES.numpy())
    np.savez("images.npz", image=IMAGES.numpy())
    Path("folder").mkdir()
    shutil.copy("images.npy", "folder/images.npy")
    Path("calibration_samples.py").write_text("import numpy as np\ndef samples():\n    return list(np.load('images.npy'))\n")
    data = {"npy": "images.npy", "npz": Path("images.npz"), "folder": "folder", "reference": "calibration_samples.py:samples"}[kind]
    assert zp.quantize(module, data=data, **FAST).plan.entries == expected.plan.entries


def test_folder_of_images(module: nn.Module, tmp_path: Path, exported: list[tuple[int, ...]]) -> None:
    from PIL import Image

    for number in range(3):
        Image.fromarray(np.full((12, 12, 3), 60 * number, np.uint8)).save(tmp_path / f"{number}.png")
    found = zp.quantize(module, data=tmp_path, preprocess=["imagenet", "crop=[8, 8]", "resize.size=8"], **FAST)
    assert exported == [(1, 3, 8, 8)]
    assert "3 images" in found.plan.provenance.calibration_data


def test_samples_are_counted_and_not_batches(module: nn.Module, exported: list[tuple[int, ...]]) -> None:
    read = []

    def batches() -> Iterator[torch.Tensor]:
        for start in range(0, 21, 4):
            read.append(start)
            yield IMAGES[start : start + 4]

    found = zp.quantize(module, data=batches(), **{**FAST, "samples": 6}, evaluate=False)
    assert found.plan.provenance.calibration_data.startswith("6 of 8 samples")
    assert read == [0, 4]


def test_eval_data_is_the_sample_where_a_plan_takes_the_place_of_data(
    module: nn.Module, expected: Any, exported: list[tuple[int, ...]]
) -> None:
    found = zp.quantize(module, plan=expected.plan, eval_data=LOADED, labels="data", target="tensorrt")
    assert found.plan.entries == expected.plan.entries
    assert found.evidence.evaluation_data == "21 of 21 samples of a DataLoader (5 items read and held)"
    with torch.no_grad():
        right = float((module.eval()(IMAGES).argmax(1) == LABELS).float().mean())
    assert found.evidence.fidelity[0].float_accuracy == pytest.approx(right)
    assert not any("another file" in note.reason for note in found.notes)


def test_loader_that_judges_what_it_calibrated_is_told_of(module: nn.Module, exported: list[tuple[int, ...]]) -> None:
    found = zp.quantize(module, data=LOADED, eval_data=LOADED, **FAST)
    assert [note.kind for note in found.notes if note.where == "held-out"] == ["warning"]
    assert found.evidence.evaluation_data.startswith("21 of 21")


def test_checkpoint_goes_on_to_the_same_plan(module: nn.Module, expected: Any, tmp_path: Path, exported: list[tuple[int, ...]]) -> None:
    kept = tmp_path / "kept.stats"
    first = zp.quantize(module, data=LOADED, **FAST, checkpoint=kept, evaluate=False)
    again = zp.quantize(module, data=LOADED, **FAST, checkpoint=kept, evaluate=False)
    assert again.plan == first.plan
    with pytest.raises(zp.ModelError, match=r"PyTorch module Residual.*zeropoint\.torch\.export"):
        zp.solve(kept, module, target="tensorrt")


def test_report_speaks_of_the_module(module: nn.Module, tmp_path: Path, exported: list[tuple[int, ...]]) -> None:
    pytest.importorskip("altair")
    page = zp.quantize(module, data=LOADED, **FAST).report(tmp_path / "report.html", samples=2).read_text()
    assert "Residual for tensorrt" in page
    assert "Residual, a PyTorch module" in page


def test_compiled_and_parallel_modules_are_those_inside(module: nn.Module, expected: Any, exported: list[tuple[int, ...]]) -> None:
    for wrapped in (nn.DataParallel(module), torch.compile(module)):
        found = zp.quantize(wrapped, data=LOADED, **FAST)
        assert found.plan.entries == expected.plan.entries
        assert found.plan.provenance.model == "Residual"


# --- labels ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [LOADED, Pairs(), {"image": IMAGES, "label": LABELS}, list(Pairs())],
    ids=["loader", "data set", "dict", "pairs"],
)
def test_labels_are_those_of_the_samples_held_out(data: object, module: nn.Module, expected: Any, exported: list[tuple[int, ...]]) -> None:
    found = zp.quantize(module, data=data, labels="data", **FAST)
    fidelity = found.evidence.fidelity[0]
    assert (fidelity.accuracy, fidelity.float_accuracy) == (
        expected.evidence.fidelity[0].accuracy,
        expected.evidence.fidelity[0].float_accuracy,
    )
    assert zp.quantize(module, data=data, **FAST).evidence.fidelity[0].accuracy is None


WITHOUT_LABELS: dict[str, tuple[object, str]] = {
    "no-labels": (IMAGES, r"labels 'data': arrays in memory, 'data\[\d+\]': found no label"),
    "floats": ([(image, 0.5) for image in IMAGES], "found no label"),
    "one-hot": (TensorDataset(IMAGES, torch.eye(21)), "found no label"),
    "negative": ([(image, -100) for image in IMAGES], "found label -100, expected class indices from 0"),
    "too-few": ([(IMAGES[:20], LABELS[:3])], "found no label"),
}


@pytest.mark.parametrize(("data", "message"), WITHOUT_LABELS.values(), ids=WITHOUT_LABELS)
def test_data_without_labels(data: object, message: str, module: nn.Module, exported: list[tuple[int, ...]]) -> None:
    with pytest.raises(zp.DataError, match=message):
        zp.quantize(module, data=data, labels="data", **FAST)


def test_labels_of_data_need_a_modules_data(file: Path) -> None:
    with pytest.raises(zp.DataError, match=r"labels 'data'.*found no label"):
        zp.quantize(file, data=IMAGES.numpy(), labels="data", **FAST)


# --- which part of an item is which input ----------------------------------------------------------------------------------


class Encoder(nn.Module):
    """As language models are: everything by name, and a loss where labels are given."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table, self.body, self.head = nn.Embedding(11, 16), nn.Linear(16, 16), nn.Linear(16, 3)

    def forward(
        self, input_ids: torch.Tensor | None = None, attention_mask: torch.Tensor | None = None, labels: torch.Tensor | None = None
    ) -> torch.Tensor:
        assert labels is None
        x = torch.relu(self.body(self.table(input_ids)))
        return self.head(x if attention_mask is None else x * attention_mask.unsqueeze(-1))


def test_dicts_of_a_tokenizer_are_fed_by_name() -> None:
    generator = torch.Generator().manual_seed(0)
    items = [
        {
            "labels": torch.tensor([n % 3, 1]),
            "input_ids": torch.randint(0, 11, (2, 5), generator=generator),
            "attention_mask": torch.ones(2, 5),
            "text": ["a", "b"],
        }
        for n in range(6)
    ]
    found = zp.quantize(Encoder(), data=items, **FAST)
    assert [value.name for value in found.model.graph.inputs] == ["input_ids", "attention_mask"]
    assert found.plan.entries
    assert [note.reason for note in found.notes if note.where == "data"] == ["not fed to Encoder: 'text' in each item"]


def test_two_inputs_come_in_tuples(exported: list[tuple[int, ...]]) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.left, self.right = nn.Linear(32, 16), nn.Linear(16, 16)

        def forward(self, a: torch.Tensor, b: torch.Tensor, scale: float = 2.0) -> torch.Tensor:
            return torch.relu(self.left(a)) + self.right(b) * scale

    module = Two()
    a, b = randn(10, 32), randn(10, 16, seed=1)
    found = zp.quantize(module, data=TensorDataset(a, b, torch.arange(10)), **FAST)
    again = zp.quantize(module, data={"a": a.numpy(), "b": b.numpy()}, **FAST)
    assert [value.name for value in found.model.graph.inputs] == ["a", "b"]
    assert found.plan.entries == again.plan.entries
    assert {entry.tensor for entry in found.plan.entries} >= {"a", "b"}


class Trainer(nn.Module):
    """Needs its labels."""

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return x.sum() - labels


X, Y, LABEL = randn(2, 4), randn(2, 4, seed=1), torch.tensor([1, 0])
ITEMS: dict[str, tuple[nn.Module, object, list[str], list[int] | None]] = {
    "tensor": (Network(), X, ["image"], None),
    "tensor-and-label": (Network(), (X, LABEL), ["image"], [1, 0]),
    "list-of-a-loader": (Network(), [X, LABEL], ["image"], [1, 0]),
    "target-in-a-dict": (Network(), (X, {"labels": LABEL}), ["image"], None),
    "python's-label": (Network(), (X[0], 3), ["image"], [3]),
    "label-of-0-dimensions": (Network(), (X[0], torch.tensor(3)), ["image"], [3]),
    "two-inputs": (TwoInTwoOut(), (X, Y), ["a", "b"], None),
    "two-inputs-and-label": (TwoInTwoOut(), (X, Y, LABEL), ["a", "b"], [1, 0]),
    "inputs-together": (TwoInTwoOut(), ((X, Y), LABEL), ["a", "b"], [1, 0]),
    "dict-in-any-order": (TwoInTwoOut(), {"b": Y, "label": LABEL, "a": X}, ["a", "b"], [1, 0]),
    "labels-that-are-needed": (Trainer(), {"x": X, "labels": LABEL}, ["x", "labels"], None),
    "one-hot-labels": (Network(), (X, torch.eye(2, dtype=torch.int64)), ["image"], None),
    "optional-input-by-name": (Tokens(), {"ids": LABEL, "mask": X}, ["ids", "mask"], None),
    "optional-input-by-place": (Tokens(), (X, LABEL), ["ids"], [1, 0]),
    "lists-of-numbers": (Tokens(), {"ids": [1, 2, 3], "mask": [1.0, 0.0, 1.0]}, ["ids", "mask"], None),
    "nested": (Nested(), ([X, Y], {"late": X, "early": Y}), ["named_early", "named_late", "pair_0", "pair_1"], None),
}


@pytest.mark.parametrize(("module", "item", "names", "labels"), ITEMS.values(), ids=ITEMS)
def test_items_are_matched_to_the_parameters_of_forward(
    module: nn.Module, item: object, names: list[str], labels: list[int] | None
) -> None:
    found = ready(item, forward_of(module), "item 0")
    assert sorted(found.arrays) == sorted(names)
    assert (None if found.labels is None else found.labels.tolist()) == labels


def test_whole_dict_may_be_the_input() -> None:
    class Takes(nn.Module):
        def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
            return batch["image"]

    forward = forward_of(Takes())
    assert dict(parts_by_name(match({"image": X, "label": LABEL}, forward, where=""), forward)) == {"batch_image": X}


WRONG_ITEMS: dict[str, tuple[nn.Module, object, str]] = {
    "too-few": (TwoInTwoOut(), [X], r"item 0: found 1 parts for TwoInTwoOut\.forward, expected those for 'a', 'b'"),
    "a-name-is-missing": (TwoInTwoOut(), [{"a": X, "c": Y}], r"found 'a', 'c', expected 'b' too, which TwoInTwoOut\.forward takes"),
    "wrong-shape": (
        Network(),
        DataLoader(randn(4, 5, 8, 8), batch_size=2),
        r"Network fails on the first item of the data \(image \(2, 5, 8, 8\)",
    ),
    "text": (Network(), ["a photo"], "found no tensor in the arguments of Network"),
    "complex": (Network(), [X.to(torch.complex64)], "complex64, expected numbers"),
    "empty-list": (Network(), [], "a list: found no items"),
    "empty-data-set": (Network(), TensorDataset(X[:0]), "a TensorDataset: found no items"),
    "none": (Network(), None, "data: found nothing that tells the shape of what Network takes"),
    "random": (Network(), "random", "data: found nothing that tells the shape of what Network takes"),
    "no-path": (Network(), "nowhere/", "data: found 'nowhere/', expected a folder"),
    "a-number": (Network(), 3, "data: found 3, expected a folder"),
    "fails": (Network(), (1 / 0 for _ in range(2)), "a generator: failed with ZeroDivisionError"),
}


@pytest.mark.parametrize(("module", "data", "message"), WRONG_ITEMS.values(), ids=WRONG_ITEMS)
def test_data_that_does_not_fit_is_told_of_before_the_export(
    module: nn.Module, data: object, message: str, exported: list[tuple[int, ...]]
) -> None:
    with pytest.raises(zp.DataError, match=message):
        zp.quantize(module, data=data, **FAST)
    assert exported == []


def test_later_item_of_another_shape_is_named(module: nn.Module, exported: list[tuple[int, ...]]) -> None:
    with pytest.raises(zp.DataError, match=r"item 1: input 'image': found shape \(2, 4, 8, 8\), expected \(samples, 3, 8, 8\)"):
        zp.quantize(module, data=[IMAGES[:2], randn(2, 4, 8, 8)], **FAST)


# --- modules that are not as others are ------------------------------------------------------------------------------------


LINEAR, CONVOLUTION, TABLE = nn.Linear(16, 16), nn.Conv2d(3, 16, 3), nn.Sequential(nn.Embedding(9, 16), nn.Linear(16, 16))
READINGS: dict[str, tuple[nn.Module, Callable[[], object], tuple[int, ...]]] = {
    "batches-of-vectors": (LINEAR, lambda: DataLoader(TensorDataset(randn(6, 16)), batch_size=3), (2, 16)),
    "single-matrices-of-a-loader": (LINEAR, lambda: DataLoader(TensorDataset(randn(6, 5, 16)), batch_size=None), (1, 5, 16)),
    "single-matrices-of-a-data-set": (LINEAR, lambda: TensorDataset(randn(6, 5, 16)), (1, 5, 16)),
    "matrices-in-a-list": (LINEAR, lambda: list(randn(6, 5, 16)), (2, 16)),
    "matrices-with-a-label-each": (LINEAR, lambda: [(matrix, 1) for matrix in randn(6, 5, 16)], (1, 5, 16)),
    "vectors-in-a-list": (LINEAR, lambda: list(randn(6, 16)), (1, 16)),
    "tokens-in-a-list": (TABLE, lambda: [torch.arange(5)] * 3, (1, 5)),
    "a-number-for-each-sample": (TABLE, lambda: DataLoader(TensorDataset(torch.arange(7)), batch_size=3), (2,)),
    "images-without-a-batch": (CONVOLUTION, lambda: list(randn(4, 3, 8, 8)), (1, 3, 8, 8)),
}


@pytest.mark.parametrize(("module", "data", "shape"), READINGS.values(), ids=READINGS)
def test_items_that_may_be_batches_or_samples(
    module: nn.Module, data: Callable[[], object], shape: tuple[int, ...], exported: list[tuple[int, ...]]
) -> None:
    found = zp.quantize(module, data=data(), **FAST, evaluate=False)
    assert exported == [shape]
    assert [str(dim) for dim in found.model.graph.inputs[0].shape or ()] == ["batch", *map(str, shape[1:])]


class Lonely(nn.Module):
    """No parameters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) @ x.transpose(1, 2)


def test_module_without_parameters(exported: list[tuple[int, ...]]) -> None:
    found = zp.quantize(Lonely(), data=randn(5, 4, 4).double(), **FAST)
    assert [str(value.dtype) for value in found.model.graph.inputs] == ["FLOAT"]
    assert exported == [(2, 4, 4)]


def test_module_of_a_fixed_batch_keeps_it_and_says_so() -> None:
    found = zp.quantize(Reshaping(), data=[randn(2, 4, seed=n) for n in range(4)], **FAST)
    assert [note.reason.partition(":")[0] for note in found.notes if note.where == "Reshaping: batch"] == ["the batch axis is fixed"]
    assert [tuple(value.shape or ()) for value in found.model.graph.inputs] == [(2, 4)]


def test_module_of_one_vector_keeps_its_length() -> None:
    class Turned(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.ndim != 1:
                raise ValueError("one vector")
            return x.reshape(4, 2).relu().sum(1)

    found = zp.quantize(Turned(), data=list(randn(6, 8)), **FAST)
    assert [tuple(value.shape or ()) for value in found.model.graph.inputs] == [(8,)]


WRONG_MODULES: dict[str, tuple[Callable[[], object], str]] = {
    "meta": (lambda: Residual().to("meta"), "Residual: found 'conv1.weight' on the meta device.*load its weights first"),
    "complex": (lambda: nn.Linear(3, 3).to(torch.complex64), "Linear: found 'weight' of torch.complex64, expected real numbers"),
    "lazy": (lambda: nn.LazyLinear(3), "LazyLinear: found 'weight' not initialized.*run the module on a batch first"),
    "too-large": (lambda: nn.Linear(3, 3), "Linear: found weights of 0.0 GB, expected at most .*export"),
    "a-class": (lambda: Residual, r"found a type, expected a path, bytes or a ModelProto; write a PyTorch module"),
}


@pytest.mark.filterwarnings("ignore:Complex modules")
@pytest.mark.parametrize(("make", "message"), WRONG_MODULES.values(), ids=WRONG_MODULES)
def test_modules_that_hold_no_numbers_are_refused(
    make: Callable[[], Any], message: str, monkeypatch: pytest.MonkeyPatch, exported: list[tuple[int, ...]]
) -> None:
    if "0.0 GB" in message:
        monkeypatch.setattr(sources, "LARGEST_MESSAGE", 10)
    with pytest.raises(zp.ModelError, match=message):
        zp.quantize(make(), data=randn(4, 3), **FAST)
    assert exported == []


def test_module_that_cannot_be_exported_is_left_as_it_was() -> None:
    module = nn.Sequential(nn.Dropout(0.1), Branching()).train()
    with pytest.raises(zp.ModelError, match=r"Sequential.*depends on the values of a tensor"):
        zp.quantize(module, data=X, **FAST)
    assert [part.training for part in module.modules()] == [True] * 3


def test_float32_is_computed_in_full_and_settings_come_back() -> None:
    seen: list[str] = []

    class Telling(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(torch.backends.cudnn.conv.fp32_precision)
            return x

    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()
    trial(Telling(), bind(Telling(), X, {}, names=()), what="a sample")
    assert seen == ["ieee"]
    assert (torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, torch.get_float32_matmul_precision()) == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_module_and_data_on_a_gpu(expected: Any) -> None:
    module = Residual().cuda()
    found = zp.quantize(module, data=DataLoader(TensorDataset(IMAGES.cuda(), LABELS.cuda()), batch_size=4), labels="data", **FAST)
    assert found.plan.entries == expected.plan.entries
    assert all(p.is_cuda for p in module.parameters())


# --- the command line ------------------------------------------------------------------------------------------------------

MODULE = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 4))

def with_arguments():
    return small(), torch.zeros(1, 3, 8, 8)

def samples():
    generator = torch.Generator().manual_seed(0)
    return [(torch.randn(4, 3, 8, 8, generator=generator), torch.arange(4)) for _ in range(3)]

def nothing():
    return 3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(MODULE)
    return tmp_path


def run(*arguments: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "argv", ["zeropoint", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


ASKED = ("--target", "tensorrt", "--effort", "fast", "--no-report", "--json")


def test_command_quantizes_what_a_function_returns(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("quantize", "nets.py:small", "--data", "nets.py:samples", "--labels", "data", *ASKED, monkeypatch=monkeypatch) == 0
    told = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in folder.glob("small*")) == ["small.int8.onnx", "small.int8.onnx.plan.json"]
    assert json.loads(Path("small.int8.onnx.plan.json").read_text())["provenance"]["model"] == "Sequential"
    assert "accuracy" in json.dumps(told)
    assert onnxruntime.InferenceSession("small.int8.onnx").get_inputs()[0].shape[1:] == [3, 8, 8]


def test_function_that_returns_arguments_needs_no_sample(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("quantize", "nets.py:with_arguments", "--data", "random", "-o", "out.onnx", *ASKED)
    assert run(*arguments, monkeypatch=monkeypatch) == 0
    assert (folder / "out.onnx").is_file()
    capsys.readouterr()


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("nets.py:nothing", "nets.py:nothing: found a int"),
        ("nets.py:gone", "found no function 'gone'"),
        ("gone.onnx", "gone.onnx: cannot be read"),
    ],
    ids=["no module", "no function", "no file"],
)
def test_command_says_what_is_no_model(
    model: str, message: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("quantize", model, "--data", "nets.py:samples", *ASKED, monkeypatch=monkeypatch) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert sorted(path.name for path in folder.iterdir() if path.suffix != "") == ["nets.py"]


def test_quantizing_a_file_imports_no_torch(file: Path) -> None:
    options = "data='random', target='tensorrt', effort='fast', samples=2, evaluate=False"
    code = f"import sys, zeropoint as zp; zp.quantize({str(file)!r}, {options}); print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"
