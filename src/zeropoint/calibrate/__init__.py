"""Run data through the network and reduce what its tensors hold to statistics, for little more than the price of running it."""

from __future__ import annotations

from zeropoint.calibrate.calibration import Subject, calibrate
from zeropoint.calibrate.effort import Effort, effort
from zeropoint.calibrate.saved import Saved, Source, load_statistics

__all__ = ["Effort", "Saved", "Source", "Subject", "calibrate", "effort", "load_statistics"]
