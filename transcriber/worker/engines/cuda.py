"""Finds the CUDA libraries that CTranslate2 opens by name."""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

_CUBLAS = ("libcublasLt.so.12", "libcublas.so.12")  # the second needs the first


def load_cublas() -> None:
    """Load cuBLAS 12 into this process: from the wheel `nvidia-cublas-cu12`, or else from the system.

    CTranslate2 opens it by its name, in the first pass. The dynamic linker searches no wheels, but takes a library of
    that name that is loaded already. Raises `OSError` when there is none, or it cannot be loaded.
    """
    folder = _wheel_folder()
    for name in _CUBLAS:
        ctypes.CDLL(name if folder is None else str(folder / name), ctypes.RTLD_GLOBAL)


def _wheel_folder() -> Path | None:
    """The folder of the wheel's libraries; None if it is not installed."""
    try:
        spec = importlib.util.find_spec("nvidia.cublas")
    except ModuleNotFoundError:
        return None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations))) / "lib"
