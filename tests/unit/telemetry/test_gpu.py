"""The driver's library is asked as its header says. A library of the test's own stands for it: no GPU is needed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from transcriber.telemetry.gpu import Gpus

# The functions of nvml.h that are called, with their types; two GPUs, of which both or none can be read.
SOURCE = """
typedef struct device *nvmlDevice_t;
typedef struct { unsigned long long total, free, used; } nvmlMemory_t;
int nvmlInit_v2(void) { return INIT; }
int nvmlDeviceGetCount_v2(unsigned int *count) { *count = 2; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device) {
    *device = (nvmlDevice_t)(0x7f0000000000ULL + index);
    return 0;
}
int nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory) {
    memory->total = 1ULL << 40;
    memory->free = 7;
    memory->used = (5ULL << 32) + ((unsigned long long)device & 0xff);
    return READ;
}
"""


def library(folder: Path, init: int = 0, read: int = 0) -> str:
    """Compile it: the first two functions that may fail return these codes."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    source, built = folder / "nvml.c", folder / f"nvml-{init}-{read}.so"
    source.write_text(SOURCE.replace("INIT", str(init)).replace("READ", str(read)))
    subprocess.run(["cc", "-shared", "-fPIC", "-o", built, source], check=True)
    return str(built)


def test_gpu_memory_is_that_of_all_gpus(tmp_path: Path) -> None:
    """Beyond 32 bits, and with handles that are pointers."""
    assert Gpus(library(tmp_path)).memory == 2 * (5 << 32) + 1


def test_gpu_memory_is_unknown_without_a_gpu(tmp_path: Path) -> None:
    """No driver, one that does not start, or one that does not answer."""
    assert Gpus("libno-such-library.so").memory is None
    assert Gpus(library(tmp_path, init=9)).memory is None
    assert Gpus(library(tmp_path, read=3)).memory is None
