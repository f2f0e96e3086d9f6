"""Comparisons of two files, their rows laid flat: what most tests of them look at."""

from types import SimpleNamespace

import numpy as np

from deploy.comparison.run import CompareOptions, compare_models
from deploy.images import ImageRequest


def noise_request(folder, batch=4):
    """Ask for six prepared images of noise, written to the folder."""
    path = folder / "x.npz"
    np.savez(path, images=np.random.default_rng(0).normal(size=(6, 3, 32, 32)).astype(np.float32))
    return ImageRequest(str(path), batch=batch)


def rows_of(folder, request, reference, candidate):
    """Compare two files of a folder; return the rows by tensor."""
    report = compare(folder / f"{reference}.onnx", folder / f"{candidate}.onnx", request)
    return {row.tensor: row for row in report.rows}


def compare(reference, candidate, request, own=True):
    options = CompareOptions(own=own)
    report = compare_models([str(reference), str(candidate)], request, options)
    rows = {row.tensor: _flat(row) for row in report.rows if row.tensor != "input"}
    return SimpleNamespace(
        rows=tuple(rows.values()),
        candidate=report.candidate,
        data=report.data,
        verdict=report.verdicts[-1],
        worst=lambda count, *, own: tuple(rows[r.tensor] for r in report.worst(count, own=own)),
    )


def _flat(row):
    """Return the last step of a row, as if there were no other."""
    cell = row.cells[-1]
    return SimpleNamespace(
        tensor=row.tensor,
        op_type=row.op,
        shape=row.shape,
        reference=row.made[0],
        candidate=row.made[-1],
        **{name: getattr(cell, name) for name in ("status", "into", "inherited", "own")},
    )
