"""Memory that lies alike in each run, for a command whose result depends on where it lies.

The thread that builds an engine (:mod:`deploy.engines.alone`) has a heap of its own. Some things
still make its addresses differ from run to run, and all are settled when a process starts:

- glibc keeps what a thread freed at hand for that thread, whichever heap it came from, so holes
  of the main heap are filled, and those differ with each environment.
- Linux shuffles where memory is mapped, and so the order of a heap's parts, of 64 MB each.
- Python's sets are in an order drawn anew each time, and numpy's library takes memory for as many
  threads as there are cores, which a build does not use.

Source: glibc manual, Memory Allocation Tunables, ``glibc.malloc.tcache_count``;
personality(2), ``ADDR_NO_RANDOMIZE``, as ``setarch -R`` sets it.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress

__all__ = ["settle_memory"]

_STARTED = "STRATA_SETTLED"  # the process that was started anew; it keeps its number
_VARIABLE = "GLIBC_TUNABLES"
_APART = "glibc.malloc.tcache_count=0"
_SETTLED = {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
_ASK = 0xFFFFFFFF
_ADDR_NO_RANDOMIZE = 0x0040000


def settle_memory() -> None:
    """Start this command line anew in this process, with all of it settled.

    Returns at once where that was done already, or on another system than Linux, or where the
    process is another program that calls this command line. A container may forbid the second
    (Docker's default does): a large network may then come out in another order.
    """
    # Not by what glibc was told: a privileged interpreter loses that, and would start for ever.
    started = os.environ.get(_STARTED) == str(os.getpid())
    if not sys.platform.startswith("linux") or started or not _is_command_line():
        return
    _unshuffle()
    told = os.environ.get(_VARIABLE)
    settings = {_VARIABLE: f"{told}:{_APART}" if told else _APART, _STARTED: str(os.getpid())}
    environment = os.environ | _SETTLED | settings
    with suppress(OSError):  # no interpreter to start: go on in this one
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _is_command_line() -> bool:
    """Is this process nothing but this command, so that starting it anew loses nothing?"""
    words = sys.argv[1:]
    return bool(sys.executable and words) and sys.orig_argv[-len(words) :] == words


def _unshuffle() -> None:
    """Ask for unshuffled memory in what this process starts."""
    import ctypes

    personality = ctypes.CDLL(None).personality
    personality.argtypes = [ctypes.c_ulong]
    kind = personality(_ASK)
    if kind >= 0:
        personality(kind | _ADDR_NO_RANDOMIZE)  # refused: as it was
