"""The connection: its credentials, its log lines, and how it takes what a real server does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import nats.errors
import pytest
from harness import NatsServer, converse
from identities import CERTIFICATE, KEY, PUBLIC, SEED
from nats.aio.msg import Msg

from transcriber.broker.connection import Connection
from transcriber.broker.credentials import Credentials
from transcriber.broker.direct import DirectLine
from transcriber.broker.options import BrokerOptions
from transcriber.domain.errors import BrokerError, BrokerLost
from transcriber.protocol.incoming import UNREADABLE


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("nats://host:4222", "nats://host:4222"),
        ("nats://bob:s3cret@host:4222", "nats://host:4222"),
        ("nats://t0ken@host", "nats://host"),
        ("bob:s3cret@host:4222", "host:4222"),
        ("tls://bob:s3@cret@host:4222", "tls://host:4222"),
        ("nats://bob:s3cret@a:1,nats://eve:hidden@b:2", "nats://a:1,nats://b:2"),
        ("nats://bob:s3,cret@a:1", "nats://a:1"),
        ("nats://bob:x://y@a:1", "nats://a:1"),
        ("a:1,b:2", "a:1,b:2"),
    ],
)
def test_shown_address_holds_no_credentials(url: str, address: str) -> None:
    """User, password and token are left out, however the URL is written."""
    assert BrokerOptions(url=url).address == address
    options = BrokerOptions(url=url, user="u", password="s3cret", token="t0ken")
    assert "cret" not in repr(options)
    assert "t0ken" not in repr(options)


def test_credentials_are_what_was_given(tmp_path: Path) -> None:
    """And nothing else; a user without a password has an empty one."""
    nkey = tmp_path / "nkey"
    nkey.write_bytes(SEED)
    assert BrokerOptions().credentials() == Credentials()
    assert BrokerOptions(user="u", password="p").credentials() == Credentials(user="u", password="p")
    assert BrokerOptions(user="u").credentials() == Credentials(user="u", password="")
    assert BrokerOptions(token="t").credentials() == Credentials(token="t")
    assert BrokerOptions(nkey=str(nkey)).credentials() == Credentials(seed=SEED.decode())


@pytest.mark.parametrize("field", ["creds", "nkey", "ca", "cert"])
def test_a_file_that_is_missing_or_junk_is_named(tmp_path: Path, field: str) -> None:
    """nats-py would search such a credentials file for ever, and would load other files too late."""
    junk = tmp_path / "junk"
    junk.write_text("nothing of use\n")
    for path in (junk, tmp_path / "missing", tmp_path):
        with pytest.raises(BrokerError, match=f"NATS_{field.upper()}"):
            BrokerOptions(**{field: str(path)}).credentials()  # type: ignore[arg-type]


async def opened(options: BrokerOptions) -> None:
    connection = Connection(options)
    await connection.open()
    await connection.close()


async def test_tls_with_a_private_authority_and_a_client_certificate(tmp_path: Path) -> None:
    """NATS_CA makes the server trusted, NATS_CERT and NATS_KEY identify us. Without the CA the server is refused."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(CERTIFICATE)
    key.write_text(KEY)
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{cert}", verify: true }}'
    with NatsServer(tmp_path / "nats", config=config) as server:
        mine = {"ca": str(cert), "cert": str(cert), "key": str(key)}
        await opened(BrokerOptions(url=server.url, **mine))
        with pytest.raises(BrokerError, match="CERTIFICATE_VERIFY_FAILED"):
            await opened(BrokerOptions(url=server.url, connect_timeout=0.3))


async def test_nkey_answers_the_challenge_of_the_server(tmp_path: Path) -> None:
    """The seed in NATS_NKEY answers the server's challenge."""
    seed = tmp_path / "seed"
    seed.write_bytes(SEED + b"\n")
    with NatsServer(tmp_path / "nats", config=f"authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}") as server:
        await opened(BrokerOptions(url=server.url, nkey=str(seed)))
        with pytest.raises(BrokerError, match="Authorization Violation"):
            await opened(BrokerOptions(url=server.url))


