"""One connection to NATS: credentials, timeouts, and what to do when it breaks."""

from __future__ import annotations

import asyncio
import logging
import time
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import nats.errors

from transcriber.broker.patched_client import MendedClient
from transcriber.domain.errors import BrokerError, BrokerLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from transcriber.broker.options import BrokerOptions
    from transcriber.broker.patched_client import Taker

log = logging.getLogger(__name__)

_RETRY_SECS = 0.5  # between attempts: a server restarts within seconds, and a refused attempt costs it little
_AGAIN_SECS = 0.05  # many times what a cancelled task needs to notice it
_FLUSH_SECS = 0.5  # a round trip on a working connection takes milliseconds
_CLOSE_SECS = 0.25  # nothing is left to wait for then
_PING_SECS = 5  # a server that is there but silent is left after three of these, within the default promise of 20 s
_EVER = 10**6  # seconds, where nats-py wants a number
# What the server says when it knows us and does not want us: trying again changes nothing.
_REFUSALS = ("authorization violation", "authentication expired", "authentication revoked")
_FORBIDDEN = "permissions violation"  # a subject that is not for us


class Connection:
    """A connection that reconnects by itself for `reconnect_timeout` seconds, then gives up for good.

    `connected` is set while messages can be sent. `lost` gets a `BrokerLost` when the connection is given up.
    """

    def __init__(self, options: BrokerOptions, *, name: str = "transcriber") -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.client = MendedClient(options.credentials)
        self.connected = asyncio.Event()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.reconnects = 0
        self._name = name
        self._refusal: asyncio.Future[str] = loop.create_future()
        self._interrupted: asyncio.Future[None] = loop.create_future()  # done when the current connection breaks
        self._closing = False
        self._opened = False
        self._optional: dict[str, bool] = {}  # subjects that are only useful, and whether they are allowed
        self._trouble = ""  # what the server or the network said last
        self._giving_up: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connect within `connect_timeout` seconds. Raises `BrokerError` on a timeout or a refusal."""
        options = self.options
        options.credentials()  # what is broken now is told at once
        if any(server.startswith("ws") for server in options.servers) and find_spec("aiohttp") is None:
            raise BrokerError(options.address, "ws:// and wss:// need aiohttp: pip install 'transcriber[websocket]'")
        connecting = asyncio.ensure_future(
            self.client.connect(
                options.servers,
                name=self._name,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RETRY_SECS,  # type: ignore[arg-type] # seconds go straight into asyncio.sleep
                ping_interval=_PING_SECS,
            )
        )
        waiting: set[asyncio.Future[Any]] = {connecting, self._refusal}
        try:
            await asyncio.wait(waiting, timeout=options.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and connecting.exception() is None:
                self._opened = True
                self.connected.set()
                return
            reason = self._why_not(connecting)
        finally:
            if not self.connected.is_set():
                while (
                    not connecting.done()
                ):  # Python 3.11's wait_for swallows a cancellation that comes with its result
                    connecting.cancel()
                    await asyncio.wait({connecting}, timeout=_AGAIN_SECS)
                await self.close()
        raise BrokerError(options.address, reason)

    def _why_not(self, connecting: asyncio.Future[None]) -> str:
        """Return why there is no connection."""
        if self._refusal.done():
            return self._refusal.result()
        if connecting.done():
            error = connecting.exception()
            return str(error) or type(error).__name__
        reason = f"no connection within NATS_CONNECT_TIMEOUT_SECS={self.options.connect_timeout:g}"
        error = self.client.last_error
        return f"{reason} ({error or type(error).__name__})" if error is not None else reason

    async def subscribe(self, subject: str, callback: Callable[[Any], Any]) -> Subscription:
        """Subscribe, and check that the server allows it. Raises `BrokerError`."""
        subscription = await self.client.subscribe(subject, cb=callback)
        await self.confirm()
        return subscription

    async def subscribe_if_allowed(
        self, subject: str, callback: Callable[[Any], Any], queue: str = ""
    ) -> Subscription | None:
        """Subscribe to what is only useful. Returns None if the server forbids it, as permissions of old may do."""
        self._optional[subject] = True
        subscription = await self.client.subscribe(subject, queue=queue, cb=callback)
        await self.client.flush()  # a refusal comes before its answer
        if self._optional[subject]:
            return subscription
        await subscription.unsubscribe()
        return None

    async def hand_over(self, subject: str, take: Taker) -> Subscription:
        """Subscribe as `MendedClient.hand_over` does, and check that the server allows it. Raises `BrokerError`."""
        subscription = await self.client.hand_over(subject, take)
        await self.confirm()
        return subscription

    async def confirm(self) -> None:
        """Wait until the server has answered everything sent so far.

        Raises `BrokerError` on a refusal, and on silence for NATS_CONNECT_TIMEOUT_SECS; meanwhile another server of a
        cluster may answer.
        """
        give_up = time.monotonic() + self.options.connect_timeout
        while True:
            try:
                await self.client.flush()
                return self.check()
            except nats.errors.Error as error:
                if self.client.is_closed or time.monotonic() >= give_up:
                    raise BrokerError(self.options.address, str(error) or type(error).__name__) from error
                await asyncio.sleep(_RETRY_SECS)

    def check(self) -> None:
        """Raise `BrokerError` if the server has refused something."""
        if self._refusal.done():
            raise BrokerError(self.options.address, self._refusal.result())

    async def flushed(self) -> bool:
        """Wait until the server has everything published so far. Return False when the connection broke before that."""
        interrupted = self._interrupted
        flushing = asyncio.ensure_future(self.client.flush(_EVER))
        try:
            await asyncio.wait({flushing, interrupted}, return_when=asyncio.FIRST_COMPLETED)
            return self.up and not interrupted.done() and flushing.exception() is None
        finally:
            if not flushing.done():
                flushing.cancel()

    @property
    def clustered(self) -> bool:
        """Whether the server is one of several, any of which may be away."""
        return self.client.clustered

    @property
    def max_payload(self) -> int:
        """The most bytes of headers and payload that the server accepts in one message."""
        return self.client.max_payload

    @property
    def up(self) -> bool:
        """Whether a message published now is sent now. While NATS is away, nats-py keeps it without a time limit."""
        return self.client.is_connected

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        """Send one message. Raises nats-py's errors when that is not possible now."""
        await self.client.publish(subject, payload, headers=headers)

    async def close(self) -> None:
        """Flush if possible, then close. Takes less than a second."""
        self._closing = True
        if self._giving_up is not None:
            self._giving_up.cancel()
        try:
            if self.client.is_connected:
                async with asyncio.timeout(_FLUSH_SECS):
                    await self.client.flush()
        except (TimeoutError, nats.errors.Error, OSError) as error:
            log.warning("NATS could not be flushed: %s", str(error) or type(error).__name__)
        try:
            async with asyncio.timeout(_CLOSE_SECS):
                await self.client.close()
        except (TimeoutError, nats.errors.Error, OSError, AssertionError) as error:  # the last: it was never open
            log.debug("NATS did not close cleanly: %s", error)

    async def _on_error(self, error: Exception) -> None:
        # Runs inside the read loop, once per dropped message: nothing here may wait.
        self._trouble = text = str(error) or type(error).__name__
        for subject in self._optional:
            if _FORBIDDEN in text.lower() and f'"{subject}"' in text:
                self._optional[subject] = False
                log.warning("NATS: %s; `transcriber setup` prints permissions", text, extra={"limited": True})
                return
        refused = _FORBIDDEN in text.lower()
        # In mid-run, credentials that are refused may be renewed before it is over.
        refused |= not self._opened and any(r in text.lower() for r in _REFUSALS)
        if refused and not self._refusal.done():
            self._refusal.set_result(text)
        log.log(logging.ERROR if refused else logging.WARNING, "NATS: %s", text, extra={"limited": True})

    async def _on_disconnected(self) -> None:
        self.connected.clear()
        if not self._interrupted.done():
            self._interrupted.set_result(None)
        if self._closing or self._giving_up is not None:
            return
        seconds = self.options.reconnect_timeout
        log.warning("NATS disconnected; giving up in %g s", seconds)
        self._giving_up = asyncio.get_running_loop().call_later(seconds, self._give_up)

    async def _on_reconnected(self) -> None:
        if self._giving_up is not None:
            self._giving_up.cancel()
            self._giving_up = None
        self.reconnects += 1
        self._trouble = ""
        self._interrupted = asyncio.get_running_loop().create_future()
        self.connected.set()
        log.warning("NATS reconnected")

    async def _on_closed(self) -> None:
        self.connected.clear()
        if not self._closing:
            self._give_up(closed=True)

    def _give_up(self, *, closed: bool = False) -> None:
        if not self.lost.done():
            seconds = None if closed else self.options.reconnect_timeout
            self.lost.set_exception(BrokerLost(self.options.address, seconds, self._trouble))
            self.lost.exception()  # marks it as retrieved; tasks that wait for it still get it
