"""ONNX operators as differentiable PyTorch functions: one table, and the binding of a node's attributes.

A function takes the ONNX inputs by position, tensors or None, and the ONNX attributes by name; it returns a tensor or a tuple of them.
Shapes travel as int64 tensors on the CPU: what computes them, and what reads them, never waits for a GPU.
"""

from zeropoint.autograd.operators.binding import bound
from zeropoint.autograd.operators.table import OPERATORS

__all__ = ["OPERATORS", "bound"]
