"""Clocks, power and temperature of a GPU, by the driver's NVML: what a timing should note.

NVML comes with the driver of PCs and servers, and with newer JetPacks; a value that it does
not tell, or a library that is not there, is ``None``: not read, and never a guess.

Source: NVML API Reference (functions, ``nvmlClockType_t``, ``nvmlClocksEventReasons``).
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any

__all__ = ["GpuMeter", "GpuState", "open_meter"]

_LIBRARY = "libnvidia-ml.so.1"
_SM_CLOCK, _MEMORY_CLOCK = 1, 2
_GPU_SENSOR = 0
# Why a GPU runs below its highest clock; idling and what a user set are no news.
_SLOWED = {
    0x004: "power cap",
    0x008: "hardware slowdown",
    0x020: "heat",
    0x040: "heat (hardware)",
    0x080: "power brake",
}


@dataclass(frozen=True, slots=True)
class GpuState:
    """What a GPU does at a moment; None where it was not read.

    Attributes:
        sm_mhz: Clock of its processors.
        memory_mhz: Clock of its memory.
        watts: What it draws.
        celsius: How warm it is.
        slowed: Why it runs below its highest clock; empty when it does not.
    """

    sm_mhz: int | None = None
    memory_mhz: int | None = None
    watts: float | None = None
    celsius: int | None = None
    slowed: tuple[str, ...] | None = None


class GpuMeter:
    """Reads one GPU.

    Args:
        library: libnvidia-ml, or what stands in for it.
        device: NVML's handle of the GPU.
    """

    def __init__(self, library: Any, device: ctypes.c_void_p) -> None:
        self._nvml = library
        self._device = device

    def read(self) -> GpuState:
        """Return what the GPU does now."""
        milliwatts = self._ask("nvmlDeviceGetPowerUsage")
        reasons = self._ask("nvmlDeviceGetCurrentClocksThrottleReasons", value=ctypes.c_ulonglong())
        return GpuState(
            sm_mhz=self._ask("nvmlDeviceGetClockInfo", _SM_CLOCK),
            memory_mhz=self._ask("nvmlDeviceGetClockInfo", _MEMORY_CLOCK),
            watts=None if milliwatts is None else milliwatts / 1000,
            celsius=self._ask("nvmlDeviceGetTemperature", _GPU_SENSOR),
            slowed=None
            if reasons is None
            else tuple(why for bit, why in _SLOWED.items() if reasons & bit),
        )

    def _ask(self, function: str, *arguments: int, value: Any = None) -> int | None:
        value = ctypes.c_uint() if value is None else value
        try:
            code = getattr(self._nvml, function)(self._device, *arguments, ctypes.byref(value))
        except AttributeError:  # another NVML than the one these names are of
            return None
        return None if code else int(value.value)


def open_meter(pci_bus: str, library: Any = None) -> GpuMeter | None:
    """Return a meter of the GPU at an address on the PCI bus; None where it cannot be read."""
    try:
        nvml = library or ctypes.CDLL(_LIBRARY)
        device = ctypes.c_void_p()
        address = ctypes.c_char_p(pci_bus.encode())
        if nvml.nvmlInit_v2():
            return None
        if nvml.nvmlDeviceGetHandleByPciBusId_v2(address, ctypes.byref(device)):
            return None
    except (OSError, AttributeError):
        return None
    return GpuMeter(nvml, device)
