"""Where calibration and evaluation samples come from: folders, files, arrays, Python code."""

from __future__ import annotations

from zeropoint.data.batches import Batches, batches, fed, feed_count, feeds
from zeropoint.data.inputs import Array, Feed, InputInfo
from zeropoint.data.labels import load_labels
from zeropoint.data.open import open_data
from zeropoint.data.preprocess import Preprocess
from zeropoint.data.presets import PRESETS, load_preprocess, preprocess_from_dict, preprocess_to_dict
from zeropoint.data.random import NOT_REAL
from zeropoint.data.samples import Samples, Source
from zeropoint.data.split import split

__all__ = [
    "NOT_REAL",
    "PRESETS",
    "Array",
    "Batches",
    "Feed",
    "InputInfo",
    "Preprocess",
    "Samples",
    "Source",
    "batches",
    "fed",
    "feed_count",
    "feeds",
    "load_labels",
    "load_preprocess",
    "open_data",
    "preprocess_from_dict",
    "preprocess_to_dict",
    "split",
]
