"""PyTorch: modules written as networks, quantized, and trained with their rounding in them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from zeropoint.torch.exporting import export

if TYPE_CHECKING:
    from zeropoint.torch.finetuning import finetune
    from zeropoint.torch.finishing import finish
    from zeropoint.torch.importing import import_checkpoint
    from zeropoint.torch.preparing import prepare

# What imports PyTorch is found where it is first used: the command line asks for `export` alone.
_HOMES = {
    "prepare": "zeropoint.torch.preparing",
    "finish": "zeropoint.torch.finishing",
    "finetune": "zeropoint.torch.finetuning",
    "import_checkpoint": "zeropoint.torch.importing",
}

__all__ = ["export", "finetune", "finish", "import_checkpoint", "prepare"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'zeropoint.torch' has no attribute {name!r}")
    from zeropoint.torch.capture import check_libraries

    check_libraries()
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return list(__all__)
