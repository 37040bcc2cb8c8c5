"""Three nats-servers that replicate, with proxies between their routes: any of them dies, freezes or is cut off."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

import nats
import nats.errors
import nats.js.errors
from harness import IDENTITY, PATIENCE, NatsServer, free_port
from proxy import Proxy

SIZE = 3
_AWAY = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


class Cluster:
    """Servers 0 to 2, called `n0` to `n2`. `more` goes into each one's configuration."""

    def __init__(self, folder: Path, more: str = "") -> None:
        routes = [free_port() for _ in range(SIZE)]
        self._proxies = {(i, j): Proxy(routes[j]) for i, j in itertools.permutations(range(SIZE), 2)}
        self.servers: list[NatsServer] = []
        for i in range(SIZE):
            urls = ", ".join(f'"nats://127.0.0.1:{self._proxies[i, j].port}"' for j in range(SIZE) if j != i)
            # What they advertise to each other leads nowhere, so that they meet through the proxies alone.
            cluster = f'name: c, listen: "127.0.0.1:{routes[i]}", advertise: "127.0.0.1:1", routes: [{urls}]'
            config = f'server_name: "n{i}"\ncluster {{ {cluster} }}\n{more}\n'
            server = NatsServer(folder / f"n{i}", "-js", "-sd", str(folder / f"n{i}" / "store"), config=config)
            server.port = free_port()
            self.servers.append(server)

    @property
    def url(self) -> str:
        return ",".join(server.url for server in self.servers)

    async def __aenter__(self) -> Self:
        for proxy in self._proxies.values():
            await proxy.open()
        await asyncio.gather(*(asyncio.to_thread(server.start) for server in self.servers))
        await self.settled()
        return self

    async def __aexit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()
        for proxy in self._proxies.values():
            await proxy.cut()

    async def cut_off(self, one: int) -> None:
        """Nothing passes any more between this server and the others; its clients stay."""
        for pair, proxy in self._proxies.items():
            if one in pair:
                await proxy.cut()

    async def join(self) -> None:
        """Let everything pass again."""
        for proxy in self._proxies.values():
            await proxy.open()

    async def kill_leader(self, stream: str) -> None:
        """SIGKILL for the server that leads the stream; it comes back when the others have elected another."""
        one = await self.leader(stream)
        self.servers[one].kill()
        await self.settled(without=one)
        await asyncio.to_thread(self.servers[one].start)
        await self.settled()

    async def freeze_leader(self, stream: str) -> None:
        """SIGSTOP for the server that leads the stream, until the others have elected another."""
        one = await self.leader(stream)
        self.servers[one].freeze()
        await self.settled(without=one)
        self.servers[one].resume()
        await self.settled()

    async def cut_leader(self, stream: str) -> None:
        """No network between the server that leads the stream and the others, until they have elected another."""
        one = await self.leader(stream)
        await self.cut_off(one)
        await self.settled(without=one)
        await self.join()
        await self.settled()

    async def settled(self, *, without: int | None = None) -> None:
        """Wait until JetStream answers, and every stream there is has a leader; not the one that is away."""
        async with asyncio.timeout(2 * PATIENCE), self.client(without=without) as client:
            jetstream = client.jetstream(timeout=2)
            while True:
                with contextlib.suppress(*_AWAY):
                    await jetstream.account_info()
                    names = [info.config.name or "" for info in await jetstream.streams_info()]
                    infos = [await jetstream.stream_info(name) for name in names]
                    leaders = {info.cluster.leader for info in infos if info.cluster is not None}
                    if not leaders & {None, f"n{without}"}:
                        return
                await asyncio.sleep(0.1)

    async def leader(self, stream: str) -> int:
        """Which server leads this stream now."""
        async with asyncio.timeout(PATIENCE), self.client() as client:
            jetstream = client.jetstream(timeout=1)
            while True:
                with contextlib.suppress(*_AWAY):
                    info = await jetstream.stream_info(stream)
                    if info.cluster is not None and info.cluster.leader:
                        return int(info.cluster.leader[1:])
                await asyncio.sleep(0.1)

    @contextlib.asynccontextmanager
    async def client(self, *, without: int | None = None) -> AsyncIterator[nats.NATS]:
        client = await nats.connect(
            [server.url for one, server in enumerate(self.servers) if one != without],
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            error_cb=_ignore,
            **IDENTITY,
        )
        try:
            yield client
        finally:
            await client.close()


async def _ignore(_error: Exception) -> None: ...
