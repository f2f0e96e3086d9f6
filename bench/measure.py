"""Run a command in a process of its own; know its wall time, CPU time and peak memory.

Linux counts in a process's peak (``ru_maxrss``) what it held before ``exec``, while it was
still a copy of its parent. So :func:`measure` does not start the command itself: it starts
this file as a script, which imports little, starts the command, waits for it by ``wait4``
and prints what it cost as JSON. A peak below that script's own (some 10 MB) is not seen.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Limits", "Usage", "measure"]

_OUT_OF_MEMORY = ("MemoryError", "bad_alloc", "Unable to allocate", "Cannot allocate memory")


@dataclass(frozen=True, slots=True)
class Limits:
    """What a command may take before it is stopped.

    Attributes:
        data_bytes: Memory of its own (RLIMIT_DATA); 0 for no limit.
        seconds: Wall time; 0 for no limit.
    """

    data_bytes: int = 0
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process cost, from its start to its end.

    Attributes:
        wall_s: Seconds that passed.
        cpu_s: Seconds of CPU, user and system, all threads.
        peak_bytes: Most memory resident at a time.
        problem: Why it failed; empty when it did not.
    """

    wall_s: float
    cpu_s: float
    peak_bytes: int
    problem: str = ""


def measure(command: Sequence[str], log: Path, limits: Limits | None = None) -> Usage:
    """Run a command and wait for it.

    Args:
        command: A program and its arguments.
        log: File for what it prints, on stdout and stderr.
        limits: When to stop it.

    Returns:
        What it cost; a failure is a ``problem`` in it, never an exception.
    """
    limits = limits or Limits()
    start = [sys.executable, "-I", "-S", __file__, str(limits.data_bytes), str(limits.seconds)]
    done = subprocess.run([*start, str(log), *command], capture_output=True, text=True, check=False)
    if done.returncode:
        last = done.stderr.strip().rpartition("\n")[2] or f"exit code {done.returncode}"
        return Usage(0.0, 0.0, 0, f"cannot be started: {last}")
    found = json.loads(done.stdout)
    problem = _problem(found["status"], log, limits) if found["status"] else ""
    return Usage(found["wall_s"], found["cpu_s"], found["peak_bytes"], problem)


def _problem(status: int, log: Path, limits: Limits) -> str:
    """Return why a command failed, in a line."""
    text = log.read_text(encoding="utf-8", errors="replace").strip()
    if any(sign in text for sign in _OUT_OF_MEMORY):
        return f"out of memory, of {limits.data_bytes / 1e9:.1f} GB"
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) == signal.SIGALRM:
            return f"not done after {limits.seconds} s"
        return f"ended by {signal.Signals(os.WTERMSIG(status)).name}"
    last = text.rpartition("\n")[2].strip()
    return last or f"exit code {os.WEXITSTATUS(status)}"


def _launch(data_bytes: int, seconds: int, log: str, command: list[str]) -> None:
    """Run the command within its limits; print what it cost."""
    if data_bytes:
        resource.setrlimit(resource.RLIMIT_DATA, (data_bytes, data_bytes))
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    files = [(os.POSIX_SPAWN_DUP2, output, 1), (os.POSIX_SPAWN_DUP2, output, 2)]
    start = time.monotonic()
    child = os.posix_spawnp(command[0], command, os.environ, file_actions=files)
    # The alarm passes the signal on, so that the status says which limit it was.
    signal.signal(signal.SIGALRM, lambda *_: os.kill(child, signal.SIGALRM))
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    signal.alarm(seconds)
    try:
        _, status, used = os.wait4(child, 0)
    except KeyboardInterrupt:  # it got the signal too, from the terminal
        _, status, used = os.wait4(child, 0)
    cost = {
        "wall_s": time.monotonic() - start,
        "cpu_s": used.ru_utime + used.ru_stime,
        "peak_bytes": used.ru_maxrss * 1024,
        "status": status,
    }
    sys.stdout.write(json.dumps(cost))


if __name__ == "__main__":
    _launch(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
