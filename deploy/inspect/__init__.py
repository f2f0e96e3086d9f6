"""What is in an engine: the kernels that TensorRT compiled, and the bytes they move."""
