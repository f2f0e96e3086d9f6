"""Measurements that the README's tables are the output of; run by make, never installed."""
