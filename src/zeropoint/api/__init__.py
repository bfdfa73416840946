"""The facade: everything that the command line does, as functions."""

from zeropoint.api.inspecting import inspect, lint
from zeropoint.api.quantizing import quantize, solve
from zeropoint.api.ranges import solve_range

__all__ = ["inspect", "lint", "quantize", "solve", "solve_range"]
