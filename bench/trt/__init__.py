"""Measure the building of engines and the evaluation of TensorRT's networks on the CPU."""
