"""A network between a client and a server that can be cut, or held in one direction or both."""

from __future__ import annotations

import asyncio
from enum import Enum

from harness import free_port


class Way(Enum):
    """What does not arrive any more while a network is held."""

    UP = ("up",)  # what the client sends
    DOWN = ("down",)  # what the server sends
    BOTH = ("up", "down")


class Proxy:
    """Carries bytes to a port, until it is cut: then nobody gets through, and who is through is cut off.

    While it is held, bytes stay on their way, and connections stay open. When it is released, they arrive.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._carrying: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._free = {way: asyncio.Event() for way in Way.BOTH.value}
        self.release()
        self.port = free_port()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def open(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for task in self._carrying:
            task.cancel()
        await asyncio.gather(*self._carrying, return_exceptions=True)

    def hold(self, way: Way = Way.UP) -> None:
        for one in way.value:
            self._free[one].clear()

    def release(self) -> None:
        for free in self._free.values():
            free.set()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._carrying.add(task)
        writers = [writer]
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            writers.append(back)
            await asyncio.gather(_copy(reader, back, self._free["up"]), _copy(there, writer, self._free["down"]))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for one in writers:
                one.transport.abort()
            self._carrying.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, free: asyncio.Event) -> None:
    while data := await reader.read(65_536):
        await free.wait()
        writer.write(data)
        await writer.drain()
    await free.wait()  # that a side has hung up does not get through either
    raise ConnectionResetError  # so that the other direction ends, too
