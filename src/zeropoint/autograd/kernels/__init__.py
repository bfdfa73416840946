"""What calibration and fake quantization do to every element: kernels for NVIDIA GPUs, and plain PyTorch with the same results."""
