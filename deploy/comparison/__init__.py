"""The comparison of networks, layer by layer; :func:`deploy.compare` is its front door."""
