"""The models of a comparison, whatever runs them, as one shape."""
