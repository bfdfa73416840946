"""CIFAR-10 on one device for `qat.py`: decoded once, drawn, flipped, cropped and cut in whole batches there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIDE, PADDING, HOLE = 32, 4, 10


@dataclass(frozen=True, slots=True, eq=False)
class Images:
    """Images as bytes, (N, 3, 32, 32), and the number of each one's class, on one device."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def part(self, first: int, last: int) -> Images:
        """Return the images from `first` to before `last`."""
        return Images(self.pixels[first:last], self.labels[first:last])

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield all images as they are, in order."""
        for pixels, labels in zip(self.pixels.split(size), self.labels.split(size), strict=True):
            yield normalized(pixels), labels


@dataclass(slots=True, eq=False)
class Shuffled:
    """Whole batches of other crops in another order in each epoch, and the same again where seed and epoch are the same.

    mixed: each image is laid over another of its batch, by a share between 0 and 1: for a loss that asks for no labels, as in "Knowledge
    distillation: a good teacher is patient and consistent" (Beyer et al., 2022).
    """

    images: Images
    size: int
    seed: int
    epoch: int = 0
    mixed: bool = False

    def __len__(self) -> int:
        return len(self.images) // self.size

    def set_epoch(self, epoch: int) -> None:
        """Choose the order and crops of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        device = self.images.pixels.device
        draw = torch.Generator(device).manual_seed(self.seed * 100_003 + self.epoch)
        order = torch.randperm(len(self.images), generator=draw, device=device)[: len(self) * self.size]
        pixels = augmented(self.images.pixels[order], draw)
        for batch, labels in zip(pixels.split(self.size), self.images.labels[order].split(self.size), strict=True):
            x = normalized(batch)
            if self.mixed:
                share = torch.rand(len(x), 1, 1, 1, generator=draw, device=device)
                x = share * x + (1 - share) * x.flip(0)
            yield x, labels


def normalized(pixels: Tensor) -> Tensor:
    """Return bytes as float32 of mean 0 and deviation 1, with the channels last in memory."""
    mean, deviation = (torch.tensor(v, device=pixels.device).view(1, 3, 1, 1) * 255 for v in (MEAN, DEVIATION))
    return ((pixels.float() - mean) / deviation).contiguous(memory_format=torch.channels_last)


def augmented(pixels: Tensor, draw: torch.Generator) -> Tensor:
    """Return each image shifted by up to 4 pixels into its reflection, half of them mirrored, and with a grey square of 10 pixels in it."""
    count, device = len(pixels), pixels.device

    def drawn(limit: int) -> Tensor:
        return torch.randint(limit, (count, 1), generator=draw, device=device)

    along = torch.arange(SIDE, device=device)
    rows, columns = along + drawn(2 * PADDING + 1), along + drawn(2 * PADDING + 1)
    columns = torch.where(drawn(2) == 1, columns.flip(1), columns)
    padded = F.pad(pixels.float(), (PADDING,) * 4, mode="reflect").byte()
    number = torch.arange(count, device=device)[:, None, None]
    cropped = padded.permute(0, 2, 3, 1)[number, rows[:, :, None], columns[:, None, :]]  # (N, H, W, C)
    top, left = drawn(SIDE) - HOLE // 2, drawn(SIDE) - HOLE // 2
    inside_row, inside_column = ((along >= at) & (along < at + HOLE) for at in (top, left))
    hole = (inside_row[:, :, None] & inside_column[:, None, :])[..., None]
    grey = torch.tensor(MEAN, device=device).mul(255).round().byte()
    return torch.where(hole, grey, cropped).permute(0, 3, 1, 2)


def read(folder: Path, split: str, *, count: int, device: torch.device) -> Images:
    """Decode the first `count` images of folder/split.npz: JPEG files one behind the other, their offsets and labels."""
    with np.load(folder / f"{split}.npz") as archive:
        files, offsets, labels = (archive[key] for key in ("jpeg", "offsets", "labels"))
    count = min(count, len(labels))

    def decoded(number: int) -> np.ndarray:
        return np.asarray(Image.open(io.BytesIO(files[offsets[number] : offsets[number + 1]].tobytes())).convert("RGB"))

    with ThreadPoolExecutor() as pool:
        pixels = np.stack(list(pool.map(decoded, range(count), chunksize=256)))
    return Images(torch.from_numpy(pixels).permute(0, 3, 1, 2).to(device), torch.from_numpy(labels[:count]).to(device))
