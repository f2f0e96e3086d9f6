"""Sums over tensors, by compiled loops, in constant memory."""
