"""From a bundle to inference servers: a model repository for Triton, KServe and Kubernetes files.

Triton reads a folder: ``NAME/config.pbtxt``, ``NAME/labels.txt``, and ``NAME/1/model.onnx`` or a
plan for each compute capability. Everything in the configuration is taken from the plan's
manifest or from the graph, and the rules that check what was written check any repository.
"""
