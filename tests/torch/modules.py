"""Small modules, each with a sample input for it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

pytest.importorskip("torch")

import torch
from torch import nn


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Network(nn.Module):
    """Convolution, batch normalization with statistics that are not the first ones, dropout, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(8, 4)
        with torch.no_grad():
            self.norm.running_mean += randn(8)
            self.norm.running_var += randn(8).abs()

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.head(self.drop(torch.relu(self.norm(self.conv(image))).mean((2, 3))))


class Block(nn.Module):
    """LayerNorm and attention, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.norm, self.qkv, self.out = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(self.norm(tokens)).chunk(3, dim=-1)
        return tokens + self.out(torch.softmax(q @ k.transpose(1, 2) / 4, dim=-1) @ v)


class TwoInTwoOut(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor, scale: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
        return a @ b.transpose(0, 1), a * scale


class Named(nn.Module):
    """Outputs in a dict, one of them an input, and one twice."""

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = x.exp()
        return {"same": x, "exp": y, "again": y, "most": y.argmax(-1)}


class Tokens(nn.Module):
    """Indices, which have to stay in range, a mask, and an input by keyword."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(7, 4)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        found = self.table(ids)
        return found if mask is None else found * mask.unsqueeze(-1)


class Nested(nn.Module):
    def forward(self, pair: list[torch.Tensor], named: dict[str, torch.Tensor]) -> torch.Tensor:
        return pair[0] + 2 * pair[1] + 3 * named["late"] + 4 * named["early"]


class Branching(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.sum() > 0:
            return x + 1
        return -x


class Reshaping(nn.Module):
    """Runs with two samples and with no other number of them."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(2, 4).relu()


class Constant(nn.Module):
    """Runs with any number of samples, but a trace of it knows only one."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * int(x.shape[0] == 2) if x.shape[0] == 2 else x * 3


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 3))


def scalar() -> nn.Module:
    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean()

    return Mean()


Made = tuple[Callable[[], nn.Module], tuple[object, ...], dict[str, object]]
CASES: dict[str, Made] = {
    "convolution": (Network, (randn(2, 3, 8, 8),), {}),
    "one-sample": (Network, (randn(1, 3, 8, 8),), {}),
    "mlp": (mlp, (randn(5, 8),), {}),
    "attention": (Block, (randn(2, 5, 16),), {}),
    "two-inputs-two-outputs": (TwoInTwoOut, (randn(2, 4), randn(2, 4, seed=1)), {}),
    "argument-that-is-no-tensor": (TwoInTwoOut, (randn(2, 4), randn(2, 4, seed=1), 3.0), {}),
    "dict-of-outputs": (Named, (randn(2, 4),), {}),
    "indices": (Tokens, (torch.tensor([[0, 6, 2]]),), {}),
    "keyword": (Tokens, (torch.tensor([[0, 6, 2]]),), {"mask": torch.tensor([[1.0, 0.0, 1.0]])}),
    "keywords-in-another-order": (Tokens, (), {"mask": torch.tensor([[1.0, 0.0, 1.0]]), "ids": torch.tensor([[0, 6, 2]])}),
    "nested-arguments": (Nested, ([randn(2, 3), randn(2, 3, seed=1)], {"late": randn(2, 3, seed=2), "early": randn(2, 3, seed=3)}), {}),
    "scalar-output": (scalar, (randn(2, 3),), {}),
    "only-two-samples": (Reshaping, (randn(2, 4),), {}),
    "half-precision": (lambda: mlp().half(), (randn(2, 8).half(),), {}),
}
