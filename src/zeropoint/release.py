"""Which zeropoint this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def own_version() -> str:
    """Return the version of the installed package, or "0+source" where the source is run without being installed."""
    try:
        return version("zeropoint")
    except PackageNotFoundError:
        return "0+source"
