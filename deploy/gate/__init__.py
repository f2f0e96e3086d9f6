"""The accuracy gate: what must hold, kept in a file, and whether it still does.

``baseline`` is the file; ``drift`` tells whether a run can be held against it at all;
``paired`` and ``medians`` are the statistics; ``verdict`` applies the file's tolerances; the
``to_*`` modules write what came of it for terminals, machines, JUnit and Markdown.
"""
