"""onnx_ir's types under the names that the layers above annotate with; what they may do to a model is in graph/ alone."""

from __future__ import annotations

import onnx_ir as ir

Model = ir.Model
Node = ir.Node
Value = ir.Value
