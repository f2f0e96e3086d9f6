"""The network that TensorRT's own parser built, evaluated on the CPU."""
