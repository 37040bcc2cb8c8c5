"""How much memory of NVIDIA's GPUs is in use, as the driver's own library tells it."""

from __future__ import annotations

import ctypes
from typing import ClassVar

_LIBRARY = "libnvidia-ml.so.1"  # comes with the driver


class _Memory(ctypes.Structure):
    """`nvmlMemory_t`: bytes."""

    _fields_: ClassVar = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class Gpus:
    """The GPUs that this process can see. Without the driver, there is none."""

    def __init__(self, library: str = _LIBRARY) -> None:
        self._nvml: ctypes.CDLL | None = None
        self._devices: list[ctypes.c_void_p] = []
        try:
            nvml = ctypes.CDLL(library)
        except OSError:
            return
        if nvml.nvmlInit_v2() != 0:
            return
        self._nvml = nvml
        count = ctypes.c_uint()
        nvml.nvmlDeviceGetCount_v2(ctypes.byref(count))
        for index in range(count.value):
            device = ctypes.c_void_p()
            if nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(device)) == 0:
                self._devices.append(device)

    @property
    def memory(self) -> int | None:
        """Bytes in use on all of them, by any process: a container does not see whose they are. None without a GPU."""
        if self._nvml is None or not self._devices:
            return None
        used = 0
        for device in self._devices:
            memory = _Memory()
            if self._nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(memory)) != 0:
                return None
            used += memory.used
        return used
