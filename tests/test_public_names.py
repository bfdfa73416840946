from __future__ import annotations

import importlib
import inspect

import pytest

import zeropoint

NAMES = zeropoint.__all__


def test_every_name_has_a_home_and_every_home_a_name() -> None:
    assert list(zeropoint._HOMES) == NAMES  # in the same order, since both are grouped alike
    assert len(set(NAMES)) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_name_is_what_its_home_holds(name: str) -> None:
    found = getattr(zeropoint, name)
    assert found is getattr(importlib.import_module(zeropoint._HOMES[name]), name)
    assert getattr(found, "__module__", zeropoint._HOMES[name]) == zeropoint._HOMES[name]  # no name by way of another module


@pytest.mark.parametrize("name", [name for name in NAMES if callable(getattr(zeropoint, name))])
def test_name_is_documented(name: str) -> None:
    found = getattr(zeropoint, name)
    lines = (inspect.getdoc(found) or "").splitlines()
    assert lines
    assert lines[0].endswith((".", ":", ";")) or len(lines) > 1
    if inspect.isfunction(found):
        assert "Raises:" in lines or "raise" not in inspect.getsource(found)


@pytest.mark.parametrize("name", [name for name in NAMES if inspect.isfunction(getattr(zeropoint, name))])
def test_every_parameter_of_a_function_is_typed(name: str) -> None:
    signature = inspect.signature(getattr(zeropoint, name))
    untyped = [parameter.name for parameter in signature.parameters.values() if parameter.annotation is inspect.Parameter.empty]
    assert untyped == []
    assert signature.return_annotation is not inspect.Signature.empty


@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("Error")])
def test_every_error_is_a_zeropoint_error(name: str) -> None:
    assert issubclass(getattr(zeropoint, name), zeropoint.ZeropointError)


def test_every_error_is_public() -> None:
    errors = importlib.import_module("zeropoint.errors")
    assert {name for name, found in vars(errors).items() if inspect.isclass(found)} <= set(NAMES)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'zeropoint' has no attribute 'quantise'"):
        getattr(zeropoint, "quantise")  # noqa: B009
