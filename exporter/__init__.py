"""Graphs: from a PyTorch network to a calibrated, quantized ONNX file."""