@pytest.fixture
async def connection(nats_server: NatsServer) -> AsyncIterator[Connection]:
    made = Connection(BrokerOptions(url=nats_server.url, reconnect_timeout=0.5))
    await made.open()
    yield made
    await made.close()


class Ear:
    """Collects what a subscription hears."""

    def __init__(self) -> None:
        self.messages: asyncio.Queue[Msg] = asyncio.Queue()

    async def __call__(self, message: Msg) -> None:
        self.messages.put_nowait(message)


async def test_undecodable_message_does_not_end_the_subscription(
    nats_server: NatsServer, connection: Connection
) -> None:
    """An undecodable subject arrives with replacements, an undecodable header block as `UNREADABLE`."""
    ear = Ear()
    await connection.subscribe("audio.*", ear.__call__)
    await converse(nats_server.port, b"PUB audio.\xff 2\r\nab\r\n", b"HPUB audio.s1 4 6\r\n\xff\0\1\2ab\r\n")
    await converse(nats_server.port, b"PUB audio.s2 2\r\nab\r\n")
    heard = [await ear.messages.get() for _ in range(3)]
    assert [m.subject for m in heard] == ["audio.\ufffd", "audio.s1", "audio.s2"]
    assert [m.headers for m in heard] == [None, {UNREADABLE: ""}, None]
    assert connection.reconnects == 0


async def test_direct_subscription_delivers_every_byte_in_order(
    nats_server: NatsServer, connection: Connection
) -> None:
    """Any byte comes as it was sent. After the subscription has ended nothing is heard."""
    heard: list[tuple[bytes, bytes, bytes]] = []
    subscription = await connection.hand_over("audio.*", lambda *message: heard.append(message))
    await converse(nats_server.port, b"PUB audio.\xff 2\r\nab\r\n", b"HPUB audio.s1 4 6\r\n\xff\0\1\2ab\r\n")
    await connection.publish("audio.s2", b"cd", {"Audio-Session": "x y", "Audio-Offset": "7"})
    await connection.confirm()
    assert heard == [
        (b"audio.\xff", b"", b"ab"),
        (b"audio.s1", b"\xff\0\1\2", b"ab"),
        (b"audio.s2", b"NATS/1.0\r\nAudio-Session: x y\r\nAudio-Offset: 7\r\n\r\n", b"cd"),
    ]
    await subscription.drain()
    await connection.publish("audio.s3", b"ef")
    await connection.confirm()
    assert len(heard) == 3


