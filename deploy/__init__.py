"""Engines and people: build, compare, evaluate, run, and the command line.

Importing this package imports none of torch, onnx, onnxruntime or tensorrt: each is
imported by the one module that owns it, when it is first needed.

An application opens a bundle and asks it::

    import deploy

    with deploy.open("resnet50.strata.zip") as model:
        for answer in model.classify(["cat.jpg", "dog.jpg"]):
            print(answer.image, answer.top[0].label, answer.top[0].score)

Two forms of a network are compared layer by layer::

    report = deploy.compare("optimized.onnx", "int8.onnx")
    for blame in report.verdicts[-1].blame:
        print(blame.tensor, blame.reason, blame.next_step)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike

    from core.progress import Progress
    from deploy.bundle.choose import On
    from deploy.classifier import Classifier
    from deploy.comparison.run import CompareOptions
    from deploy.comparison.values.report import Report
    from deploy.images import ImageRequest

__all__ = ["compare", "open"]

_FEW = 32  # images that a comparison runs on, as on the command line


def compare(
    reference: str | PathLike[str],
    candidate: str | PathLike[str] | Sequence[str | PathLike[str]],
    images: ImageRequest | None = None,
    options: CompareOptions | None = None,
    *,
    progress: Progress | None = None,
) -> Report:
    """Compare two models, or a chain of them, layer by layer on the same images.

    Args:
        reference: The model that is right by definition, named as ``strata compare`` takes it:
            ``FILE.onnx``, ``torch:DEPTH``, ``torch:WEIGHTS``, ``trt-network:FILE.onnx`` or
            ``FILE.engine``.
        candidate: The model to judge; several make a chain, each compared with the one before.
        images: Which images; 32 of ``fashion-mnist:test`` unless said.
        options: Bounds, and what to measure.
        progress: Told the images done.

    Returns:
        A row for every tensor, and for every step a verdict that names the layers at fault.

    Raises:
        core.errors.StrataError: A model or the images cannot be read or run, or do not fit
            together; the error says what to do.
    """
    from os import PathLike

    from core.progress import silent
    from deploy.comparison.run import compare_models
    from deploy.images import ImageRequest

    candidates = [candidate] if isinstance(candidate, str | PathLike) else candidate
    models = [str(model) for model in (reference, *candidates)]
    request = images or ImageRequest(images=_FEW)
    return compare_models(models, request, options, progress=progress or silent)


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
