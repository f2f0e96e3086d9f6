"""What :mod:`exporter.lint` holds a graph to, one family of rules a module."""
