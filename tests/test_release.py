from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

import zeropoint as zp
from zeropoint import release


def test_the_version_is_that_of_the_package() -> None:
    assert release.own_version() == version("zeropoint") == zp.__version__


def test_a_source_that_is_not_installed_has_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(release, "version", missing)
    assert release.own_version() == "0+source"
