"""Graph passes: one rewrite a file, each saying what it did or why it did not.

A pass is a function ``(ir.Model) -> PassResult``. It edits the model in place, keeps the
names of the tensors that survive, and run a second time changes nothing.
"""
