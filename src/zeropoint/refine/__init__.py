"""Refinements: from a plan and statistics to edits of biases and weights that take error back."""
