"""Engines: what TensorRT is asked for, what it may refuse, and what it makes."""
