"""How loops over arrays are compiled: they hold no lock, so that threads run side by side.

The only module that imports numba; only modules of such loops import this one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

__all__ = ["ANY_ORDER", "AS_WRITTEN", "compiled", "prefetch"]

# Sums may be taken in any order, so that they are taken eight at a time; NaN stays NaN.
ANY_ORDER = frozenset({"reassoc", "contract", "nsz"})
AS_WRITTEN: frozenset[str] = frozenset()

_of_loops: Callable[[Callable[..., Any]], Callable[..., None]] = intrinsic


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


@_of_loops
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """In a loop: begin to fetch element ``index`` of a contiguous array into the second cache.

    It may lie beyond the array's end, and then nothing happens. The processor foresees a walk
    through memory by itself, but only to the end of a page of 4 KiB.
    """
    del typing

    def write(context: Any, builder: Any, signature: Any, given: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, given[0]).data
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        call = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        where = builder.bitcast(builder.gep(data, [given[1]]), pointer)
        builder.call(call, [where, number(0), number(2), number(1)])  # read; level 2; data
        return context.get_dummy_value()

    return types.void(array, index), write
