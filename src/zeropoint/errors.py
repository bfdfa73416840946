"""The errors that zeropoint raises, each saying what, where, what was found, what was expected and what to do.

ZeropointError
├── ModelError    the network cannot be read, converted or run
├── DataError     calibration or evaluation data is missing, unreadable or does not fit the network
├── RecipeError   an option has an impossible value
├── PlanError     a plan is malformed or does not fit the network
└── OutputError   a result cannot be written
"""

from __future__ import annotations


class ZeropointError(Exception):
    """Root of every error that a user can cause and mend; the command line shows it without a traceback."""


class ModelError(ZeropointError):
    """The network cannot be read, converted or run."""


class DataError(ZeropointError):
    """Calibration or evaluation data is missing, unreadable or does not fit the network."""


class RecipeError(ZeropointError):
    """An option has an impossible value."""


class PlanError(ZeropointError):
    """A plan is malformed or does not fit the network."""


class OutputError(ZeropointError):
    """A result cannot be written."""
