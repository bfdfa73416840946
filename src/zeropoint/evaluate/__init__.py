"""Measure a finished model against the float one: fidelity, accuracy, size, coverage and latency."""
