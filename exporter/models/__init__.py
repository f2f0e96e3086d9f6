"""The reference networks: the residual network of He et al. and its named variants.

Importing this package imports no framework; ``config`` and ``families`` need none.
"""
