"""The facade: everything that the command line does, as functions."""

from zeropoint.api.benching import bench
from zeropoint.api.comparing import compare
from zeropoint.api.inspecting import inspect, lint
from zeropoint.api.machine import doctor
from zeropoint.api.quantizing import quantize, solve
from zeropoint.api.ranges import solve_range
from zeropoint.torch import export

__all__ = ["bench", "compare", "doctor", "export", "inspect", "lint", "quantize", "solve", "solve_range"]
