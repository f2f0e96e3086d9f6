"""What every floor shares: errors, artifacts, INT8 arithmetic and metrics.

Nothing here imports a framework; numpy is the only dependency.
"""
