"""How loops over arrays are compiled: they hold no lock, so that threads run side by side.

The only module that imports numba; only modules of such loops import this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba

__all__ = ["ANY_ORDER", "AS_WRITTEN", "compiled"]

# Sums may be taken in any order, so that they are taken eight at a time; NaN stays NaN.
ANY_ORDER = frozenset({"reassoc", "contract", "nsz"})
AS_WRITTEN: frozenset[str] = frozenset()


def compiled(allowed: frozenset[str]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Compile when first called, or take the code from numba's cache on disk."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}
    # Said of every loop: one of which nothing is said is compiled as the loop that calls it.
    options["fastmath"] = set(allowed) or False

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        try:
            compiled: Callable[..., Any] = numba.njit(cache=True, **options)(function)
        except RuntimeError:  # nowhere to keep a cache: a read-only package and no home
            compiled = numba.njit(**options)(function)
        return compiled

    return decorate
