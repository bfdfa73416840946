"""`zeropoint view`: what it serves, how it ends, and what it refuses."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.cli.commands import Place, Zeropoint, interrupt, start


def stub(**changes: Any) -> SimpleNamespace:
    """A netron that serves nothing, and keeps what it was asked."""
    asked: list[tuple[Any, ...]] = []

    def begin(file: str, address: tuple[str, int | None], browse: bool) -> tuple[str, int]:
        asked.append((file, address, browse))
        return (address[0], address[1] or 8080)

    return SimpleNamespace(**{"start": begin, "wait": lambda: None, "asked": asked} | changes)


def taken(*_: Any, **__: Any) -> Any:
    raise OSError(98, "Address already in use")


@pytest.mark.parametrize(
    ("options", "asked", "address"),
    [
        pytest.param([], ("digits.onnx", ("localhost", None), True), "http://localhost:8080", id="plain"),
        pytest.param(["--port", "9123"], ("digits.onnx", ("localhost", 9123), True), "http://localhost:9123", id="port"),
        pytest.param(["--no-browser"], ("digits.onnx", ("localhost", None), False), "http://localhost:8080", id="no-browser"),
    ],
)
def test_options_reach_netron(
    zeropoint: Zeropoint, place: Place, monkeypatch: pytest.MonkeyPatch, options: list[str], asked: tuple[Any, ...], address: str
) -> None:
    netron = stub()
    monkeypatch.setitem(sys.modules, "netron", netron)
    run = zeropoint("view", "digits.onnx", *options)
    assert (run.code, run.err) == (0, "")
    assert netron.asked == [asked]
    assert f"digits.onnx is at {address}" in run.out


@pytest.mark.parametrize(
    ("arguments", "netron", "message"),
    [
        pytest.param(["digits.onnx"], None, 'pip install "zeropoint[view]"', id="not-installed"),
        pytest.param(["none.onnx"], stub(), "model none.onnx: found no such file", id="no-file"),
        pytest.param(["digits.onnx", "--port", "80800"], stub(), "--port: found 80800, expected 1 to 65535", id="no-port"),
        pytest.param(["digits.onnx", "--port", "8080"], stub(start=taken), "Address already in use; name another one", id="port-taken"),
    ],
)
def test_mistakes_are_one_paragraph(
    zeropoint: Zeropoint, place: Place, monkeypatch: pytest.MonkeyPatch, arguments: list[str], netron: Any, message: str
) -> None:
    monkeypatch.setitem(sys.modules, "netron", netron)
    run = zeropoint("view", *arguments)
    assert (run.code, run.out) == (2, "")
    assert message in run.err and run.err.count("\n") == 1


def test_interruption_is_the_end(zeropoint: Zeropoint, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "netron", stub(wait=interrupt))
    run = zeropoint("view", "digits.onnx")
    assert (run.code, run.err) == (0, "")


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_real_netron_serves_the_file_until_ctrl_c(place: Place) -> None:
    pytest.importorskip("netron")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    process = start(place.folder, "view", "digits.onnx", "--no-browser", "--port", str(port))
    try:
        content = fetched(process, f"http://localhost:{port}/data/digits.onnx")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    finally:
        process.kill()
    assert content == (place.folder / "digits.onnx").read_bytes()
    assert (process.returncode, err) == (0, "")
    assert f"http://localhost:{port}" in out and out.rstrip().endswith("ended")


def fetched(process: subprocess.Popen[str], address: str) -> bytes:
    """Ask until the server answers."""
    for _ in range(200):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return bytes(answer.read())
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"no answer: {process.communicate()}")


def test_file_is_served_from_where_it_lies(zeropoint: Zeropoint, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    netron = stub()
    monkeypatch.setitem(sys.modules, "netron", netron)
    zeropoint("view", str(place.folder / "digits.onnx"))
    assert Path(netron.asked[0][0]) == place.folder / "digits.onnx"
