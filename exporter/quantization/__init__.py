"""Quantization: from what tensors held to a plan, a table and the INT8 graph."""
