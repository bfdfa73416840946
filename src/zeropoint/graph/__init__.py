"""Load, prepare, place, materialize and lint ONNX networks: the only package that changes a graph, and only its own copy."""
