from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from tests.torch.importing_cases import (
    AMAX,
    Residual,
    X,
    computed,
    imported,
    reasons,
    scale,
    state_of,
    trained,
)

import zeropoint as zp

# --- modelopt --------------------------------------------------------------------------------------------------------------------


def test_what_else_a_quantizer_holds_is_noted() -> None:
    state = state_of(trained(), "modelopt")
    state["head.weight_quantizer._scale"] = torch.ones(20, 1)
    assert "not used" in reasons(imported(state).plan, "head.weight_quantizer._scale")


def with_metadata(state: dict[str, Any], quantizers: dict[str, dict[str, object]]) -> dict[str, Any]:
    content = {"config": {}, "metadata": {"quantizer_state": quantizers}}
    return {"modelopt_state": {"modelopt_state_dict": [("quantize", content)], "modelopt_version": "0.47.0"}, "model_state_dict": state}


def test_disabled_quantizer_is_left_out() -> None:
    told = with_metadata(state_of(trained(), "modelopt"), {"head.input_quantizer": {"_disabled": True, "_num_bits": 8}})
    plan = imported(told).plan
    assert "mean" not in plan.tensors
    assert "disabled" in reasons(plan, "head.input_quantizer")


@pytest.mark.parametrize(
    ("told", "found"),
    [
        ({"_num_bits": 4}, "4 bits"),
        ({"_num_bits": (4, 3)}, "floats of 4 exponent and 3 mantissa bits"),
        ({"_num_bits": 8, "_unsigned": True}, "8 bits, unsigned"),
        ({"_num_bits": 8, "_block_sizes": {-1: 16}}, "scales for blocks"),
        ({"_rotate": True}, "a rotation"),
    ],
    ids=["four-bits", "fp8", "unsigned", "blocks", "rotation"],
)
def test_format_that_has_no_counterpart_is_refused(told: dict[str, object], found: str) -> None:
    with pytest.raises(zp.DataError, match=rf"conv\.weight_quantizer: found {found}.*; quantize the float network with zeropoint"):
        imported(with_metadata(state_of(trained(), "modelopt"), {"conv.weight_quantizer": told}))


def test_factor_before_a_quantizer_becomes_a_product_in_the_network(tmp_path: Path) -> None:
    network: Any = trained()
    factor = torch.linspace(0.5, 2.0, 16)
    with torch.no_grad():
        network.head.weight /= factor
    state = state_of(network, "modelopt")
    state["head.input_quantizer._pre_quant_scale"] = factor
    found = imported(state)
    assert "multiplied by pre_quant_scale" in reasons(found.plan, "head")
    [tensor] = [entry.tensor for entry in found.plan.entries if any(reader.node == "node_linear" for reader in entry.readers)][:1]
    assert scale(found.plan, tensor) == np.float32(AMAX["head"] / 127)
    result = zp.quantize(found.network, plan=found.plan, target="tensorrt", evaluate=False)
    seen = computed(result, {"conv": "relu", "head": tensor}, X, tmp_path)
    with torch.no_grad():
        fed = torch.relu(network.conv(torch.from_numpy(seen["conv"])) + torch.from_numpy(seen["conv"])).mean((2, 3)) * factor
    step = AMAX["head"] / 127
    # The weights of the convolution are rounded, too: its mean may be a step away.
    assert np.abs(seen["head"] - np.clip(np.rint(fed.numpy() / step), -128, 127) * step).max() <= 2.01 * step


# --- where the checkpoint is ---------------------------------------------------------------------------------------------------


def to_file(state: Any, folder: Path) -> Any:
    torch.save(state, folder / "checkpoint.pt")
    return folder / "checkpoint.pt"


def prefixed(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {f"{prefix}{key}": value for key, value in state.items()}


@pytest.mark.parametrize(
    "wrapped",
    [
        to_file,
        lambda state, folder: str(to_file(state, folder)),
        lambda state, folder: to_file({"epoch": 3, "state_dict": state, "best": 0.5}, folder),
        lambda state, _: {"epoch": 3, "model": state},
        lambda state, _: prefixed(state, "module."),
        lambda state, _: prefixed(state, "_orig_mod.module."),
        lambda state, _: {"state_dict": prefixed(state, "net.")},
        lambda state, _: {key: value.double() for key, value in state.items()},
    ],
    ids=["path", "string", "path-nested", "nested", "data-parallel", "compiled", "lightning", "double"],
)
def test_checkpoint_may_be_given_in_any_of_these_forms(wrapped: Callable[[Any, Path], Any], tmp_path: Path) -> None:
    state = state_of(trained(), "pytorch-quantization")
    assert imported(wrapped(state, tmp_path)).plan.entries == imported(state).plan.entries


def test_checkpoint_without_weights_keeps_the_modules_own_with_a_warning() -> None:
    network = trained()
    state = {key: value for key, value in state_of(network, "modelopt").items() if "quantizer" in key}
    found = imported(state, network)
    assert "the checkpoint holds none" in reasons(found.plan, "weights")
    assert found.plan.entries == imported(state_of(network, "modelopt")).plan.entries


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_module_and_checkpoint_may_be_on_a_gpu() -> None:
    state = state_of(trained(), "modelopt")
    state["head.input_quantizer._pre_quant_scale"] = torch.ones(16)
    on_gpu = {key: value.cuda() for key, value in state.items()}
    found = imported(on_gpu, Residual().cuda(), x=X.cuda())
    assert next(found.model.parameters()).is_cuda
    assert {entry.tensor: entry.scale for entry in found.plan.entries} == {e.tensor: e.scale for e in imported(state).plan.entries}
