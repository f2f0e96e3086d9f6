"""How long a model takes, and whether another one is faster: ``strata bench``.

A machine's speed drifts, by heat, by clocks, by what else runs on it. Two models that are timed
one after the other are compared with two machines. Here they take turns, in an order that lets
a drift cancel, and only times of the same round are held against one another.
"""
