"""PyTorch: write modules as ONNX networks, each compared with its module before it is handed over."""

from zeropoint.torch.exporting import export

__all__ = ["export"]
