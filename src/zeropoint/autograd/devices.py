"""Which of PyTorch's devices runs a network, in the words that a user has for what runs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from zeropoint.errors import RecipeError

PREFIX = "torch"


def is_device(provider: str) -> bool:
    """Say whether `provider` means PyTorch: "torch", or a device behind it, as in "torch:cuda"."""
    return provider.partition(":")[0].lower() == PREFIX


def device_name(provider: str) -> str:
    """Return the name of the device that `provider` means: "cpu" for "torch", "cuda:1" for "torch:cuda:1".

    Raises:
        RecipeError: PyTorch is not installed, or has no such device here.
    """
    if find_spec("torch") is None:
        raise RecipeError(f'provider: found {provider!r}, but not PyTorch, which it means; pip install "zeropoint[torch]"')
    import torch

    name = provider.partition(":")[2] or "cpu"
    try:
        torch.empty(1, device=name)
    except (RuntimeError, AssertionError) as error:  # the latter where PyTorch was built without the device
        reason = str(error).splitlines()[0]
        raise RecipeError(f"provider: found {provider!r}, which PyTorch cannot use here ({reason}); expected torch or torch:cuda") from None
    return name


@contextmanager
def full_precision() -> Iterator[None]:
    """Let convolutions and products of matrices keep all bits of their floats, which tf32 takes from them: statistics are of those."""
    import torch

    convolutions, products = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = convolutions, products
