"""Somebody who looks at the status page without a browser: an answer's head, then its server-sent events."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any, Self

PATIENCE = 30.0  # seconds until a viewer gives up waiting for a message that must come


class Viewer:
    """One connection to the health port. `status` and `headers` are there when it is entered."""

    def __init__(
        self, port: int, path: str = "/events", method: str = "GET", host: str = "x", *, address: str = "127.0.0.1"
    ) -> None:
        self._address = address
        self._port = port
        self._request = f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n"

    async def __aenter__(self) -> Self:
        self.reader, self._writer = await asyncio.open_connection(self._address, self._port)
        self._writer.write(self._request.encode())
        async with asyncio.timeout(PATIENCE):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        self.status, *lines = head.strip().split("\r\n")
        self.headers = {name: value for name, _, value in (line.partition(": ") for line in lines)}
        return self

    async def __aexit__(self, *_: object) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()

    async def rest(self) -> bytes:
        """All that follows, until the server hangs up."""
        async with asyncio.timeout(PATIENCE):
            with contextlib.suppress(ConnectionError):
                return await self.reader.read()
        return b""

    async def body(self) -> bytes:
        """As much as the answer says that it has."""
        async with asyncio.timeout(PATIENCE):
            return await self.reader.readexactly(int(self.headers["Content-Length"]))

    async def data(self) -> bytes:
        """The next message's data."""
        async with asyncio.timeout(PATIENCE):
            while not (line := await self.reader.readline()).startswith(b"data: "):
                assert line, "the server hung up"
        return line.removeprefix(b"data: ").rstrip(b"\n")

    async def view(self) -> dict[str, Any]:
        """The next message: the page's figures."""
        view: dict[str, Any] = json.loads(await self.data())
        return view
