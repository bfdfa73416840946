"""Where a result is written: checked before any work is done, so that none is lost."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from zeropoint.errors import RecipeError
from zeropoint.result import plan_path, report_path
from zeropoint.torch.sources import is_module


def destination(model: Path, output: Path | None, *, spared: Mapping[str, Path | None], checkpoint: Path | None = None) -> Path:
    """Return the file to write: `output`, or NAME.int8.onnx here; neither it nor what lies beside it takes the place of a file in `spared`.

    model: the float network's file, or "module:function" that returns a PyTorch module, whose NAME is the function's. spared: files that
    the command was given, by what they are to it ("which --plan reads"). checkpoint: another, which is written too.

    Raises:
        RecipeError: it cannot be written, or something would be lost by it.
    """
    file = output or Path(f"{model.name.rpartition(':')[2] if is_module(model) else model.stem}.int8.onnx")
    if _same(file, model):
        raise RecipeError(f"--output: found {file}, which is the float model itself, expected another file; it is never overwritten")
    if file.is_dir():
        raise RecipeError(f"--output: found the folder {file}, expected the name of the file to write; add one, as in model.int8.onnx")
    check_folder("--output", file)
    beside = ((plan_path(file), f"the plan of {file}"), (report_path(file), f"the report of {file}"))
    for written, what in ((file, str(file)), *beside):
        for role, path in {**spared, "which --checkpoint names": checkpoint}.items():
            if path is not None and _same(written, path):
                raise RecipeError(f"--output: {what} would be written over {path}, {role}; name another file")
    if checkpoint is not None:
        check_folder("--checkpoint", checkpoint)
    return file


def check_folder(option: str, file: Path) -> None:
    """Refuse a file that `option` names in a folder where it cannot be written.

    Raises:
        RecipeError: the folder does not exist, or may not be written to.
    """
    folder = file.absolute().parent
    if not folder.is_dir():
        raise RecipeError(f"{option}: folder {folder} does not exist; make it first, so that no work is lost")
    if not os.access(folder, os.W_OK):
        raise RecipeError(f"{option}: folder {folder} cannot be written to; choose another one, so that no work is lost")


def check_page(file: Path, *, model: Path | None = None, option: str = "--report") -> None:
    """Refuse a file for `option` that is no file, cannot be written or is the model itself.

    Raises:
        RecipeError: it is one of these.
    """
    if file.is_dir():
        example = "model.onnx" if option == "--output" else "report.html"
        raise RecipeError(f"{option}: found the folder {file}, expected the name of the file to write, as in {example}")
    check_folder(option, file)
    if model is not None and _same(file, model):
        raise RecipeError(f"{option}: found {file}, which is the model itself, expected another file; it is never overwritten")


def _same(written: Path, given: Path) -> bool:
    """Tell whether both are one file, whether or not it is there yet."""
    return written.resolve() == given.resolve() or (written.exists() and given.exists() and written.samefile(given))