async def test_audio_in_quick_succession_gathers_in_the_socket(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading pauses after a message that follows another at once, never after a lone one. Nothing is lost."""
    heard: list[bytes] = []
    pauses: list[int] = []
    await connection.hand_over("audio.*", lambda _subject, _headers, payload: heard.append(payload))
    client = connection.client
    socket = client._transport._io_writer.transport  # type: ignore[union-attr]
    pause = socket.pause_reading
    monkeypatch.setattr(socket, "pause_reading", lambda: (pauses.append(len(heard)), pause()))
    for number in range(3):
        client._last_taken = 0.0  # long ago
        await connection.publish("audio.s1", b"%d" % number)
        await connection.confirm()
    assert pauses == []
    for number in range(3, 100):
        client._last_taken = asyncio.get_running_loop().time()
        await connection.publish("audio.s1", b"%d" % number)
        await connection.confirm()
    assert len(pauses) > 50  # one each, unless this machine was busy for 5 ms
    await connection.confirm()
    assert socket.is_reading()
    assert heard == [b"%d" % number for number in range(100)]


async def test_direct_subscription_is_renewed_after_a_reconnect(
    nats_server: NatsServer, connection: Connection
) -> None:
    """The subscription is renewed with the connection."""
    heard: list[bytes] = []
    await connection.hand_over("audio.*", lambda subject, _headers, _payload: heard.append(subject))
    nats_server.kill()
    await connection._interrupted
    nats_server.start()
    async with asyncio.timeout(10):
        await connection.connected.wait()
    await connection.publish("audio.s1", b"")
    await connection.confirm()
    assert heard == [b"audio.s1"]


async def test_a_read_loop_that_ends_by_itself_means_a_new_connection(
    nats_server: NatsServer, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever else breaks nats-py's read loop, the daemon reconnects and hears again."""
    ear = Ear()
    await connection.subscribe("audio.*", ear.__call__)

    def fail(*_: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("a defect in nats-py")

    monkeypatch.setattr(connection.client, "_build_message", fail)
    await converse(nats_server.port, b"PUB audio.s1 2\r\nab\r\n")
    async with asyncio.timeout(4):  # the pings would notice after 15 s
        await connection._interrupted
        await connection.connected.wait()
    assert connection.reconnects == 1
    await converse(nats_server.port, b"PUB audio.s2 2\r\nab\r\n")
    assert (await ear.messages.get()).subject == "audio.s2"


async def test_late_pong_does_not_end_the_read_loop(nats_server: NatsServer, connection: Connection) -> None:
    """A frozen server answers a flush that was given up. nats-py alone would hear nothing after that."""
    ear = Ear()
    await connection.subscribe("audio.*", ear.__call__)
    nats_server.freeze()
    with pytest.raises(nats.errors.FlushTimeoutError):
        await connection.client.flush(timeout=0.05)  # type: ignore[arg-type]
    nats_server.resume()
    assert await connection.flushed()
    await converse(nats_server.port, b"PUB audio.s1 2\r\nab\r\n")
    assert (await ear.messages.get()).subject == "audio.s1"
    assert connection.reconnects == 0


async def test_flush_is_false_when_the_server_dies_before_it_confirms(
    nats_server: NatsServer, connection: Connection
) -> None:
    """`flushed` is also false, at once, while there is no connection."""
    assert await connection.flushed()
    nats_server.freeze()
    flushing = asyncio.create_task(connection.flushed())
    nats_server.kill()
    assert not await flushing
    assert not connection.up
    assert not await connection.flushed()
    with pytest.raises(BrokerLost, match=r"NATS_RECONNECT_TIMEOUT_SECS=0\.5"):
        await connection.lost


async def test_connection_finds_a_server_that_comes_back(nats_server: NatsServer, connection: Connection) -> None:
    """After a restart on the same port messages flow again, and the broker does not count as lost."""
    connection.options = BrokerOptions(url=nats_server.url)
    ear = Ear()
    await connection.subscribe("audio.*", ear.__call__)
    nats_server.kill()
    nats_server.start()
    await connection._interrupted
    await connection.connected.wait()
    await connection.publish("audio.s1", b"ab", {"A": "b"})
    assert (await ear.messages.get()).headers == {"A": "b"}
    assert not connection.lost.done()


async def test_giving_up_the_start_leaves_nothing_running(nats_server: NatsServer) -> None:
    """An `open` that is cancelled takes its attempts with it."""
    nats_server.freeze()
    before = asyncio.all_tasks()
    opening = asyncio.create_task(Connection(BrokerOptions(url=nats_server.url)).open())
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(opening, 0.2)
    left = asyncio.all_tasks() - before
    await asyncio.wait(left, timeout=5) if left else None
    assert not asyncio.all_tasks() - before


async def test_audio_that_collects_keeps_its_order(connection: Connection) -> None:
    """What is collected goes out with the next command, or by itself in a moment, and never twice."""
    heard: asyncio.Queue[bytes] = asyncio.Queue()
    line, client = DirectLine(connection), connection.client
    client.listen("audio.*", lambda _subject, _headers, payload: heard.put_nowait(payload))
    await connection.confirm()
    for number in range(60):
        line.send(b"audio.s1", b"NATS/1.0\r\n\r\n", b"%d" % number)
        if number % 3 == 0:
            await asyncio.sleep(0)  # a turn of the event loop, in which the first is written
        if number % 20 == 0:
            client.put(b"PUB audio.s1 3\r\nput\r\n")
            await connection.confirm()
    async with asyncio.timeout(10):
        got = [await heard.get() for _ in range(63)]
    assert [payload for payload in got if payload != b"put"] == [b"%d" % number for number in range(60)]
    assert [place for place, payload in enumerate(got) if payload == b"put"] == [1, 22, 43]
    await connection.confirm()
    assert heard.empty()
    assert client.backlog == 0
