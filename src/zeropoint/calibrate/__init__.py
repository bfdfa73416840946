"""Run data through the network and reduce what its tensors hold to statistics, for little more than the price of running it."""

from __future__ import annotations

from zeropoint.calibrate.calibration import Subject, calibrate
from zeropoint.calibrate.resources import Resources, resources
from zeropoint.calibrate.saved import Saved, Source, load_statistics

__all__ = ["Resources", "Saved", "Source", "Subject", "calibrate", "load_statistics", "resources"]
