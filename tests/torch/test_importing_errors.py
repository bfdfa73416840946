from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("onnxscript")

import torch
from tests.torch.importing_cases import Residual, X, state_of, trained

import zeropoint as zp

NAN, INF = float("nan"), float("inf")


def refused(state: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        zp.torch.import_checkpoint(Residual(), state, X, target="tensorrt")


def changed(style: str, **keys: Any) -> dict[str, Any]:
    state = state_of(trained(), style)
    for key, value in keys.items():
        name = key.replace("__", ".")
        if value is None:
            del state[name]
        else:
            state[name] = torch.as_tensor(value)
    return state


@pytest.mark.parametrize("value", [NAN, INF, 0.0, -1.0], ids=["nan", "infinite", "zero", "negative"])
@pytest.mark.parametrize("style", ["pytorch-quantization", "modelopt"])
def test_amax_that_is_no_range_is_refused(style: str, value: float) -> None:
    name = "conv._input_quantizer" if style == "pytorch-quantization" else "conv.input_quantizer"
    refused({**changed(style), f"{name}._amax": torch.tensor(value)}, zp.DataError, rf"{name}: found .* among its amax or scales")


@pytest.mark.parametrize("value", [NAN, 0.0], ids=["nan", "zero"])
def test_amax_of_one_channel_that_is_no_range_is_refused(value: float) -> None:
    state = changed("modelopt")
    state["conv.weight_quantizer._amax"] = state["conv.weight_quantizer._amax"].clone()
    state["conv.weight_quantizer._amax"][3] = value
    refused(state, zp.DataError, r"conv\.weight_quantizer: found .* expected positive numbers")


@pytest.mark.parametrize("shape", [(15, 1, 1, 1), (16, 16, 1, 1), (144, 1), (3,), (1, 1, 3, 3)], ids=str)
def test_amax_that_does_not_fit_the_weight_is_refused(shape: tuple[int, ...]) -> None:
    refused(changed("modelopt", conv__weight_quantizer___amax=torch.ones(shape)), zp.DataError, r"found amax of shape .* \(16, 16, 3, 3\)")


def test_amax_of_several_numbers_for_an_activation_is_not_imported() -> None:
    state = changed("modelopt", conv__input_quantizer___amax=torch.ones(1, 16, 1, 1))
    plan = zp.torch.import_checkpoint(Residual(), state, X, target="tensorrt").plan
    assert next(note.reason for note in plan.notes if note.where == "conv.input_quantizer").startswith("not imported: found 16 amax")


def test_weight_of_a_module_that_there_is_not_is_refused_with_the_like() -> None:
    state = changed("pytorch-quantization")
    state["cons._weight_quantizer._amax"] = torch.tensor(1.0)
    refused(state, zp.ModelError, r"cons\._weight_quantizer: found no module 'cons' .*'conv'")


def test_float_checkpoint_is_refused_with_its_first_keys_and_the_known_formats() -> None:
    refused(
        Residual().state_dict(), zp.DataError, r"first keys are stem\.weight, norm\.weight.*torchao PT2E.*modelopt.*pytorch-quantization"
    )


def test_state_dict_of_a_prepared_graph_is_refused() -> None:
    state = {**Residual().state_dict(), "activation_post_process_0.scale": torch.ones(1)}
    refused(state, zp.DataError, "give the GraphModule")


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"head__bias": None}, "none for head.bias"),
        ({"tail__weight": torch.ones(2)}, "tail.weight, which it lacks"),
        ({"head__weight": torch.ones(20, 8)}, r"head\.weight: found shape \(20, 8\)"),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_weights_of_another_network_are_refused(change: dict[str, Any], match: str) -> None:
    state = changed("modelopt", **change)
    del state["head.weight_quantizer._amax"]
    refused(state, zp.ModelError, match)


@pytest.mark.parametrize(
    ("value", "match"), [(torch.ones(20, 16, dtype=torch.int8), "torch.int8"), (torch.full((20, 16), NAN), "NaN")], ids=["codes", "nan"]
)
def test_weights_that_are_no_floats_are_refused(value: Any, match: str) -> None:
    refused(changed("modelopt", head__weight=value), zp.DataError, rf"head\.weight: found {match}")


@pytest.mark.parametrize("state", [{}, {"epoch": 3}, [1, 2], None, 7], ids=["empty", "no-tensors", "list", "none", "number"])
def test_what_is_no_checkpoint_is_refused(state: object) -> None:
    refused(state, zp.DataError, "state: found .*expected")


class Touches:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def test_no_code_of_a_checkpoint_is_run(tmp_path: Path) -> None:
    torch.save({"state_dict": Touches(tmp_path / "touched")}, tmp_path / "checkpoint.pt")
    refused(tmp_path / "checkpoint.pt", zp.DataError, "more than tensors and plain values.*since code in it would run")
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    "content", [None, b"", b"no checkpoint", pickle.dumps({"a": 1})], ids=["missing", "empty", "text", "pickle-without-tensors"]
)
def test_file_that_is_no_checkpoint_is_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    if content is not None:
        path.write_bytes(content)
    refused(path, zp.DataError, r"checkpoint\.pt: (cannot be read|found)")
