"""Holds the bytes that a client sends: in memory while they are few, then in an unnamed file."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import tempfile
from concurrent.futures import ThreadPoolExecutor
from typing import IO, TYPE_CHECKING, Any, Self

from transcriber.gateway.problems import Problem

if TYPE_CHECKING:
    from collections.abc import Callable

# 1 MiB: half a minute of 16 kHz PCM, which most uploads are under. It is also the least that a write to disk is worth.
_IN_MEMORY = 1 << 20
_ALL_IN_MEMORY = 64 << 20  # of all uploads together, which thousands of clients could send at once
_FULL_SECS = 30  # until others may have finished, where the disk is full


class Storage:
    """Where uploads are kept. `pool` runs what may wait for the disk.

    `limit`: the most bytes of one upload. `memory` and `disk`: bytes that are still free for all of them.
    """

    def __init__(self, pool: ThreadPoolExecutor, limit: int, *, disk: int, memory: int = _ALL_IN_MEMORY) -> None:
        self.pool = pool
        self.limit = limit
        self.memory = memory
        self.disk = disk

    def take(self, size: int) -> None:
        """Count bytes that are kept in memory. Raises `Problem` 503 if there is no room for them."""
        if size > self.memory:
            raise Problem(503, "too many uploads at a time", code="overloaded", retry_after=1.0)
        self.memory -= size

    def move(self, size: int) -> None:
        """Count bytes that go from memory to disk. Raises `Problem` 503 if there is no room for them."""
        if size > self.disk:
            raise _full()
        self.memory += size
        self.disk -= size


class Upload:
    """One upload. `write` it, then read `data` or `file`; always `close` it. `hashed`: compute `sha256`."""

    def __init__(self, storage: Storage, *, hashed: bool = False) -> None:
        self._storage = storage
        self._hash = hashlib.sha256() if hashed else None
        self._memory = bytearray()
        self._file: IO[bytes] | None = None
        self._on_disk = 0
        self.size = 0

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    @property
    def data(self) -> bytes | None:
        """All of it, if it is in memory."""
        return None if self._file is not None else bytes(self._memory)

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest() if self._hash is not None else ""

    def file(self) -> IO[bytes]:
        """A file to read from its beginning. It stays open until `close`."""
        if self._file is None:
            return io.BytesIO(self._memory)
        self._file.seek(0)
        return self._file

    def check(self, size: int | None) -> None:
        """Raise `Problem` 413 for an upload of `size` bytes in all; None if that is not known."""
        if size is not None and size > self._storage.limit:
            message = f"{size} bytes are too many; allowed: GATEWAY_MAX_UPLOAD_BYTES={self._storage.limit}"
            raise Problem(413, message, code="too_large", param="file")

    async def write(self, data: bytes) -> None:
        """Add bytes. Raises `Problem`: 413 for too many, 503 where there is no room for them."""
        self.size += len(data)
        self.check(self.size)
        self._storage.take(len(data))
        self._memory += data
        if len(self._memory) > _IN_MEMORY:
            await self._spilt()

    async def finish(self) -> None:
        """Say that this is all."""
        if self._file is not None:
            await self._spilt()
            await self._in_thread(self._file.flush)
        elif self._hash is not None:
            self._hash.update(self._memory)

    def close(self) -> None:
        """Give memory and file free."""
        self._storage.memory += len(self._memory)
        self._storage.disk += self._on_disk
        self._memory, self._on_disk = bytearray(), 0
        if self._file is not None:
            self._file.close()

    async def _spilt(self) -> None:
        """Move what is in memory to the file."""
        await self._in_thread(self._spill)
        self._storage.move(len(self._memory))
        self._on_disk += len(self._memory)
        self._memory = bytearray()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="transcriber-")  # noqa: SIM115 - `close` does
        if self._hash is not None:
            self._hash.update(self._memory)
        self._file.write(self._memory)

    async def _in_thread(self, call: Callable[[], Any]) -> None:
        try:
            await asyncio.get_running_loop().run_in_executor(self._storage.pool, call)
        except OSError as error:
            if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
                raise
            raise _full() from error


def _full() -> Problem:
    return Problem(503, "no space for uploads", code="overloaded", retry_after=_FULL_SECS)
