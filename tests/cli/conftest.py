from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from tests.cli.commands import Place, Run, Zeropoint

from zeropoint import cli
from zeropoint.demo import load_digits


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    digits = load_digits()
    (tmp_path / "digits.onnx").write_bytes(digits.model.read_bytes())
    np.save(tmp_path / "few.npy", digits.calibration[:12])
    np.save(tmp_path / "labels.npy", digits.calibration_labels[:12])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    return Place(tmp_path)


@pytest.fixture
def zeropoint(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Zeropoint:
    """Run the whole command in this process, as `python -m zeropoint` would."""

    def run(*arguments: str) -> Run:
        monkeypatch.setattr(sys, "argv", ["zeropoint", *arguments])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        captured = capfd.readouterr()
        return Run(int(ended.value.code or 0), captured.out, captured.err)

    return run
