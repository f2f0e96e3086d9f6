"""PyTorch checkpoints, run by PyTorch: the reference of all references."""

from __future__ import annotations

from pathlib import Path

import torch

from core.artifacts import sha256_file
from core.errors import InputError
from deploy.runners import Model, Tensors
from exporter.card import Card
from exporter.models.checkpoint import state_digest
from exporter.weights import load_weights

__all__ = ["open_torch"]

_IMAGE, _LOGITS = "input", "logits"


def open_torch(weights: str) -> Model:
    """Open the network of some weights.

    Args:
        weights: As :func:`~exporter.weights.load_weights` reads them.

    Raises:
        InputError: No such weights, or a backbone without answers.
    """
    checkpoint = load_weights(weights)
    if checkpoint.config.features:
        raise InputError(
            f"torch:{weights}: a backbone (--features) has no answers", hint="name a classifier"
        )
    # Channels last is the layout of oneDNN's fast convolutions.
    network = checkpoint.network().to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def run(feeds: Tensors) -> Tensors:
        images = torch.from_numpy(feeds[_IMAGE]).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            return {_LOGITS: network(images).numpy()}

    path = Path(weights)
    return Model(
        name=f"torch:{path.name}",
        sha256=sha256_file(path) if path.is_file() else state_digest(checkpoint.state_dict),
        backend="torch",
        card=Card(checkpoint.preprocess, checkpoint.labels, checkpoint.origin, stage="weights"),
        image=_IMAGE,
        output=_LOGITS,
        run=run,
    )
