"""The table of operators, and which function stands for a node where the opset or the outputs that are read decide it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from zeropoint.autograd.operators.activations import ACTIVATIONS
from zeropoint.autograd.operators.attention import ATTENTION, ATTENTION_WITH_SCORES
from zeropoint.autograd.operators.convolution import PRODUCTS
from zeropoint.autograd.operators.elementwise import ELEMENTWISE
from zeropoint.autograd.operators.indexing import INDEXING
from zeropoint.autograd.operators.normalization import NORMALIZATIONS, group_normalization_18, layer_normalization_with_statistics
from zeropoint.autograd.operators.padding import PADDING
from zeropoint.autograd.operators.pooling import POOLS, max_pool_with_indices
from zeropoint.autograd.operators.quantization import QUANTIZATION
from zeropoint.autograd.operators.recurrent import RECURRENT
from zeropoint.autograd.operators.reductions import REDUCTIONS
from zeropoint.autograd.operators.resizing import RESIZING
from zeropoint.autograd.operators.shapes import SHAPES, dropout_with_mask
from zeropoint.autograd.operators.tensors import Operator

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        **ELEMENTWISE,
        **ACTIVATIONS,
        **PRODUCTS,
        **POOLS,
        **NORMALIZATIONS,
        **REDUCTIONS,
        **SHAPES,
        **INDEXING,
        **PADDING,
        **RESIZING,
        **QUANTIZATION,
        **ATTENTION,
        **RECURRENT,
    }
)

# Operators that meant something else before an opset.
BEFORE: Mapping[str, tuple[int, Operator]] = {"GroupNormalization": (21, group_normalization_18)}

# Operators whose further outputs cost something, and are computed only for nodes that have so many outputs.
WITH_FURTHER_OUTPUTS: Mapping[str, tuple[int, Operator]] = {
    "Attention": (4, ATTENTION_WITH_SCORES),
    "Dropout": (2, dropout_with_mask),
    "LayerNormalization": (2, layer_normalization_with_statistics),
    "MaxPool": (2, max_pool_with_indices),
}
