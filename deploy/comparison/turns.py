"""Parts of the images run at once, and yet their sums are added in the order of the images.

So a report has the same bits however fast the parts run: each waits, before it adds something,
until the part before it has added the same. They soon run one behind the other, and wait no more.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Condition

__all__ = ["GivenUp", "Place", "Turns"]

Place = tuple[int, int, int]  # a piece, a model, and what is added of it: increasing in each part

_BEFORE_ALL = (-math.inf,)
_BEHIND_ALL = (math.inf,)


class GivenUp(Exception):  # noqa: N818 - nothing is wrong with this part
    """Another part failed, or was told to stop."""


class Turns:
    """Who may add to the sums."""

    def __init__(self) -> None:
        self._moved = Condition()
        self._passed: dict[int, tuple[float, ...]] = {}
        self._given_up = False

    def begin(self, part: int) -> None:
        """Note that a part will come; parts are counted from 0, and begin in their order."""
        with self._moved:
            self._passed[part] = _BEFORE_ALL

    @contextmanager
    def at(self, part: int, place: Place) -> Iterator[None]:
        """Wait until the part before has passed a place, and pass it at the end of the block.

        Args:
            part: Which.
            place: Behind all that the part has passed so far. A place may be left out.

        Raises:
            GivenUp: No part is to go on.
        """
        with self._moved:
            self._moved.wait_for(lambda: self._given_up or self._may(part, place))
            if self._given_up:
                raise GivenUp
        yield
        self._pass(part, place)

    def end(self, part: int) -> None:
        """Note that a part is done."""
        self._pass(part, _BEHIND_ALL)
        with self._moved:
            self._passed.pop(part - 1, None)

    def give_up(self) -> None:
        """Let all parts end where they next wait for their turn."""
        with self._moved:
            self._given_up = True
            self._moved.notify_all()

    def _may(self, part: int, place: Place) -> bool:
        return self._passed.get(part - 1, _BEHIND_ALL) >= place

    def _pass(self, part: int, place: tuple[float, ...]) -> None:
        with self._moved:
            self._passed[part] = place
            self._moved.notify_all()
