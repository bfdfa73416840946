"""A MobileNetV3-like classifier of 32 x 32 images, for `qat.py`: inverted residuals, depthwise, squeeze-excite and hard-swish.

The blocks are those of Howard et al., "Searching for MobileNetV3" (2019), with strides for small images: 1.3 M parameters.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

STEM, HEAD = 32, 512
# kernel, channels inside, channels out, stride, and whether it has squeeze-excite and hard-swish
BLOCKS = (
    (3, 64, 32, 1, False),
    (3, 128, 48, 2, False),
    (3, 192, 48, 1, False),
    (5, 240, 80, 2, True),
    (5, 320, 80, 1, True),
    (5, 320, 80, 1, True),
    (5, 480, 128, 2, True),
    (5, 512, 128, 1, True),
    (5, 512, 128, 1, True),
)
SQUEEZE = 4  # channels inside, over those that squeeze-excite keeps


class SqueezeExcite(nn.Module):
    """Weigh each channel by what all of the image holds."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.reduce = nn.Conv2d(channels, channels // SQUEEZE, 1)
        self.expand = nn.Conv2d(channels // SQUEEZE, channels, 1)
        self.relu, self.gate = nn.ReLU(), nn.Hardsigmoid()

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        """Return x times a weight for each channel."""
        return x * self.gate(self.expand(self.relu(self.reduce(self.pool(x)))))


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to what came in where the shapes are the same."""

    def __init__(self, channels: int, block: tuple[int, int, int, int, bool]) -> None:
        super().__init__()
        kernel, inside, out, stride, excites = block
        self.layers = nn.Sequential(
            *convolution(channels, inside, 1),
            activation(excites),
            *convolution(inside, inside, kernel, stride=stride, groups=inside),
            activation(excites),
            *([SqueezeExcite(inside)] if excites else []),
            *convolution(inside, out, 1),
        )
        self.adds = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:  # (N, C, H, W)
        """Return the block's output."""
        return x + self.layers(x) if self.adds else self.layers(x)


def convolution(channels: int, out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> tuple[nn.Module, nn.Module]:
    """Return a convolution that keeps the size over its stride, and its normalization."""
    return nn.Conv2d(channels, out, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False), nn.BatchNorm2d(out)


def activation(smooth: bool) -> nn.Module:
    """Return hard-swish, or ReLU."""
    return nn.Hardswish() if smooth else nn.ReLU()


def network(classes: int = 10) -> nn.Sequential:
    """Return the classifier with random weights: (N, 3, 32, 32) to (N, classes)."""
    widths = [STEM, *(block[2] for block in BLOCKS)]
    blocks = [InvertedResidual(width, block) for width, block in zip(widths, BLOCKS, strict=False)]
    head = (*convolution(widths[-1], HEAD, 1), nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(HEAD, classes))
    made = nn.Sequential(*convolution(3, STEM, 3), nn.Hardswish(), *blocks, *head)
    for part in made.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
            if part.bias is not None:
                nn.init.zeros_(part.bias)
    # A block that begins as nothing but its shortcut trains from a high learning rate on.
    for block in blocks:
        if block.adds:
            nn.init.zeros_(block.layers[-1].weight)
    torch.nn.init.normal_(made[-1].weight, std=0.01)
    return made
