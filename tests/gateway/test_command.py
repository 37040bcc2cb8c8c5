"""`transcriber gateway` as a process: how it starts, reloads its keys, and ends."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import ssl
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientSession
from command import Command
from gateways import gateway as running
from gateways import worker
from harness import PATIENCE, QUICK, Daemon, NatsServer, Speech, s16
from identities import CERTIFICATE, KEY
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from transcriber.broker.options import BrokerOptions
from transcriber.cli.main import main
from transcriber.daemon.shutdown import ExitCode
from transcriber.domain.errors import CannotStart
from transcriber.gateway import keys, service
from transcriber.gateway.options import GatewayOptions

LISTEN = "/v1/listen?encoding=linear16&sample_rate="


class Gateway(Command):
    """The command, with its log."""

    def __init__(self, url: str, *arguments: str, **environ: Any) -> None:
        fixed = {"NATS_URL": url, "GATEWAY_PORT": "0", "NATS_RECONNECT_TIMEOUT_SECS": "0.3"}
        super().__init__("gateway", *arguments, **fixed, **environ)

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
            heard += await rest(client)
        assert client.close_code == 1012
        assert await gateway.ended() == ExitCode.CLEAN
    texts = [m["channel"]["alternatives"][0]["transcript"] for m in map(json.loads, heard) if m.get("is_final")]
    assert " ".join(filter(None, texts)) == speech.words
    assert (await gateway.logged("stopped"))["opened"] == 1


async def rest(client: ClientConnection) -> list[Any]:
    """What comes until the connection is closed, however that is meant."""
    heard = []
    with contextlib.suppress(ConnectionClosed):
        while True:
            heard.append(await client.recv())
    return heard


async def test_last_log_line_counts_every_refusal(nats_server: NatsServer) -> None:
    """Of a WebSocket before its upgrade, and of a request over HTTP: no worker is there for either."""
    async with Gateway(nats_server.url) as gateway:
        address = f"127.0.0.1:{(await gateway.logged('ready'))['port']}"
        with pytest.raises(InvalidStatus):
            await connect(f"ws://{address}{LISTEN}16000")
        async with ClientSession() as http, http.post(f"http://{address}/transcribe", json={}) as answer:
            assert answer.status == 503
        gateway.signal(signal.SIGTERM)
        stopped = await gateway.logged("stopped")
    assert (stopped["opened"], stopped["requests"], stopped["refused"]) == (0, 1, 2)


async def test_keys_are_read_again_on_sighup(nats_server: NatsServer, tmp_path: Path) -> None:
    """A new key is served; a client whose key is gone is closed; a broken file changes nothing."""
    path, one, two = tmp_path / "keys", keys.make("acme"), keys.make("other")
    path.write_text(one[1])
    environ = {"GATEWAY_KEYS": str(path), "GATEWAY_HOST": "0.0.0.0"}
    async with worker(nats_server.url), Gateway(nats_server.url, **environ) as gateway:
        port = (await gateway.logged("ready"))["port"]
        first = await opened(port, one[0])
        with pytest.raises(InvalidStatus):
            await opened(port, two[0])
        path.write_text("junk")
        gateway.signal(signal.SIGHUP)
        assert "GATEWAY_KEYS" in (await gateway.logged("keys not reloaded"))["message"]
        path.write_text(two[1])
        gateway.signal(signal.SIGHUP)
        await asyncio.wait_for(first.wait_closed(), PATIENCE)
        assert first.close_code == 1008
        await (await opened(port, two[0])).close()
        nats_server.kill()  # and when it does not come back, the gateway ends as a daemon does
        assert await gateway.ended() == ExitCode.BROKER_LOST


async def opened(port: int, key: str) -> ClientConnection:
    return await connect(f"ws://127.0.0.1:{port}{LISTEN}16000", additional_headers={"Authorization": f"Token {key}"})


async def test_bad_setting_ends_the_start_with_one_sentence() -> None:
    """To strangers it opens only with keys, or when it is told so."""
    async with Command("gateway", GATEWAY_PORT="0", GATEWAY_HOST="0.0.0.0") as command:
        assert await command.ended() == ExitCode.BAD_SETTINGS
    assert len(command.err) == 1
    assert command.err[0].startswith("transcriber: GATEWAY_HOST='0.0.0.0' is not allowed: ")
    assert "GATEWAY_AUTH=none" in command.err[0]


async def test_start_without_nats_or_port_says_why(nats_server: NatsServer) -> None:
    away = BrokerOptions(url="nats://127.0.0.1:1", connect_timeout=0.1)
    with pytest.raises(CannotStart, match="NATS at"):
        await service.Gateway(GatewayOptions(broker=away)).run(asyncio.Event())
    async with running(nats_server.url) as first:
        with pytest.raises(CannotStart, match=f"GATEWAY_PORT={first.port}"):
            await service.Gateway(GatewayOptions(port=first.port, broker=BrokerOptions(url=nats_server.url))).run(
                asyncio.Event()
            )


def test_made_key_has_the_line_of_its_hash(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The key goes to standard error, so that `>> keys` holds the line alone."""
    assert main(["gateway", "--make-key", "acme"]) == 0
    made = capsys.readouterr()
    key = next(line for line in made.err.splitlines() if "shown only now" in line).rpartition(" ")[2]
    monkeypatch.setattr("sys.stdin", io.StringIO(f"{key}\n"))
    assert main(["gateway", "--hash-key", "acme"]) == 0
    assert capsys.readouterr().out == made.out == f"{keys.line_of(key, 'acme')}\n"
    assert key not in made.out


async def test_client_that_never_begins_tls_is_cut(
    nats_server: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_HANDSHAKE_SECS", 0.5)
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(CERTIFICATE)
    key.write_text(KEY)
    async with running(nats_server.url, tls_cert=cert, tls_key=key) as serving:
        reader, writer = await asyncio.open_connection("127.0.0.1", serving.port)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()


async def test_tls_is_spoken_where_a_certificate_is_given(nats_server: NatsServer, tmp_path: Path) -> None:
    """For clients that insist on wss."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(CERTIFICATE)
    key.write_text(KEY)
    trust = ssl.create_default_context(cafile=str(cert))
    async with (
        worker(nats_server.url),
        running(nats_server.url, tls_cert=cert, tls_key=key) as serving,
        connect(f"wss://127.0.0.1:{serving.port}/plain", ssl=trust) as client,
    ):
        await client.send("ticks")
        assert (await client.recv()).isdigit()
