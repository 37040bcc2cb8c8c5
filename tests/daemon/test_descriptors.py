"""Without a free file descriptor: probes are answered, audio becomes text, and the log stays short."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator
from pathlib import Path

from harness import QUICK, Client, Daemon, NatsServer, Speech, s16
from viewer import Viewer

HARD = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
COMPLAINT = "Too many open files"


@contextlib.contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Clients that connect and say nothing."""
    with contextlib.ExitStack() as stack:
        for _ in range(count):
            connection = stack.enter_context(socket.socket())
            connection.setblocking(False)
            connection.connect_ex(("127.0.0.1", port))
        yield


def descriptors(process: int) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{process}/fd").iterdir()}


def use_up(process: int) -> None:
    """Take the right to open one more descriptor from a running process, as if it had used up all."""
    taken = descriptors(process)
    limit = next(number for number in range(len(taken) + 1) if number not in taken)
    resource.prlimit(process, resource.RLIMIT_NOFILE, (limit, HARD))


async def check_that_it_works(daemon: Daemon, client: Client, speech: Speech) -> None:
    assert [await daemon.probe("/livez") for _ in range(40)] == [200] * 40
    pcm = s16(speech.samples)
    for start in range(0, len(pcm), 96_000):
        chunk = pcm[start : start + 96_000]
        await client.send(chunk, audio_sample_rate=speech.rate, audio_session="run", audio_offset=start // 2)
    await client.send(audio_session="run", audio_event="end")
    await client.until_type("ended", session="run")
    assert client.text() == speech.words
    assert [await daemon.probe(path) for path in ("/livez", "/readyz")] == [200, 200]


def complaints(daemon: Daemon) -> int:
    return sum(record["message"].startswith(COMPLAINT) for record in daemon.records)


async def test_probes_and_audio_go_on_without_descriptors(
    nats_server: NatsServer, client: Client, demo_speech: Speech
) -> None:
    """A kubelet's new connections are answered, and one line says what is wrong."""
    async with Daemon(nats_server.url, **QUICK) as daemon:
        before = len(daemon.records)
        use_up(daemon.process.pid)
        await check_that_it_works(daemon, client, demo_speech)
        warning = await daemon.logged(COMPLAINT)
        assert warning["level"] == "warning"
        assert 0 < warning["file_limit"] < 100
        assert await daemon.stop() == 0
    assert complaints(daemon) == 1
    assert len(daemon.records) < before + 20
    assert daemon.stderr == ""


async def test_idle_connections_do_not_hold_up_the_probes(
    nats_server: NatsServer, client: Client, demo_speech: Speech
) -> None:
    """Hundreds of clients say nothing, and no other descriptor is free."""
    async with Daemon(nats_server.url, **QUICK) as daemon:
        port = (await daemon.logged("starting"))["health_port"]
        use_up(daemon.process.pid)
        with idle_connections(port, 100):
            await check_that_it_works(daemon, client, demo_speech)
        assert await daemon.stop() == 0
    assert complaints(daemon) == 1


async def test_idle_connections_leave_descriptors_to_the_others(
    nats_server: NatsServer, client: Client, demo_speech: Speech
) -> None:
    """Under `ulimit -n 64` and three hundred idle clients, the port holds a quarter of the descriptors."""
    daemon = Daemon(nats_server.url, **QUICK)
    daemon._command = ["sh", "-c", 'ulimit -n 64; exec "$@"', "sh", *daemon._command]
    async with daemon:
        port = (await daemon.logged("starting"))["health_port"]
        with idle_connections(port, 300):
            await check_that_it_works(daemon, client, demo_speech)
            assert len(descriptors(daemon.process.pid)) < 60
            nats_server.kill()
            await daemon.logged("NATS disconnected")
            nats_server.start()
            await daemon.logged("NATS reconnected")
        assert await daemon.stop() == 0
    assert complaints(daemon) == 0


async def test_the_reserve_is_not_given_to_viewers(nats_server: NatsServer) -> None:
    """A viewer would hold it for as long as it looks. Once descriptors are free, viewers are welcome."""
    async with Daemon(nats_server.url, **QUICK) as daemon, contextlib.AsyncExitStack() as stack:
        port = (await daemon.logged("starting"))["health_port"]
        use_up(daemon.process.pid)
        refused = [await stack.enter_async_context(Viewer(port)) for _ in range(5)]
        assert {viewer.status for viewer in refused} == {"HTTP/1.1 503 Service Unavailable"}
        assert await daemon.probe("/livez") == 200
        resource.prlimit(daemon.process.pid, resource.RLIMIT_NOFILE, (HARD, HARD))
        async with Viewer(port) as viewer:
            assert (await viewer.view())["state"] == "ready"
        assert await asyncio.gather(*(daemon.probe("/livez") for _ in range(32))) == [200] * 32
        assert await daemon.stop() == 0
