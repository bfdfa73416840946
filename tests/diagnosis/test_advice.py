"""What is recommended on which processor, and that what was timed decides."""

from __future__ import annotations

import pytest
from tests.diagnosis.machines import ARM, H100, ICE_LAKE, OLD, UNKNOWN, ZEN_4, machine, trials

from zeropoint.diagnosis.advice import advise
from zeropoint.diagnosis.findings import diagnose
from zeropoint.runtime.cpu import Cpu

CLEAR = trials(onnxruntime=(0.34, 0.32), onnxruntime_arm=(1.29, 0.31), openvino=(0.36, 0.25))


@pytest.mark.parametrize(
    ("cpu", "target", "words"),
    [
        pytest.param(ICE_LAKE, "onnxruntime", ["uint8 activations by int8 weights", "which AVX512-VNNI multiplies"], id="ice-lake"),
        pytest.param(ZEN_4, "onnxruntime", ["uint8 activations by int8 weights", "which AVX512-VNNI multiplies"], id="zen-4"),
        pytest.param(OLD, "onnxruntime", ["uint8 activations by int8 weights; it was not timed here"], id="avx2-only"),
        pytest.param(ARM, "onnxruntime-arm", ["int8 activations by int8 weights", "which i8mm multiplies"], id="arm"),
        pytest.param(UNKNOWN, "onnxruntime", ["uint8 activations by int8 weights; it was not timed here"], id="unknown-on-windows"),
    ],
)
def test_the_processor_decides_where_nothing_was_timed(cpu: Cpu, target: str, words: list[str]) -> None:
    first = advise(machine(cpu), ())[0]
    assert (first.runtime, first.target, first.faster, first.ratio) == ("onnxruntime", target, None, None)
    assert all(word in first.sentence for word in words)


def test_sentence_has_the_measured_ratios() -> None:
    found = diagnose(machine(ZEN_4), CLEAR)
    assert found.recommendation == (
        "ONNX Runtime: quantize with --target onnxruntime, uint8 activations by int8 weights, which AVX512-VNNI multiplies: "
        "0.34 of float's time for convolutions and 0.32 for products (with int8 activations 1.29 of float's time for convolutions and "
        "0.31 for products)."
    )
    assert found.instruction == "AVX512-VNNI"
    onnxruntime, openvino = found.advice
    assert onnxruntime.ratio == pytest.approx((0.34 * 0.32) ** 0.5)
    assert (openvino.target, openvino.faster, openvino.ratio) == ("openvino", True, pytest.approx(0.3))


@pytest.mark.parametrize(
    ("ratios", "target"),
    [
        pytest.param({"onnxruntime": (0.5, 0.5), "onnxruntime_arm": (0.3, 0.3)}, "onnxruntime-arm", id="other-clearly-faster"),
        pytest.param({"onnxruntime": (0.5, 0.5), "onnxruntime_arm": (0.49, 0.46)}, "onnxruntime", id="other-hardly-faster"),
        pytest.param({"onnxruntime_arm": (0.5, 0.5)}, "onnxruntime-arm", id="only-the-other-was-timed"),
    ],
)
def test_another_target_than_the_processors_own_has_to_be_clearly_faster(ratios: dict[str, tuple[float, float]], target: str) -> None:
    assert advise(machine(ZEN_4), trials(**ratios))[0].target == target


@pytest.mark.parametrize(("ratio", "faster"), [pytest.param(0.93, True, id="faster"), pytest.param(0.97, False, id="no-gain")])
def test_nothing_is_recommended_that_is_not_faster(ratio: float, faster: bool) -> None:
    advice = advise(machine(OLD), trials(onnxruntime=(ratio, ratio)))[0]
    assert advice.faster is faster
    assert ("nothing that was timed is faster than float here" in advice.sentence) is not faster


def test_a_gpu_adds_tensorrt_untimed() -> None:
    last = advise(machine(ZEN_4, gpus=H100), CLEAR)[-1]
    assert (last.target, last.ratio) == ("tensorrt", None)
    assert "NVIDIA H100" in last.sentence and "not timed here" in last.sentence


def test_runtimes_that_are_not_here_get_no_advice() -> None:
    assert [advice.runtime for advice in advise(machine(ZEN_4, runs_on={"onnxruntime": ("CPU",)}), ())] == ["onnxruntime"]
