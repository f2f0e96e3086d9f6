"""Calibration: images through the float network, and what its tensors held."""
