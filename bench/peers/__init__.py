"""The tools that Strata's calibration is measured against, each as one small script.

A script runs in the environment of its tool (``NAME.txt`` beside it is the lock), as
``python -m bench.peers.SCRIPT MODEL.onnx IMAGES.npz OUT`` from the root of the repository.
IMAGES.npz holds ``images``, float32 N×3×H×W, prepared as the network wants them. Each is
given its tool's best setting for TensorRT: INT8 with zero point 0, weights per channel.
"""
