"""Serve a network's graph to the browser. Uses netron, of the extra `view`."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.text import Text

from zeropoint.cli.render import console
from zeropoint.errors import ModelError, RecipeError

PORTS = range(1, 1 << 16)
HOST = "localhost"  # of no other machine's concern


def serve_graph(model: Path, *, port: int | None, browser: bool) -> None:
    """Serve `model` on `port`, a free one for None, and open it in the `browser`; end at Ctrl-C.

    Raises:
        ModelError: there is no such file.
        RecipeError: netron is not installed, or the port is none or taken.
    """
    if not model.is_file():
        raise ModelError(f"model {model}: found no such file, expected a network; check the path")
    if port is not None and port not in PORTS:
        raise RecipeError(f"--port: found {port}, expected 1 to {PORTS[-1]}")
    netron = _netron()
    logging.getLogger("netron").setLevel(logging.WARNING)  # what it would say is said here
    try:
        host, taken = netron.start(str(model), address=(HOST, port), browse=browser)
    except OSError as error:
        reason = f"found {port}, which cannot be opened: {error.strerror or error}"
        raise RecipeError(f"--port: {reason}; name another one, or leave it out for a free one") from None
    console.print(Text.assemble((str(model), "bold"), f" is at http://{host}:{taken}; Ctrl-C ends it"), soft_wrap=True)
    console.print("Netron's page reports its use to its makers; the network stays here", style="dim", soft_wrap=True)
    _until_interrupted(netron.wait)


def _netron() -> Any:
    try:
        import netron
    except ImportError:
        raise RecipeError('view: found no netron, which draws the graph; install it: pip install "zeropoint[view]"') from None
    return netron


def _until_interrupted(wait: Callable[[], object]) -> None:
    """Wait, and take Ctrl-C for the end that it is: also where it comes before `wait` listens for it, or once more while that cleans up."""
    with suppress(KeyboardInterrupt):
        wait()
    console.print("\nended")
