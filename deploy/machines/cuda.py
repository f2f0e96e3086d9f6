"""Memory and copies on a GPU, by the driver's own library: what running an engine takes.

Through libcuda alone, which comes with every driver and with JetPack: no CUDA toolkit and no
Python package of CUDA is needed. TensorRT works in the device's primary context; so does this.

Source: CUDA Driver API (functions and their ``_v2`` names; error 2 is out of memory).
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from itertools import pairwise
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from core.errors import MissingBackendError

__all__ = ["Cuda", "load_cuda"]

_LIBCUDA = "libcuda.so.1"
_OUT_OF_MEMORY = 2
_TIMED = 0  # CU_EVENT_DEFAULT
_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING: it does not wait for the default stream


class Cuda:
    """One GPU, one stream, and what was taken of its memory. One thread at a time.

    Args:
        library: libcuda, or what stands in for it.
        device: Its number in CUDA's order.

    Raises:
        MissingBackendError: The driver refuses.
    """

    def __init__(self, library: Any, device: int = 0) -> None:
        self._cuda = library
        self._device = ctypes.c_int()
        self._context = ctypes.c_void_p()
        self._stream = ctypes.c_void_p()
        self._taken: list[tuple[str, ctypes.c_void_p]] = []
        self._do("cuInit", 0)
        self._do("cuDeviceGet", ctypes.byref(self._device), device)
        self._do("cuDevicePrimaryCtxRetain", ctypes.byref(self._context), self._device)
        self.enter()
        self._do("cuStreamCreate", ctypes.byref(self._stream), _NON_BLOCKING)

    def enter(self) -> None:
        """Make the GPU that of the calling thread."""
        self._do("cuCtxSetCurrent", self._context)

    @property
    def stream(self) -> int:
        """The stream, as TensorRT takes it."""
        return self._stream.value or 0

    def device_bytes(self, count: int) -> int:
        """Take memory of the GPU; return its address."""
        address = ctypes.c_void_p()
        self._do("cuMemAlloc_v2", ctypes.byref(address), ctypes.c_size_t(max(1, count)))
        self._taken.append(("cuMemFree_v2", address))
        return address.value or 0

    def host_array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        """Take page-locked memory, which copies to the GPU without a stop in between.

        Returns:
            An array of that shape and type, valid until :meth:`close`.
        """
        count = max(1, prod(shape) * dtype.itemsize)
        address = ctypes.c_void_p()
        self._do("cuMemAllocHost_v2", ctypes.byref(address), ctypes.c_size_t(count))
        self._taken.append(("cuMemFreeHost", address))
        raw = (ctypes.c_ubyte * count).from_address(address.value or 0)
        array: npt.NDArray[Any] = np.frombuffer(memoryview(raw), dtype, prod(shape))
        return array.reshape(shape)

    def copy_in(self, device: int, host: npt.NDArray[Any]) -> None:
        """Start copying an array to the GPU; it must be contiguous and stay as it is."""
        self._copy("cuMemcpyHtoDAsync_v2", device, host.ctypes.data, host.nbytes)

    def copy_out(self, host: npt.NDArray[Any], device: int) -> None:
        """Start copying from the GPU to a contiguous array."""
        self._copy("cuMemcpyDtoHAsync_v2", host.ctypes.data, device, host.nbytes)

    def _copy(self, function: str, to: int, source: int, count: int) -> None:
        pointers = (ctypes.c_void_p(to), ctypes.c_void_p(source))
        self._do(function, *pointers, ctypes.c_size_t(count), self._stream)

    def read(self, host: npt.NDArray[Any], device: int, stream: int) -> None:
        """Copy to a contiguous array what a stream has made, and wait for it."""
        pointers = (ctypes.c_void_p(host.ctypes.data), ctypes.c_void_p(device))
        of_it = ctypes.c_void_p(stream)
        self._do("cuMemcpyDtoHAsync_v2", *pointers, ctypes.c_size_t(host.nbytes), of_it)
        self._do("cuStreamSynchronize", of_it)

    def wait(self) -> None:
        """Wait until all that was started is done."""
        self._do("cuStreamSynchronize", self._stream)

    def mark(self) -> ctypes.c_void_p:
        """Put a mark behind all that was started; :meth:`between` reads and frees it."""
        event = ctypes.c_void_p()
        self._do("cuEventCreate", ctypes.byref(event), _TIMED)
        self._do("cuEventRecord", event, self._stream)
        return event

    def between(self, marks: Sequence[ctypes.c_void_p]) -> tuple[float, ...]:
        """Return the milliseconds from each mark to the next, once all were waited for."""
        times = []
        for start, end in pairwise(marks):
            elapsed = ctypes.c_float()
            self._do("cuEventElapsedTime", ctypes.byref(elapsed), start, end)
            times.append(elapsed.value)
        for event in marks:
            self._do("cuEventDestroy_v2", event)
        return tuple(times)

    @property
    def name(self) -> str:
        """The GPU's name, as its driver has it."""
        name = ctypes.create_string_buffer(256)
        self._do("cuDeviceGetName", name, len(name), self._device)
        return name.value.decode(errors="replace")

    @property
    def pci_bus(self) -> str:
        """The GPU's address on the PCI bus, by which NVML knows it too."""
        name = ctypes.create_string_buffer(64)
        self._do("cuDeviceGetPCIBusId", name, len(name), self._device)
        return name.value.decode("ascii", "replace")

    def close(self) -> None:
        """Give everything back; arrays of :meth:`host_array` must not be used again."""
        if not self._context:
            return
        self.enter()
        while self._taken:
            function, address = self._taken.pop()
            self._do(function, address)
        self._do("cuStreamDestroy_v2", self._stream)
        self._do("cuDevicePrimaryCtxRelease_v2", self._device)
        self._context = ctypes.c_void_p()

    def _do(self, function: str, *arguments: Any) -> None:
        code = getattr(self._cuda, function)(*arguments)
        if code:
            text = ctypes.c_char_p()
            self._cuda.cuGetErrorString(code, ctypes.byref(text))
            what = (text.value or b"unknown").decode(errors="replace")
            few = "use a smaller --batch, or a GPU with more free memory"
            raise MissingBackendError(
                f"the GPU's driver refused {function}: {what} (CUDA error {code})",
                hint=few if code == _OUT_OF_MEMORY else "strata doctor says what this machine has",
            )


def load_cuda(device: int = 0) -> Cuda:
    """Open a GPU of this machine.

    Raises:
        MissingBackendError: No driver, no such GPU, or the driver refuses.
    """
    try:
        library = ctypes.CDLL(_LIBCUDA)
    except OSError as err:
        raise MissingBackendError(
            f"no GPU can be used here ({err})", hint="strata doctor says what this machine has"
        ) from err
    return Cuda(library, device)
