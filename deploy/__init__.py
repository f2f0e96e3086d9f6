"""Engines and people: build, compare, evaluate, and the command line.

Importing this package imports none of torch, onnx, onnxruntime or tensorrt: each is
imported by the one module that owns it, when it is first needed.
"""
