"""Server-sent events: shared, bounded, free while nobody looks, and never in the daemon's way."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

import pytest
from aiohttp import web
from viewer import Viewer

from transcriber.http import viewers
from transcriber.http.acceptor import HealthOptions
from transcriber.http.server import HealthServer
from transcriber.http.viewers import MOST, Viewers


class Stand:
    """Viewers on a port of their own. `reads` counts how often the figures were read."""

    def __init__(self) -> None:
        self.reads = 0
        self.body = b"x"
        self.viewers = Viewers(self._read)
        self.handlers = {"/events": self.serve}
        self.close = self.viewers.close
        self.server = HealthServer(HealthOptions("127.0.0.1", 0), {}, self)
        self.ended = asyncio.Event()

    def _read(self) -> bytes:
        self.reads += 1
        return b"%d %s" % (self.reads, self.body)

    def refusal(self, host: str) -> None:
        """Everybody may look."""

    async def serve(self, request: web.Request) -> web.StreamResponse:
        try:
            return await self.viewers.serve(request)
        finally:
            self.ended.set()

    @property
    def port(self) -> int:
        return self.server.port


@pytest.fixture
async def stand(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stand]:
    monkeypatch.setattr(viewers, "_INTERVAL_SECS", 0.01)
    made = Stand()
    await made.server.start()
    yield made
    await made.server.stop()


async def test_a_viewer_gets_events_that_follow_each_other(stand: Stand) -> None:
    """The first comes at once, then one an interval, as an event stream that must not be cached."""
    async with Viewer(stand.port) as viewer:
        assert viewer.status == "HTTP/1.1 200 OK"
        assert viewer.headers["Content-Type"] == "text/event-stream"
        assert viewer.headers["Cache-Control"] == "no-store"
        assert [await viewer.data() for _ in range(3)] == [b"1 x", b"2 x", b"3 x"]


async def test_one_message_is_made_for_all(stand: Stand, monkeypatch: pytest.MonkeyPatch) -> None:
    """A viewer that comes between two messages gets the newest one again. All get the same."""
    monkeypatch.setattr(viewers, "_INTERVAL_SECS", 0.2)
    async with contextlib.AsyncExitStack() as stack:
        first = await stack.enter_async_context(Viewer(stand.port))
        assert await first.data() == b"1 x"
        others = [await stack.enter_async_context(Viewer(stand.port)) for _ in range(MOST - 1)]
        got = [await viewer.data() for viewer in (*others, first)]
        assert set(got) <= {b"1 x", b"2 x"}
        assert stand.reads <= 2


async def test_figures_are_not_read_while_nobody_looks(stand: Stand) -> None:
    """Reading ends with the last viewer and begins again with the next."""
    assert stand.reads == 0
    async with Viewer(stand.port) as viewer:
        await viewer.data()
    async with asyncio.timeout(5):
        await stand.ended.wait()
    assert len(stand.viewers) == 0
    reads = stand.reads
    async with Viewer(stand.port) as viewer:
        assert await viewer.data() in {b"%d x" % reads, b"%d x" % (reads + 1)}


async def test_viewer_above_the_limit_gets_503(stand: Stand) -> None:
    """The answer says when to come back. There is room again when a viewer has gone."""
    async with contextlib.AsyncExitStack() as stack:
        looking = [await stack.enter_async_context(Viewer(stand.port)) for _ in range(MOST)]
        async with Viewer(stand.port) as refused:
            assert refused.status == "HTTP/1.1 503 Service Unavailable"
            assert refused.headers["Retry-After"] == "5"
            assert await refused.rest() == b"16 viewers are connected already\n"
        stand.ended.clear()
        await looking[0].__aexit__()
        async with asyncio.timeout(5):
            await stand.ended.wait()
        async with Viewer(stand.port) as welcome:
            assert welcome.status == "HTTP/1.1 200 OK"


async def test_stalled_viewer_is_dropped_and_holds_one_message_at_most(
    stand: Stand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Old figures are of no use, so none waits for the one on its way. The other viewers see no difference."""
    monkeypatch.setattr(viewers, "_SLOW_SECS", 0.3)
    stand.body = b"x" * 50_000
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect(("127.0.0.1", stand.port))
        slow.sendall(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
        async with Viewer(stand.port) as viewer, asyncio.timeout(20):
            await viewer.data()
            while len(stand.viewers) < 2:
                await viewer.data()
            held = []
            while len(stand.viewers) == 2:
                held.append(max(t.get_write_buffer_size() for t in stand.viewers._looking))
                await viewer.data()
            assert 0 < max(held) <= 51_000
            await viewer.data()


async def test_viewer_that_catches_up_in_time_stays(stand: Stand) -> None:
    """A viewer away for less than the limit goes on with the newest figures, and misses those between."""
    stand.body = b"x" * 50_000
    async with Viewer(stand.port) as dozing, Viewer(stand.port) as viewer, asyncio.timeout(20):
        while not any(t.get_write_buffer_size() for t in stand.viewers._looking):
            await viewer.data()
        reached = stand.reads
        while True:
            number = int((await dozing.data()).split()[0])
            if number > reached:
                break
        assert len(stand.viewers) == 2


async def test_closing_waits_for_no_viewer(stand: Stand) -> None:
    """Every viewer is cut off at once."""
    async with Viewer(stand.port) as viewer:
        await viewer.data()
        stand.viewers.close()
        await viewer.rest()
        assert viewer.reader.at_eof() or viewer.reader.exception() is not None


async def test_error_in_the_figures_ends_up_in_the_log(stand: Stand, caplog: pytest.LogCaptureFixture) -> None:
    """The daemon goes on, and the viewers' connections end."""

    def fail() -> bytes:
        raise RuntimeError("no figures")

    stand.viewers._read = fail
    async with Viewer(stand.port) as viewer:
        assert b"data" not in await viewer.rest()
    assert "the status page failed" in caplog.text


async def test_a_viewer_that_goes_on_talking_still_looks(stand: Stand) -> None:
    """Its request is complete. Later bytes are neither answered nor kept."""
    async with Viewer(stand.port) as viewer:
        await viewer.data()
        viewer._writer.write(b"x" * 100_000)
        assert (await viewer.data()).endswith(b" x")
        (transport,) = stand.viewers._looking
        async with asyncio.timeout(5):
            while transport.is_reading():
                viewer._writer.write(b"x" * 100_000)
                await viewer.data()
