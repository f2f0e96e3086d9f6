"""The bundle: one file that carries a network to an edge GPU or to a server.

``layout`` says which bytes a bundle is made of, ``index`` what is in it; ``writer`` and
``reader`` write and read it, ``contents`` knows what each file in it is, ``verify`` checks
all of it. Nothing here needs torch, onnx, onnxruntime or TensorRT.
"""
