"""One connection to NATS: credentials, timeouts, and what to do when it breaks."""

from __future__ import annotations

import asyncio
import logging
import re
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats.errors

from transcriber.broker.patched_client import MendedClient
from transcriber.domain.errors import BrokerError, BrokerLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from transcriber.broker.patched_client import Taker

log = logging.getLogger(__name__)

_RETRY_SECS = 0.5  # between attempts: a server restarts within seconds, and a refused attempt costs it little
_AGAIN_SECS = 0.05  # many times what a cancelled task needs to notice it
_FLUSH_SECS = 0.5  # a round trip on a working connection takes milliseconds
_CLOSE_SECS = 0.25  # by then nothing is left to wait for
_PING_SECS = 5  # after three unanswered pings the connection counts as broken: within the default L_max of 20 s
_EVER = 10**6  # seconds: for ever, where nats-py needs a number
# Parts of errors by which the server refuses us. Trying again would not help.
_REFUSALS = ("permissions violation", "authorization violation", "authentication")
_BETWEEN_SERVERS = re.compile(r",(?=[^,]*://|[^@]*$)")  # a comma, unless it may belong to a password
_USER = re.compile(r"(?<=://).*@|^(?!.*://).*@")  # and the password, with any characters
# A credentials file must contain these. Without the first, nats-py would read for ever.
_CREDS_PARTS = ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED")


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerOptions:
    """The address of NATS and our credentials. An empty string means not given. Timeouts in seconds."""

    url: str = field(default="nats://127.0.0.1:4222", repr=False)  # or several, separated by commas
    user: str = ""
    password: str = field(default="", repr=False)
    token: str = field(default="", repr=False)
    creds: str = ""  # path of a credentials file
    nkey: str = ""  # path of a seed file
    ca: str = ""
    cert: str = ""
    key: str = ""
    connect_timeout: float = 30.0
    reconnect_timeout: float = 120.0

    @property
    def servers(self) -> list[str]:
        return [server.strip() for server in _BETWEEN_SERVERS.split(self.url)]

    @property
    def address(self) -> str:
        """The URLs without user and password, fit for logs."""
        return ",".join(_USER.sub("", server) for server in self.servers)

    def tls(self) -> ssl.SSLContext | None:
        """Return a TLS context made from the files; None when none is given."""
        if not (self.ca or self.cert):
            return None
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of nats-py's `connect` for these credentials. Raises `BrokerError`."""
        given: dict[str, Any] = {"user": self.user, "password": self.password} if self.user else {}
        if self.token:
            given["token"] = self.token
        if self.creds:
            self._check("NATS_CREDS", self.creds, *_CREDS_PARTS)
            given["user_credentials"] = self.creds
        if self.nkey:
            self._check("NATS_NKEY", self.nkey, "SU")  # a user's seed begins like this
            given["nkeys_seed"] = self.nkey
        try:
            context = self.tls()
        except OSError as error:  # ssl.SSLError is an OSError
            raise BrokerError(self.address, f"NATS_CA, NATS_CERT or NATS_KEY cannot be loaded: {error}") from error
        return given | ({"tls": context} if context else {})

    def _check(self, setting: str, path: str, *parts: str) -> None:
        """Check that the file can be read and contains all `parts`. Raises `BrokerError`."""
        try:
            text = Path(path).read_text("ascii", "replace")
        except OSError as error:
            raise BrokerError(self.address, f"{setting}={path!r} cannot be read: {error.strerror}") from error
        for part in parts:
            if part not in text:
                raise BrokerError(self.address, f"{setting}={path!r} holds no {part!r}")


class Connection:
    """A connection that reconnects by itself for `reconnect_timeout` seconds, then gives up for good.

    `connected` is set while messages can be sent. `lost` gets a `BrokerLost` when the connection is given up.
    """

    def __init__(self, options: BrokerOptions, *, name: str = "transcriber") -> None:
        loop = asyncio.get_running_loop()
        self.options = options
        self.client = MendedClient()
        self.connected = asyncio.Event()
        self.lost: asyncio.Future[None] = loop.create_future()
        self.reconnects = 0
        self._name = name
        self._refusal: asyncio.Future[str] = loop.create_future()
        self._interrupted: asyncio.Future[None] = loop.create_future()  # done when the current connection breaks
        self._closing = False
        self._giving_up: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connect within `connect_timeout` seconds. Raises `BrokerError` on a timeout or a refusal."""
        options = self.options
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
                **options.arguments(),
            )
        )
        waiting: set[asyncio.Future[Any]] = {connecting, self._refusal}
        try:
            await asyncio.wait(waiting, timeout=options.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
            if connecting.done() and connecting.exception() is None:
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

    async def hand_over(self, subject: str, take: Taker) -> Subscription:
        """Subscribe as `MendedClient.hand_over` does, and check that the server allows it. Raises `BrokerError`."""
        subscription = await self.client.hand_over(subject, take)
        await self.confirm()
        return subscription

    async def confirm(self) -> None:
        """Wait until the server has handled everything sent so far. Raises `BrokerError` on a refusal or a timeout."""
        try:
            await self.client.flush()
        except nats.errors.Error as error:
            raise BrokerError(self.options.address, str(error)) from error
        self.check()

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
        except (TimeoutError, nats.errors.Error, OSError) as error:
            log.debug("NATS did not close cleanly: %s", error)

    async def _on_error(self, error: Exception) -> None:
        # This runs in the read loop, once per dropped message, so it must not wait.
        text = str(error) or type(error).__name__
        refused = isinstance(error, nats.errors.AuthorizationError) or any(r in text.lower() for r in _REFUSALS)
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
        self._interrupted = asyncio.get_running_loop().create_future()
        self.connected.set()
        log.warning("NATS reconnected")

    async def _on_closed(self) -> None:
        self.connected.clear()
        if not self._closing:
            self._give_up()

    def _give_up(self) -> None:
        if not self.lost.done():
            self.lost.set_exception(BrokerLost(self.options.address, self.options.reconnect_timeout))
            self.lost.exception()  # marks it as retrieved; tasks that wait for it still get it
