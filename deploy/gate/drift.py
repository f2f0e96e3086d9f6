"""Whether a run can be held against a baseline at all.

A gate that calls a shuffled label file a regression sends people to look for it in the model.
So the images, their labels, how they are prepared, and whose weights these are, are looked at
first; each has its own error.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from core.errors import (
    ImageDriftError,
    LabelDriftError,
    ModelDriftError,
    PreprocessDriftError,
)
from deploy.evaluation.predictions import ImageTable
from deploy.gate.baseline import Baseline, Held

__all__ = ["Identity", "align", "require_model", "require_preprocess"]

Rows = npt.NDArray[np.int64]
Where = Callable[[int], str]
Identity = tuple[str, str, str]  # name, sha256, digest of the weights or ""

_NAMED = 3  # images that a message names
_UPDATE = "if the change is meant, measure the baseline again: strata baseline --update"


def require_preprocess(baseline: Baseline, preprocess: str | None) -> None:
    """Refuse images that are prepared in another way than the baseline's.

    Args:
        baseline: What must hold.
        preprocess: The spec as JSON; None for data that comes prepared.

    Raises:
        PreprocessDriftError: They are.
    """
    before = baseline.data.preprocess
    if before == preprocess:
        return
    if before is None or preprocess is None:
        kinds = ("network inputs", "pixels")
        was, now = kinds if before is None else kinds[::-1]
        problem = f"the baseline's images came as {was}, these come as {now}"
        raise PreprocessDriftError(problem, hint=_UPDATE)
    old, new = json.loads(before), json.loads(preprocess)
    changed = [f"{key} {old.get(key)} → {new[key]}" for key in new if new[key] != old.get(key)]
    raise PreprocessDriftError(
        f"the images are prepared in another way than the baseline's: {', '.join(changed)}",
        hint="give the model or --preprocess the spec it was trained with; " + _UPDATE,
    )


def require_model(
    baseline: Baseline, held: Held, given: Identity, *, other_weights: bool = False
) -> None:
    """Refuse a model of other weights than those that the baseline was made of.

    A candidate may have any bytes: it is what is tested. What must not change unsaid are the
    weights it comes from; where nothing is known of those, only the reference is compared,
    by its bytes.

    Args:
        baseline: What must hold.
        held: The baseline's entry for this model.
        given: The model at hand.
        other_weights: Take other weights: they are what is tested.

    Raises:
        ModelDriftError: It is another model.
    """
    name, sha256, weights = given
    if other_weights or sha256 == held.sha256:
        return
    if held.weights and weights and held.weights != weights:
        problem = (
            f"{name}: made of the weights {weights[:12]}…; the baseline is that of another "
            f"model, of the weights {held.weights[:12]}…"
        )
    elif held is baseline.models[0] and not (held.weights and weights):
        problem = (
            f"{name}: its sha256 is {sha256[:12]}…; the baseline is that of another reference "
            f"({held.model}, {held.sha256[:12]}…)"
        )
    else:
        return
    hint = "name the baseline of this model; --other-weights to test new weights against it; "
    raise ModelDriftError(problem, hint=hint + _UPDATE)


def align(before: ImageTable, now: ImageTable, where: Where, *, part: bool) -> Rows:
    """Find each image of a run in the baseline.

    Args:
        before: The baseline's images.
        now: The run's.
        where: Number in the source → how a message names the image.
        part: The run may be of a part of them.

    Returns:
        For each of ``now`` its row in ``before``, int64 (n,).

    Raises:
        ImageDriftError: An image that the baseline has not, or one that is gone.
        LabelDriftError: The same images with other labels.
    """
    places: defaultdict[bytes, list[int]] = defaultdict(list)
    for row, key in enumerate(before.keys):
        places[key].append(row)
    rows = np.full(len(now), -1, np.int64)
    for row, key in enumerate(now.keys):
        if places[key]:
            rows[row] = places[key].pop(0)
    lost = np.flatnonzero(rows < 0)
    left = sorted(row for some in places.values() for row in some)
    if lost.size:
        _refuse(before, now, lost, left, where)
    if left and not part:
        raise ImageDriftError(
            f"{len(left)} of the baseline's {len(before)} images are not there, such as "
            f"sha256 {before.digests[left[0]].tobytes().hex()[:12]}…",
            hint="give all of them, or say with --images that a part is meant; " + _UPDATE,
        )
    return rows


def _refuse(
    before: ImageTable, now: ImageTable, lost: Rows, left: Sequence[int], where: Where
) -> None:
    """Say whether the images or their labels are others."""
    known = Counter(before.digests[row].tobytes() for row in left)
    relabelled: list[int] = []
    strange: list[int] = []
    for row in map(int, lost):
        digest = now.digests[row].tobytes()
        known[digest] -= 1
        (relabelled if known[digest] >= 0 else strange).append(row)
    if strange:
        names = _some(where(int(now.indices[row])) for row in strange)
        raise ImageDriftError(
            f"{len(strange)} of {len(now)} images are not the baseline's: {names}",
            hint="restore them; " + _UPDATE,
        )
    labels = {before.digests[row].tobytes(): int(before.labels[row]) for row in left}
    names = _some(
        f"{where(int(now.indices[row]))} was {before.name(labels[now.digests[row].tobytes()])}, "
        f"is {now.name(int(now.labels[row]))}"
        for row in relabelled
    )
    raise LabelDriftError(
        f"{len(relabelled)} of {len(now)} images are the baseline's with another label: {names}",
        hint="restore the labels; " + _UPDATE,
    )


def _some(names: Iterable[str]) -> str:
    """Name the first few."""
    listed = list(names)
    more = ["…"] if len(listed) > _NAMED else []
    return "; ".join(listed[:_NAMED] + more)
