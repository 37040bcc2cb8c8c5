"""How much memory a model needs, how much is available for a second one, and how to return freed memory."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transcriber.models.ggml import ModelHeader

# Besides its weights, a model needs a fixed part, for its vocabulary and buffers, and a part that grows with the model.
# The growing part is less than twice the sum of two tables. The encoder's attention scores take a float32 for each pair
# of positions and head. The decoder's keys and values take two float16 for each position, width and layer.
# docs/performance.md has the measurements.
_FIXED_BYTES = 48 * 2**20
_BUFFER_FACTOR = 2
_SCORE_BYTES = 4
_KEY_VALUE_BYTES = 2 * 2


def needed(header: ModelHeader, size: int) -> int:
    """The most bytes that a model takes, loaded and decoding at full context. `size`: of its file, in bytes."""
    positions = header.n_audio_ctx
    scores = positions * positions * header.n_audio_head * _SCORE_BYTES
    keys_values = positions * header.n_text_state * header.n_text_layer * _KEY_VALUE_BYTES
    return size + _FIXED_BYTES + _BUFFER_FACTOR * (scores + keys_values)


def available(cgroup: Path = Path("/sys/fs/cgroup"), meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Bytes available under the container's limit (cgroup v2 or v1) and in the host's memory; None: unknown.

    A container counts cached files as used, such as the model's own. The part that the kernel reclaims first
    (`inactive_file`) does not count here. Kubernetes does not count it either when it evicts pods.
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


def trim_heap() -> None:
    """Return freed memory to the system. glibc keeps it while anything above it is in use.

    It would keep much of a closed model, and all that the longest queue so far held.
    """
    with contextlib.suppress(AttributeError, OSError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def _left(limit: Path, current: Path, stat: Path, reclaimable: str) -> int | None:
    """Bytes left under a cgroup's limit; None without a cgroup or a limit ("max")."""
    try:
        used = int(current.read_text()) - (_field(stat, reclaimable) or 0)
        return max(0, int(limit.read_text()) - used)
    except (OSError, ValueError):
        return None


def _field(file: Path, name: str) -> int | None:
    """The number after a name, in a file with one pair per line."""
    try:
        rows = (line.split() for line in file.read_text().splitlines())
        return next((int(row[1]) for row in rows if row[0] == name), None)
    except (OSError, ValueError, IndexError):
        return None
