"""Rounding: what a scale and a code are, and what makes up for the error they leave."""
