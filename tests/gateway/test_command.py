"""`transcriber gateway` as a process: how it starts, reloads its keys, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from pathlib import Path
from typing import Any

import pytest
from command import Command
from harness import PATIENCE, QUICK, Daemon, NatsServer, Speech, s16
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosedError, InvalidStatus

from transcriber.daemon.shutdown import ExitCode

LISTEN = "/v1/listen?encoding=linear16&sample_rate="


class Gateway(Command):
    """The command, with its log."""

    def __init__(self, url: str, *arguments: str, **environ: Any) -> None:
        super().__init__("gateway", *arguments, NATS_URL=url, GATEWAY_PORT="0", **environ)

    async def logged(self, message: str) -> dict[str, Any]:
        return json.loads(await self.printed(f'"message": "{message}'))


async def test_gateway_that_stops_gives_every_client_its_last_words(nats_server: NatsServer, heldout: Speech) -> None:
    """SIGTERM: no new client, the sessions end, what was said is told, and 1012 says to come back. Exit code 0."""
    speech = heldout.cut(0, 2)
    async with Daemon(nats_server.url, **QUICK), Gateway(nats_server.url) as gateway:
        port = (await gateway.logged("ready"))["port"]
        async with connect(f"ws://127.0.0.1:{port}{LISTEN}{speech.rate}") as client:
            await client.send(s16(speech.samples))
            heard = [await client.recv()]  # the audio has arrived
            gateway.signal(signal.SIGTERM)
            with contextlib.suppress(ConnectionClosedError):
                async for message in client:
                    heard.append(message)  # noqa: PERF401 - what came before the error counts
        assert client.close_code == 1012
        assert await gateway.ended() == ExitCode.CLEAN
    texts = [m["channel"]["alternatives"][0]["transcript"] for m in map(json.loads, heard) if m.get("is_final")]
    assert " ".join(filter(None, texts)) == speech.words
    assert (await gateway.logged("stopped"))["opened"] == 1


async def test_keys_are_read_again_on_sighup(nats_server: NatsServer, tmp_path: Path) -> None:
    """A new key is served; a client whose key is gone is closed; a broken file changes nothing."""
    keys = tmp_path / "keys"
    one, two = await made("acme"), await made("other")
    keys.write_text(one[1])
    environ = {"GATEWAY_KEYS": str(keys), "GATEWAY_HOST": "0.0.0.0"}
    async with Daemon(nats_server.url, **QUICK), Gateway(nats_server.url, **environ) as gateway:
        port = (await gateway.logged("ready"))["port"]
        first = await opened(port, one[0])
        with pytest.raises(InvalidStatus):
            await opened(port, two[0])
        keys.write_text("junk")
        gateway.signal(signal.SIGHUP)
        assert "GATEWAY_KEYS" in (await gateway.logged("keys not reloaded"))["message"]
        keys.write_text(two[1])
        gateway.signal(signal.SIGHUP)
        await asyncio.wait_for(first.wait_closed(), PATIENCE)
        assert first.close_code == 1008
        second = await opened(port, two[0])
        await second.close()


async def opened(port: int, key: str) -> ClientConnection:
    return await connect(f"ws://127.0.0.1:{port}{LISTEN}16000", additional_headers={"Authorization": f"Token {key}"})


async def made(tenant: str) -> tuple[str, str]:
    """A new key and its line."""
    async with Command("gateway", "--make-key", tenant) as command:
        assert await command.ended() == 0
    key = next(line for line in command.err if "shown only now" in line).rpartition(" ")[2]
    async with Command("gateway", "--hash-key", tenant) as hashing:
        await hashing.feed(f"{key}\n".encode())
        hashing.end_input()
        assert await hashing.ended() == 0
    assert hashing.out == command.out
    return key, command.out[0]


@pytest.mark.parametrize(
    ("environ", "code", "words"),
    [
        ({"GATEWAY_HOST": "0.0.0.0"}, ExitCode.BAD_SETTINGS, "GATEWAY_AUTH=none"),
        ({"GATEWAY_KEYS": "/nowhere"}, ExitCode.BAD_SETTINGS, "GATEWAY_KEYS"),
        ({"GATEWAY_TLS_CERT": "/nowhere"}, ExitCode.BAD_SETTINGS, "GATEWAY_TLS_KEY"),
        ({"GATEWAY_MAX_CONNECTIONS": "many"}, ExitCode.BAD_SETTINGS, "1 to 1000000"),
        ({"NATS_URL": "nats://127.0.0.1:1", "NATS_CONNECT_TIMEOUT_SECS": "0.2"}, ExitCode.CANNOT_START, "NATS at"),
    ],
)
async def test_start_that_cannot_be_says_why(environ: dict[str, str], code: ExitCode, words: str) -> None:
    async with Command("gateway", **({"GATEWAY_PORT": "0"} | environ)) as command:
        assert await command.ended() == code
    assert any(words in line for line in (*command.out, *command.err))


async def test_taken_port_is_told(nats_server: NatsServer) -> None:
    async with Gateway(nats_server.url) as first:
        port = (await first.logged("ready"))["port"]
        async with Command("gateway", NATS_URL=nats_server.url, GATEWAY_PORT=str(port)) as second:
            assert await second.ended() == ExitCode.CANNOT_START
        assert any(f"GATEWAY_PORT={port}" in line for line in second.out)


async def test_lost_nats_ends_it_with_the_daemons_code(nats_server: NatsServer) -> None:
    async with Gateway(nats_server.url, NATS_RECONNECT_TIMEOUT_SECS="0.3") as gateway:
        await gateway.logged("ready")
        nats_server.kill()
        assert await gateway.ended() == ExitCode.BROKER_LOST
