"""What a model takes of memory, how much there is for a second one beside it, and giving back what is free."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transcriber.models.ggml import ModelHeader

# Measured with whisper.cpp 1.8.5 at full context, many times in one process: a model's memory beside its weights is its
# vocabulary and buffers of fixed size, 35 MiB at first and up to 49 later, and what grows with the model. That is 1.48
# times the sum of two parts for the bundled model, 1.76 for tiny, 1.77 for base, 1.69 for small: the encoder's
# attention scores, one float32 a pair of positions and head, and keys and values for the decoder, two float16 a
# position, width and layer.
_FIXED_BYTES = 48 * 2**20
_BESIDE_WEIGHTS = 2
_SCORE_BYTES = 4
_KEY_VALUE_BYTES = 2 * 2


def needed(header: ModelHeader, size: int) -> int:
    """Bytes at most that a model takes, loaded and decoding at full context; `size` is its file's."""
    positions = header.n_audio_ctx
    scores = positions * positions * header.n_audio_head * _SCORE_BYTES
    keys_values = positions * header.n_text_state * header.n_text_layer * _KEY_VALUE_BYTES
    return size + _FIXED_BYTES + _BESIDE_WEIGHTS * (scores + keys_values)


def available(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes that may still be taken, by the container's limit (cgroup v2 or v1) and the host's memory; None: unknown.

    Files that were read count as used in a container, and the model itself is one; what the kernel would give up first
    (`inactive_file`) is not counted here, nor is it where Kubernetes decides whom to evict.
    """
    found = [
        _left(cgroup / "memory.max", cgroup / "memory.current", cgroup / "memory.stat", "inactive_file"),
        _left(
            cgroup / "memory/memory.limit_in_bytes",
            cgroup / "memory/memory.usage_in_bytes",
            cgroup / "memory/memory.stat",
            "total_inactive_file",
        ),
    ]
    host = _field(meminfo, "MemAvailable:")
    found.append(None if host is None else host * 1024)
    return min((figure for figure in found if figure is not None), default=None)


def give_back() -> None:
    """Hand freed memory to the system, which glibc does not when anything in use lies above it.

    It would keep 34 MiB of the bundled model's 80 when that is closed, and what the longest queue so far held.
    """
    with contextlib.suppress(AttributeError, OSError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def _left(limit: Path, current: Path, stat: Path, reclaimable: str) -> int | None:
    """What a cgroup leaves; None when there is none, or no limit ("max")."""
    try:
        used = int(current.read_text()) - (_field(stat, reclaimable) or 0)
        return max(0, int(limit.read_text()) - used)
    except (OSError, ValueError):
        return None


def _field(file: Path, name: str) -> int | None:
    """The number after a name, in a file with one such pair a line."""
    try:
        rows = (line.split() for line in file.read_text().splitlines())
        return next((int(row[1]) for row in rows if row[0] == name), None)
    except (OSError, ValueError, IndexError):
        return None
