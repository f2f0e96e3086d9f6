"""What this machine has: GPUs, their driver, and whether it is a Jetson.

Asked of the driver's own library (libcuda, by ctypes) and of /proc: no CUDA toolkit, no
nvidia-smi and no Python package is needed, and a machine without a GPU answers at once.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from deploy.engines.target import ComputeCapability

__all__ = ["Gpu", "Gpus", "find_gpus", "jetson_release"]

# CUdevice_attribute. Source: CUDA Driver API, "Device Management".
_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76
_LIBCUDA = "libcuda.so.1"
_DRIVER_FILE = Path("/proc/driver/nvidia/version")
_TEGRA_FILE = Path("/etc/nv_tegra_release")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of this machine."""

    name: str
    capability: ComputeCapability
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Gpus:
    """The GPUs that CUDA can use here, or why there are none.

    Attributes:
        devices: In CUDA's order.
        driver: Version of the kernel driver, e.g. ``"580.65.06"``; empty when there is none.
        cuda: Newest CUDA that the driver serves, e.g. ``"13.0"``; empty when there is none.
        problem: Why ``devices`` is empty; empty when it is not.
    """

    devices: tuple[Gpu, ...] = ()
    driver: str = ""
    cuda: str = ""
    problem: str = ""


@cache
def find_gpus() -> Gpus:
    """Ask the driver which GPUs there are (once a process)."""
    driver = _driver_version()
    try:
        cuda = ctypes.CDLL(_LIBCUDA)
    except OSError:
        why = "the driver is there, but not its library libcuda" if driver else "no NVIDIA driver"
        return Gpus(driver=driver, problem=why)
    code = cuda.cuInit(0)
    version = ctypes.c_int()
    cuda.cuDriverGetVersion(ctypes.byref(version))
    served = f"{version.value // 1000}.{version.value % 1000 // 10}" if version.value else ""
    count = ctypes.c_int()
    if code == 0:
        code = cuda.cuDeviceGetCount(ctypes.byref(count))
    if code != 0 or count.value == 0:
        why = f"the driver finds no GPU (CUDA error {code})" if code else "the driver finds no GPU"
        return Gpus(driver=driver, cuda=served, problem=why)
    devices = tuple(_device(cuda, index) for index in range(count.value))
    return Gpus(devices=devices, driver=driver, cuda=served)


def _device(cuda: Any, index: int) -> Gpu:
    device, major, minor = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    name, memory = ctypes.create_string_buffer(256), ctypes.c_size_t()
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    cuda.cuDeviceTotalMem_v2(ctypes.byref(memory), device)
    capability = ComputeCapability(major.value, minor.value)
    return Gpu(name.value.decode(errors="replace"), capability, memory.value)


def _driver_version() -> str:
    try:
        text = _DRIVER_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"Kernel Module.*?(\d+\.\d+(?:\.\d+)?)", text)
    return found[1] if found else "unknown"


def jetson_release() -> str:
    """Return a Jetson's L4T release, e.g. ``"R36.4.3"``; empty on any other machine."""
    try:
        text = _TEGRA_FILE.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(r"R(\d+).*?REVISION: ([\d.]+)", text)
    return f"R{found[1]}.{found[2]}" if found else "unknown"
