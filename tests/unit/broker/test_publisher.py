"""The outbox without a server: order, bounds, and what is known of every message."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import nats.errors
import pytest

from transcriber.broker.publisher import Publisher
from transcriber.protocol.outgoing import Message


class WatchedEvent(asyncio.Event):
    """An event that tells when somebody waits for it in vain."""

    def __init__(self) -> None:
        super().__init__()
        self.missed = asyncio.Event()

    async def wait(self) -> bool:
        if not self.is_set():
            self.missed.set()
        return await super().wait()


class FakeConnection:
    """A stand-in for the connection, whose server confirms when it is told to."""

    def __init__(self) -> None:
        self.connected = WatchedEvent()
        self.connected.set()
        self.max_payload = 1000
        self.sent: list[str] = []
        self.fail: list[Exception] = []
        self.confirms: asyncio.Queue[bool] = asyncio.Queue()
        self.asked = asyncio.Event()

    @property
    def up(self) -> bool:
        return self.connected.is_set()

    async def publish(self, subject: str, _payload: bytes, _headers: dict[str, str]) -> None:
        if self.fail:
            raise self.fail.pop()
        self.sent.append(subject)

    async def flushed(self) -> bool:
        self.asked.set()
        return await self.confirms.get()


def entry(*subjects: str) -> Callable[[], list[Message]]:
    return lambda: [Message(subject, {}, b"{}") for subject in subjects]


@pytest.fixture
def connection() -> FakeConnection:
    return FakeConnection()


@pytest.fixture
async def publisher(connection: FakeConnection) -> AsyncIterator[Publisher]:
    made = Publisher(connection, 2)  # type: ignore[arg-type]
    running = asyncio.create_task(made.run())
    yield made
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_messages_go_out_in_order_and_count_once_confirmed(
    connection: FakeConnection, publisher: Publisher
) -> None:
    """`emptied` comes with the server's confirmation and not before."""
    publisher.put(entry("a", "b"))
    publisher.put(entry("c"))
    emptied = asyncio.create_task(publisher.emptied())
    await connection.asked.wait()
    assert connection.sent == ["a", "b", "c"]
    assert (publisher.published, emptied.done()) == (0, False)
    connection.confirms.put_nowait(True)
    await emptied
    assert publisher.published == 3


async def test_an_entry_is_made_when_it_can_go_out(connection: FakeConnection, publisher: Publisher) -> None:
    """While NATS is away nothing is decided. Waiting entries are made and sent once it is back."""
    connection.connected.clear()
    made = asyncio.Event()

    def make() -> list[Message]:
        made.set()
        return entry("a")()

    publisher.put(make)
    connection.confirms.put_nowait(True)
    await connection.connected.missed.wait()
    assert not made.is_set()
    assert not publisher.connected
    connection.connected.set()
    await publisher.emptied()
    assert connection.sent == ["a"]


async def test_a_failed_publish_is_tried_again(
    connection: FakeConnection, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """An error of the connection keeps the message, and its order."""
    connection.fail = [nats.errors.OutboundBufferLimitError(), OSError("gone")]
    connection.confirms.put_nowait(True)
    publisher.put(entry("a", "b"))
    await publisher.emptied()
    assert connection.sent == ["a", "b"]
    assert caplog.text.count("publish will be tried again") == 2


async def test_unconfirmed_messages_are_logged_and_not_sent_twice(
    connection: FakeConnection, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """After a broken connection nobody knows what arrived. The log has the bodies, the count leaves them out."""
    publisher.put(entry("a", "b"))
    connection.confirms.put_nowait(False)
    await publisher.emptied()
    assert (connection.sent, publisher.published) == (["a", "b"], 0)
    lost = [r for r in caplog.records if r.message.startswith("perhaps not published")]
    assert [(r.subject, r.body) for r in lost] == [("a", "{}"), ("b", "{}")]  # type: ignore[attr-defined]


async def test_outbox_leaves_at_most_one_batch_unconfirmed(connection: FakeConnection, publisher: Publisher) -> None:
    """A server that does not answer holds the outbox up, so that waiting entries can still become gaps."""
    for number in range(300):
        publisher.put(entry(str(number)))
    await connection.asked.wait()
    assert (len(connection.sent), publisher.waiting) == (256, 44)
    for _ in range(2):
        connection.confirms.put_nowait(True)
    await publisher.emptied()
    assert publisher.published == 300


async def test_a_full_outbox_refuses_what_is_not_essential(
    connection: FakeConnection, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """Results and gaps always find room. The rest is refused, logged and counted."""
    connection.connected.clear()
    for subject in ("a", "b", "c"):
        publisher.put(entry(subject))
    publisher.put(entry("status"), essential=False)
    assert (publisher.waiting, publisher.refused) == (3, 1)
    assert "outbox full" in caplog.text


async def test_a_message_over_the_limit_is_not_sent(
    connection: FakeConnection, publisher: Publisher, caplog: pytest.LogCaptureFixture
) -> None:
    """The server would disconnect for good, so max_payload is checked here, headers included."""
    fits = Message("fits", {"A": "b"}, bytes(1000 - len("NATS/1.0\r\nA: b\r\n\r\n")))
    over = Message("over", {"A": "bc"}, fits.payload)
    connection.confirms.put_nowait(True)
    publisher.put(lambda: [over, fits])
    await publisher.emptied()
    assert connection.sent == ["fits"]
    assert (publisher.refused, "too large" in caplog.text) == (1, True)


async def test_unsent_messages_can_be_taken_out_in_order(connection: FakeConnection) -> None:
    """After the end come the unconfirmed, the rest of the entry under way, then the outbox, each once."""
    publisher = Publisher(connection, 10)  # type: ignore[arg-type]
    running = asyncio.create_task(publisher.run())
    publisher.put(entry("a"))
    await connection.asked.wait()
    connection.fail = [OSError()]
    connection.connected.clear()
    publisher.put(entry("b"))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert [m.subject for m in publisher.undelivered()] == ["a", "b"]
    assert list(publisher.undelivered()) == []


async def test_a_server_that_stays_silent_counts_as_away(
    connection: FakeConnection, publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`connected` turns false when a confirmation takes longer than any working server needs."""
    publisher.put(entry("a"))
    await connection.asked.wait()
    assert publisher.connected
    monkeypatch.setattr("transcriber.broker.publisher._STALLED_SECS", 0.0)
    assert not publisher.connected
    connection.confirms.put_nowait(True)
    await publisher.emptied()
    assert publisher.connected


async def test_message_waits_when_the_lease_ends_before_it_is_sent(
    connection: FakeConnection, publisher: Publisher
) -> None:
    """Its entry was made in time, and then the connection broke. Who publishes now is somebody else's decision."""
    refused, allowed = asyncio.Event(), True

    def ask() -> bool:
        if not allowed:
            refused.set()
        return allowed

    def make() -> list[Message]:
        connection.connected.clear()
        return entry("a")()

    publisher.allowed = ask
    publisher.put(make)
    await connection.connected.missed.wait()
    allowed = False
    connection.connected.set()
    async with asyncio.timeout(30):
        await refused.wait()
    assert connection.sent == []
    allowed = True
    connection.confirms.put_nowait(True)
    await publisher.emptied()
    assert connection.sent == ["a"]
