"""Write the first batch of prepared images as Polygraphy reads it: ``--load-inputs``.

A process of its own: Polygraphy serves one flavour of TensorRT a process.
"""

from __future__ import annotations

import sys
from pathlib import Path

from polygraphy.json import save_json

from bench.peers.feed import batches


def main() -> None:
    """Write IMAGES' first BATCH, for the input called NAME, to OUTPUT."""
    images, batch, name, output = sys.argv[1:]
    save_json([{name: next(batches(Path(images), int(batch)))}], output)


if __name__ == "__main__":
    main()
