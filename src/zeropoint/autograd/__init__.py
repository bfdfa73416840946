"""ONNX networks as differentiable PyTorch modules: operators, fake quantization, and the lifting of a graph."""
