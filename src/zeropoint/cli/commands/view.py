"""`zeropoint view`."""

from __future__ import annotations

from zeropoint.cli import options
from zeropoint.cli.viewer import serve_graph

EXAMPLE = "zeropoint view model.int8.onnx"


def view(model: options.Model, port: options.Port = None, browser: options.Browser = True) -> None:
    """Show MODEL as a graph in the browser, with Netron, until Ctrl-C."""
    serve_graph(model, port=port, browser=browser)
