from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest

from zeropoint.demo import Digits, load_digits, normalize


@pytest.fixture(scope="module")
def digits() -> Digits:
    return load_digits()


@pytest.fixture(scope="module")
def model(digits: Digits) -> onnx.ModelProto:
    return onnx.load(digits.model)


@pytest.mark.parametrize(("part", "count"), [("calibration", 256), ("test", 500)])
def test_images_are_as_the_network_wants_them(digits: Digits, part: str, count: int) -> None:
    images, labels = getattr(digits, part), getattr(digits, f"{part}_labels")
    assert (images.shape, images.dtype) == ((count, 1, 28, 28), np.float32)
    assert (labels.shape, labels.dtype) == ((count,), np.int64)
    assert set(labels.tolist()) == set(range(10))
    assert (images.min(), images.max()) == (normalize(_grey(0)).item(), normalize(_grey(255)).item())


def test_each_label_is_tested_equally_often(digits: Digits) -> None:
    assert set(Counter(digits.test_labels.tolist()).values()) == {50}


def test_no_digit_is_in_both_parts_or_twice(digits: Digits) -> None:
    images = np.concatenate([digits.calibration, digits.test])
    assert len({image.tobytes() for image in images}) == len(images)


@pytest.mark.parametrize(
    ("pixel", "expected"),
    [pytest.param(0, (0 - 0.1307) / 0.3081, id="blank"), pytest.param(51, (0.2 - 0.1307) / 0.3081, id="grey")],
)
def test_normalize_subtracts_the_mean_and_divides_by_the_deviation(pixel: int, expected: float) -> None:
    assert normalize(_grey(pixel)).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(("part", "least"), [("test", 0.97), ("calibration", 0.97)])
def test_network_reads_the_digits(digits: Digits, part: str, least: float) -> None:
    session = onnxruntime.InferenceSession(digits.model, providers=["CPUExecutionProvider"])
    logits = np.asarray(session.run(["logits"], {"image": getattr(digits, part)})[0])
    assert np.mean(logits.argmax(axis=1) == getattr(digits, f"{part}_labels")) >= least


def test_network_holds_what_a_quantizer_has_to_handle(model: onnx.ModelProto) -> None:
    counts = Counter(node.op_type for node in model.graph.node)
    assert counts == {"Conv": 6, "BatchNormalization": 6, "Relu": 5, "Add": 2, "GlobalAveragePool": 1, "Flatten": 1, "Gemm": 1}
    shortcut = next(node for node in model.graph.node if node.name == "stage2.shortcut.conv")
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in shortcut.attribute}
    assert (attributes["kernel_shape"], attributes["strides"]) == ([1, 1], [2, 2])


def test_network_is_opset_17_with_a_free_batch(model: onnx.ModelProto) -> None:
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 17)]
    assert _shape(model.graph.input[0]) == ("image", ["batch", 1, 28, 28])
    assert _shape(model.graph.output[0]) == ("logits", ["batch", 10])


@pytest.mark.parametrize(("file", "limit"), [("digits.onnx", 700_000), ("digits.npz", 300_000), ("NOTICE", 10_000)])
def test_package_stays_small(digits: Digits, file: str, limit: int) -> None:
    assert 0 < (digits.model.parent / file).stat().st_size < limit


def _grey(pixel: int) -> npt.NDArray[np.uint8]:
    return np.full((1, 1, 1), pixel, np.uint8)


def _shape(value: onnx.ValueInfoProto) -> tuple[str, list[str | int]]:
    return value.name, [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
