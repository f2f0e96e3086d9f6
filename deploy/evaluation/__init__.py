"""What models answered, image by image: measured, kept in a file, summed up.

``predict`` runs models over labelled images, a part of them on each CPU (``at_once``), and
``on_cluster`` on Ray's workers; ``predictions`` is what it returns and what can
be merged and paired; ``predictions_file`` keeps it; ``measures`` sums it up.
:func:`deploy.evaluate.evaluate` is the front door.
"""
