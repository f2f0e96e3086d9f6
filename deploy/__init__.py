"""Engines and people: build, compare, evaluate, run, and the command line.

Importing this package imports none of torch, onnx, onnxruntime or tensorrt: each is
imported by the one module that owns it, when it is first needed.

An application opens a bundle and asks it::

    import deploy

    with deploy.open("resnet50.strata.zip") as model:
        for answer in model.classify(["cat.jpg", "dog.jpg"]):
            print(answer.image, answer.top[0].label, answer.top[0].score)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from os import PathLike

    from core.progress import Progress
    from deploy.bundle.choose import On
    from deploy.classifier import Classifier

__all__ = ["open"]


def open(  # noqa: A001 - deploy.open is what it does; this package opens no plain files
    bundle: str | PathLike[str],
    *,
    on: On = "auto",
    batch: int | None = None,
    fast: bool = False,
    progress: Progress | None = None,
) -> Classifier:
    """Open a bundle on this machine: its plan on the GPU, or its graph on the CPU.

    Args:
        bundle: What ``strata bundle`` wrote; it is checked as it is read.
        on: ``"auto"`` takes the GPU where there is one, else the CPU; ``"gpu"``; ``"cpu"``.
        batch: How many images travel together; None for what the plan was tuned for.
        fast: ONNX Runtime's fast kernels for INT8 and FP16, too: some 0.3 % other answers.
        progress: Told how far the build of a plan got, where one has to be built.

    Returns:
        A classifier, to be used in a ``with`` block; any thread may ask it.

    Raises:
        core.errors.StrataError: The bundle is damaged, or nothing here runs it; the error
            says what to do.
    """
    from pathlib import Path

    from core.progress import silent
    from deploy.bundle.opening import Opening, open_classifier

    opening = Opening(on=on, batch=batch, fast=fast)
    return open_classifier(Path(bundle), opening, progress=progress or silent)
