"""Images in, batches out: sources, preprocessing, sampling and the embedded data set.

``open.open_data`` turns what a user typed after ``--data`` into a
:class:`~calib_data.sources.Source`; ``batches.sample`` picks images of it by a seed and
``batches.batches`` streams them, preprocessed by a
:class:`~calib_data.preprocess.PreprocessSpec`. Nothing here knows of networks.
"""
