"""The comparison of networks, layer by layer; :func:`deploy.compare` is its front door.

From the ground up, imports going down only::

    run, chain, cutting, assemble, answers     models side by side, piece by piece
    output    a comparison as text and as a file
    judging   from sums to a verdict
    sides     the models, whatever runs them
    sums      over tensors, by compiled loops
    graphs    wiring, weights, scales, pieces
    values    what is found
"""
