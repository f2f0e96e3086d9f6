"""The memory of ONNX Runtime's sessions: shared among some, and given back to the system.

Sessions that take turns need as much as the largest of them. With an arena for each they would
keep the sum of all; with none, what each asks for leaves gaps that the next cannot use, and
every page of it is made anew. So they work in one arena.
"""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache
from typing import Any

import numpy as np

__all__ = ["empty_shared_memory", "shared_memory", "trim_heap"]

_SHARED = ("session.use_env_allocators", "1")
_SHRINK = ("memory.enable_memory_arena_shrinkage", "cpu:0")
_SMALLEST = '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) {y = Neg (x)}'


@cache
def shared_memory(ort: Any) -> tuple[str, str]:
    """Make the arena that sessions share, once; return the entry of their configuration.

    Args:
        ort: The module onnxruntime.
    """
    kind = ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    info = ort.OrtMemoryInfo("Cpu", kind, 0, ort.OrtMemType.DEFAULT)
    ort.create_and_register_allocator(info, None)
    return _SHARED


def empty_shared_memory(ort: Any) -> None:
    """Give the system back what no session needs of the arena.

    Args:
        ort: The module onnxruntime, whose arena was made.
    """
    import onnx.parser

    # An arena is emptied behind a run, of any model: this one needs no memory of it.
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry(*_SHARED)
    model = onnx.parser.parse_model(_SMALLEST).SerializeToString()
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    binding, values = session.io_binding(), np.zeros(2, np.float32)
    binding.bind_cpu_input("x", values[:1])
    binding.bind_output("y", "cpu", 0, np.float32, (1,), values[1:].ctypes.data)
    run = ort.RunOptions()
    run.add_run_config_entry(*_SHRINK)
    session.run_with_iobinding(binding, run)
    trim_heap()


def trim_heap() -> None:
    """Give back to the system what parsing and optimizing a model left free.

    glibc keeps it: some 150 MB for a ResNet-50, for as long as the process lives.
    """
    with suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)
