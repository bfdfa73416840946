"""The networks that are timed: that they become what the targets' kernels run, and that a runtime which fails is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from zeropoint.diagnosis import trials as module
from zeropoint.diagnosis.trials import quantized_for, run_trials
from zeropoint.errors import ModelError
from zeropoint.graph.load import load
from zeropoint.graph.trial_networks import TrialNetwork, trial_networks
from zeropoint.rules import lint_model
from zeropoint.targets import Target, get_target

NETWORKS = trial_networks()
every_network = pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)


class Instant:
    """A session that does nothing."""

    def __init__(self, model: bytes) -> None:
        self.model = model

    def run(self, _: Mapping[str, Any]) -> dict[str, Any]:
        return {}


@every_network
def test_networks_are_sound_and_the_same_each_time(network: TrialNetwork) -> None:
    onnx.checker.check_model(onnx.load_from_string(network.model), full_check=True)
    [again] = [other for other in trial_networks() if other.name == network.name]
    assert again.model == network.model
    assert np.array_equal(again.samples, network.samples)


@every_network
@pytest.mark.parametrize("target", ["onnxruntime", "onnxruntime-arm", "openvino"])
def test_quantized_network_keeps_the_targets_rules_and_its_outputs(network: TrialNetwork, target: str) -> None:
    content = quantized_for(network, get_target(target))
    assert lint_model(load(content), get_target(target)).findings == ()
    expected, found = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, dict(network.feed))[0]
        for model in (network.model, content)
    )
    assert np.square(found - expected).sum() < 1e-3 * np.square(expected).sum()  # 30 dB


def test_activations_have_the_targets_format() -> None:
    for target, code in (("onnxruntime", onnx.TensorProto.UINT8), ("onnxruntime-arm", onnx.TensorProto.INT8)):
        graph = onnx.load_from_string(quantized_for(NETWORKS[0], get_target(target))).graph
        first = next(node for node in graph.node if node.op_type == "QuantizeLinear")
        types = {tensor.name: tensor.data_type for tensor in graph.initializer}
        assert types[first.input[2]] == code


def test_every_target_whose_runtime_is_here_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[tuple[str, int]] = []

    def open_runtime(name: str, model: bytes, *, threads: int) -> Instant:
        opened.append((name, threads))
        return Instant(model)

    def times(runs: Any, *, repeats: Any, rounds: int) -> list[list[Any]]:
        assert (len(runs), len(repeats)) == (3, 3)
        return [[np.array([seconds])] * rounds for seconds in (4.0, 1.0, 8.0)]

    monkeypatch.setattr(module, "is_installed", lambda name: name == "onnxruntime")
    monkeypatch.setattr(module, "open_runtime", open_runtime)
    monkeypatch.setattr(module, "pace", lambda _: 0.01)
    monkeypatch.setattr(module, "take_turns", times)
    seen: list[tuple[int, int]] = []
    found, notes = run_trials(progress=lambda _, done, total: seen.append((done, total)))
    assert notes == ()
    assert [(trial.target, trial.network, trial.ratio) for trial in found] == [
        ("onnxruntime", "convolutions", 0.25),
        ("onnxruntime-arm", "convolutions", 2.0),
        ("onnxruntime", "products", 0.25),
        ("onnxruntime-arm", "products", 2.0),
    ]
    assert (found[0].float_ms, found[0].quantized_ms, found[0].activation, found[0].weight) == (4000.0, 1000.0, "uint8", "int8")
    assert opened == [("onnxruntime", 1)] * 6
    assert (seen[0], seen[-1]) == ((0, 2), (2, 2))


def test_runtime_that_fails_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise ModelError("no such instruction")

    monkeypatch.setattr(module, "is_installed", lambda _: True)
    monkeypatch.setattr(module, "open_runtime", fail)
    target: Target = get_target("openvino")
    found, notes = run_trials([target])
    assert found == ()
    assert [(note.where, note.reason) for note in notes] == [
        ("openvino", "convolutions were not timed: no such instruction"),
        ("openvino", "products were not timed: no such instruction"),
    ]
