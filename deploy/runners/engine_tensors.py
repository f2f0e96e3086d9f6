"""The tensors within an engine that was built to show them (``strata build --debug-tensors``).

TensorRT calls back for each such tensor while it runs, and what is at the address then is
valid until the call returns: it is copied there.

Source: NvInferRuntime.h of TensorRT 11, ``IDebugListener``; docstrings of tensorrt-rtx 1.7.1.
Never run here: no GPU was at hand.
"""

from __future__ import annotations

import ctypes
from collections.abc import Collection
from typing import Any

import numpy as np

from core.errors import BuildError
from deploy.runners import Tensors
from deploy.runners.engine_session import EngineSession

__all__ = ["InnerTensors", "address_of"]


class InnerTensors:
    """Runs an engine and collects tensors within it. One thread at a time.

    Args:
        session: The engine.
        names: The tensors it was built to show, as far as they are known.

    Attributes:
        names: Those of them that it does show.
    """

    def __init__(self, session: EngineSession, names: Collection[str]) -> None:
        self._session = session
        self.names = tuple(name for name in names if session.engine.is_debug_tensor(name))
        self._found: dict[str, list[Any]] = {}
        self._error: BaseException | None = None
        # TensorRT keeps no reference of its own.
        self._listener = session.flavour.debug_listener(self._take)
        if not session.context.set_debug_listener(self._listener):
            raise BuildError(
                "TensorRT takes no listener for the tensors within this engine",
                hint="compare its outputs only: build it without --debug-tensors",
            )

    def run(self, feeds: Tensors, wanted: Collection[str]) -> Tensors:
        """Run the engine.

        Args:
            feeds: The images, (n, …), by the name of the input.
            wanted: Which of :attr:`names` to return; memory is that of these.

        Returns:
            Those tensors and the outputs, by name, each (n, …).

        Raises:
            BuildError: TensorRT refused to run it, or did not show a tensor.
        """
        asked = [name for name in self.names if name in wanted]
        for name in self.names:
            self._session.context.set_tensor_debug_state(name, name in asked)
        self._found, self._error = {}, None
        made = self._session(feeds)
        if self._error is not None:
            raise self._error
        count = len(next(iter(made.values())))
        if missing := [name for name in asked if name not in self._found]:
            raise BuildError(
                f"TensorRT did not show {len(missing)} tensors of the engine ({missing[0]})",
                hint="compare its outputs only: build it without --debug-tensors",
            )
        # Only the last part of a batch is filled up with zeros, behind the images.
        inner = {name: np.concatenate(parts)[:count] for name, parts in self._found.items()}
        return made | inner

    def _take(
        self, name: str, address: Any, place: tuple[bool, int], form: tuple[Any, Any]
    ) -> bool:
        """Copy a tensor; no exception may pass through TensorRT.

        Args:
            name: Of the tensor.
            address: Where it is.
            place: Whether that is memory of this side, and the stream that made it.
            form: Shape and numpy type.
        """
        try:
            here, stream = place
            array = np.empty(tuple(form[0]), np.dtype(form[1]))
            if here:
                ctypes.memmove(array.ctypes.data, address_of(address), array.nbytes)
            else:
                self._session.cuda.read(array, address_of(address), stream)
            self._found.setdefault(name, []).append(array)
        except BaseException as err:  # noqa: BLE001 - it must not unwind through C++
            self._error = self._error or err
            return False
        return True


def address_of(value: Any) -> int:
    """Return the address in what the bindings hand over: a number, or a capsule around it."""
    if isinstance(value, int):
        return value
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype = ctypes.c_char_p
    api.PyCapsule_GetName.argtypes = [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    return api.PyCapsule_GetPointer(value, api.PyCapsule_GetName(value)) or 0
