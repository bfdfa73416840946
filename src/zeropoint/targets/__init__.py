"""What each runtime can run, as data tables. A new target is one file here and one line in TARGETS."""

from __future__ import annotations

from zeropoint.errors import RecipeError
from zeropoint.targets.onnxruntime import ONNXRUNTIME, ONNXRUNTIME_ARM
from zeropoint.targets.openvino import OPENVINO
from zeropoint.targets.target import Role, Target
from zeropoint.targets.tensorrt import TENSORRT

__all__ = ["TARGETS", "Role", "Target", "get_target"]

TARGETS: dict[str, Target] = {target.name: target for target in (TENSORRT, ONNXRUNTIME, ONNXRUNTIME_ARM, OPENVINO)}


def get_target(name: str) -> Target:
    """Return the target called `name`.

    Raises:
        RecipeError: there is no such target.
    """
    if name not in TARGETS:
        raise RecipeError(f"target: found {name!r}, expected one of {', '.join(TARGETS)}")
    return TARGETS[name]
