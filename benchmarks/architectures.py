"""ResNet-50, MobileNetV2 and SqueezeNet 1.1 in PyTorch, with RANDOM weights: for timing only, they say nothing about accuracy.

The layers are torchvision's: those of "Deep Residual Learning" (He et al., 2015) with the stride in the 3 x 3 convolution, of
"MobileNetV2" (Sandler et al., 2018) at width 1.0 and of SqueezeNet 1.1 (Iandola et al., 2016); image float32 (batch, 3, 224, 224) gives
logits float32 (batch, 1000). The initialisation is He's, seeded; one pass in training mode then sets the statistics of every BatchNorm,
so that activations are distributed much as a trained network's are, and none of them overflows or dies.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

CLASSES = 1000
Shape = tuple[int, int]


def convolution(channels: Shape, size: int, *, stride: int = 1, groups: int = 1, act: nn.Module | None = None) -> nn.Sequential:
    """Return a convolution that keeps the size but for its stride, BatchNorm, and `act` where it is given."""
    conv = nn.Conv2d(*channels, size, stride=stride, padding=size // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels[1]), *([] if act is None else [act]))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 with the stride, 1 x 1 to four times the width, and the sum with the input, projected where shapes differ."""

    def __init__(self, channels: int, width: int, *, stride: int) -> None:
        super().__init__()
        wide = 4 * width
        self.branch = nn.Sequential(
            convolution((channels, width), 1, act=nn.ReLU()),
            convolution((width, width), 3, stride=stride, act=nn.ReLU()),
            convolution((width, wide), 1),
        )
        self.shortcut = nn.Identity() if channels == wide else convolution((channels, wide), 1, stride=stride)
        self.act = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, channels, H, W) -> (N, 4 width, H / stride, W / stride)
        """Return the block's output."""
        out: torch.Tensor = self.act(self.branch(x) + self.shortcut(x))
        return out


class InvertedResidual(nn.Module):
    """1 x 1 to `expansion` times the width, 3 x 3 depthwise, linear 1 x 1, and the sum with the input where shapes allow."""

    def __init__(self, channels: Shape, *, stride: int, expansion: int) -> None:
        super().__init__()
        wide = channels[0] * expansion
        widen = [] if expansion == 1 else [convolution((channels[0], wide), 1, act=nn.ReLU6())]
        depthwise = convolution((wide, wide), 3, stride=stride, groups=wide, act=nn.ReLU6())
        self.branch = nn.Sequential(*widen, depthwise, convolution((wide, channels[1]), 1))
        self.adds = stride == 1 and channels[0] == channels[1]

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, channels[0], H, W) -> (N, channels[1], H / stride, W / stride)
        """Return the block's output."""
        out: torch.Tensor = self.branch(x)
        return x + out if self.adds else out


class Fire(nn.Module):
    """1 x 1 to `squeezed` channels, then 1 x 1 and 3 x 3 beside each other, each to `expanded` channels."""

    def __init__(self, channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.Conv2d(channels, squeezed, 1), nn.ReLU())
        self.narrow = nn.Sequential(nn.Conv2d(squeezed, expanded, 1), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(squeezed, expanded, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:  # (N, channels, H, W) -> (N, 2 expanded, H, W)
        """Return the block's output."""
        x = self.squeeze(x)
        return torch.cat([self.narrow(x), self.wide(x)], 1)


def resnet50() -> nn.Module:
    """Return ResNet-50, version 1: 25.6 million parameters, 4.1 billion multiply-accumulates."""
    layers: list[nn.Module] = [convolution((3, 64), 7, stride=2, act=nn.ReLU()), nn.MaxPool2d(3, stride=2, padding=1)]
    channels = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for block in range(blocks):
            layers.append(Bottleneck(channels, width, stride=stride if block == 0 else 1))
            channels = 4 * width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, CLASSES))


def mobilenetv2() -> nn.Module:
    """Return MobileNetV2, width 1.0: 3.5 million parameters, 0.3 billion multiply-accumulates."""
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))
    layers: list[nn.Module] = [convolution((3, 32), 3, stride=2, act=nn.ReLU6())]
    channels = 32
    for expansion, width, blocks, stride in stages:
        for block in range(blocks):
            layers.append(InvertedResidual((channels, width), stride=stride if block == 0 else 1, expansion=expansion))
            channels = width
    layers.append(convolution((channels, 1280), 1, act=nn.ReLU6()))
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(1280, CLASSES))


def squeezenet() -> nn.Module:
    """Return SqueezeNet 1.1: 1.2 million parameters, 0.35 billion multiply-accumulates, no BatchNorm."""

    def pool() -> nn.Module:
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    return nn.Sequential(
        *(nn.Conv2d(3, 64, 3, stride=2), nn.ReLU(), pool()),
        *(Fire(64, 16, 64), Fire(128, 16, 64), pool()),
        *(Fire(128, 32, 128), Fire(256, 32, 128), pool()),
        *(Fire(256, 48, 192), Fire(384, 48, 192), Fire(384, 64, 256), Fire(512, 64, 256)),
        *(nn.Dropout(0.5), nn.Conv2d(512, CLASSES, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
    )


ARCHITECTURES = {"resnet50": resnet50, "mobilenetv2": mobilenetv2, "squeezenet": squeezenet}


def random_network(name: str, images: torch.Tensor, *, seed: int = 0) -> nn.Module:
    """Return the network called `name` in evaluation mode, with random weights that `images` (N, 3, 224, 224) have settled.

    Scales, shifts and biases are drawn around their usual start, not equal to it: the exporter would share equal ones among layers,
    which no trained network has, and channels of one spread would be an easy case.
    """
    network = ARCHITECTURES[name]()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu", generator=generator)
                _draw(module.bias, (0.0, 0.05), generator)
            elif isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5, generator=generator)
                _draw(module.bias, (0.0, 0.2), generator)
        _settle(network, images)
    return network.eval()


def _draw(bias: torch.Tensor | None, normal: Sequence[float], generator: torch.Generator) -> None:
    if bias is not None:
        nn.init.normal_(bias, *normal, generator=generator)


def _settle(network: nn.Module, images: torch.Tensor) -> None:
    """Set the mean and variance of every BatchNorm to those of `images`, in one pass; momentum 1 forgets what was there before."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    for norm in norms:
        norm.train()  # only these: dropout has no part in it
    network(images)
