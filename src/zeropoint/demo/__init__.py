"""A small trained network and real digits to run it on, in the package: the demo needs no download.

`scripts/train_digits.py` makes both files. NOTICE, beside them, says where the digits come from and on what terms.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import numpy as np
import numpy.typing as npt

PIXEL_MEAN = 0.1307  # of pixels in 0..1, over the MNIST training images
PIXEL_STD = 0.3081


@dataclass(frozen=True, slots=True, eq=False)
class Digits:
    """The network's file, and images as it wants them: float32 (N, 1, 28, 28), normalized; labels are int64 (N,), 0 to 9.

    The network was trained on the calibration digits, and has never seen the test digits.
    """

    model: Path
    calibration: npt.NDArray[np.float32]
    calibration_labels: npt.NDArray[np.int64]
    test: npt.NDArray[np.float32]
    test_labels: npt.NDArray[np.int64]


def load_digits() -> Digits:
    """Return the trained network, 256 digits to calibrate it with and 500 to test it with.

    Example:
        >>> load_digits().test.shape
        (500, 1, 28, 28)
    """
    folder = Path(str(files(__name__)))
    with np.load(folder / "digits.npz", allow_pickle=False) as arrays:
        return Digits(
            model=folder / "digits.onnx",
            calibration=normalize(arrays["calibration_images"]),
            calibration_labels=arrays["calibration_labels"].astype(np.int64),
            test=normalize(arrays["test_images"]),
            test_labels=arrays["test_labels"].astype(np.int64),
        )


def normalize(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Turn grey images, uint8 (N, 28, 28) with ink at 255, into the network's input: float32 (N, 1, 28, 28).

    Example:
        >>> normalize(np.zeros((2, 28, 28), np.uint8)).shape
        (2, 1, 28, 28)
    """
    pixels = images.astype(np.float32) / np.float32(255.0)
    return np.asarray((pixels - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_STD), np.float32)[:, np.newaxis]
