"""One connection to NATS: credentials, deadlines, and the news of losing it."""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats.errors
from nats.aio.client import Client

from transcriber.errors import BrokerError, BrokerLost

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

log = logging.getLogger(__name__)

_RETRY_SECS = 0.5  # between attempts: a server restarts within seconds, and a refused connection costs it nothing
_FLUSH_SECS = 0.5  # a round trip on a working connection takes milliseconds


@dataclass(frozen=True, slots=True)
class BrokerOptions:
    """Where NATS is and who we are there. Empty strings mean not given. Timeouts in seconds."""

    url: str = "nats://127.0.0.1:4222"
    user: str = ""
    password: str = ""
    token: str = ""
    creds: str = ""  # path of a credentials file
    nkey: str = ""  # path of a seed file
    ca: str = ""
    cert: str = ""
    key: str = ""
    connect_timeout: float = 30.0
    reconnect_timeout: float = 120.0

    @property
    def address(self) -> str:
        """The URL without user and password, fit for logs."""
        scheme, _, rest = self.url.rpartition("://")
        return f"{scheme}://{rest.rpartition('@')[2]}" if scheme else rest.rpartition("@")[2]

    def tls(self) -> ssl.SSLContext | None:
        """Return the TLS context that these files make; None when none is given."""
        if not (self.ca or self.cert):
            return None
        context = ssl.create_default_context(cafile=self.ca or None)
        if self.cert:
            context.load_cert_chain(self.cert, self.key or None)
        return context

    def arguments(self) -> dict[str, Any]:
        """Return what nats-py's `connect` wants for these credentials. Raises `BrokerError`."""
        plain = {"user": self.user, "password": self.password, "token": self.token}
        given: dict[str, Any] = {name: value for name, value in plain.items() if value}
        for name, setting, path in (
            ("user_credentials", "NATS_CREDS", self.creds),
            ("nkeys_seed", "NATS_NKEY", self.nkey),
        ):
            if path:
                if not Path(path).is_file():
                    raise BrokerError(self.address, f"{setting}={path!r} is no file")
                given[name] = path
        try:
            context = self.tls()
        except OSError as error:  # ssl.SSLError is one
            raise BrokerError(self.address, f"NATS_CA, NATS_CERT or NATS_KEY cannot be loaded: {error}") from error
        return given | ({"tls": context} if context else {})


class Connection:
    """A connection that reconnects by itself for `reconnect_timeout` seconds, then gives up for good.

    `connected` tells whether messages can go out now; `lost` gets a `BrokerLost` when it is over.
    """

    def __init__(self, options: BrokerOptions, *, name: str = "transcriber") -> None:
        self.options = options
        self.client = Client()
        self.connected = asyncio.Event()
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.reconnects = 0
        self.on_slow_consumer: Callable[[str], None] = lambda _subject: None
        self._name = name
        self._refusal: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._closing = False
        self._giving_up: asyncio.TimerHandle | None = None

    async def open(self) -> None:
        """Connect within `connect_timeout` seconds. Raises `BrokerError` when that is too short or we are refused."""
        options = self.options
        connecting = asyncio.ensure_future(
            self.client.connect(
                options.url,
                name=self._name,
                error_cb=self._on_error,
                disconnected_cb=self._on_disconnected,
                reconnected_cb=self._on_reconnected,
                closed_cb=self._on_closed,
                max_reconnect_attempts=-1,
                reconnect_time_wait=_RETRY_SECS,  # type: ignore[arg-type] # seconds go straight into asyncio.sleep
                **options.arguments(),
            )
        )
        waiting: set[asyncio.Future[Any]] = {connecting, self._refusal}
        await asyncio.wait(waiting, timeout=options.connect_timeout, return_when=asyncio.FIRST_COMPLETED)
        if connecting.done() and connecting.exception() is None:
            self.connected.set()
            return
        if connecting.done():
            reason = str(connecting.exception())
        elif self._refusal.done():
            reason = self._refusal.result()
        else:
            reason = f"no connection within NATS_CONNECT_TIMEOUT_SECS={options.connect_timeout:g}"
            if self.client.last_error:
                reason += f" ({self.client.last_error})"
        connecting.cancel()
        await asyncio.gather(connecting, return_exceptions=True)
        await self.close()
        raise BrokerError(options.address, reason)

    async def subscribe(self, subject: str, callback: Callable[[Any], Any]) -> Subscription:
        """Subscribe, and make sure that the server allows it. Raises `BrokerError`."""
        subscription = await self.client.subscribe(subject, cb=callback)
        await self.confirm()
        return subscription

    async def confirm(self) -> None:
        """Wait until the server has answered everything sent so far. Raises `BrokerError` on a refusal."""
        await self.client.flush()
        if self._refusal.done():
            raise BrokerError(self.options.address, self._refusal.result())

    @property
    def max_payload(self) -> int:
        """Bytes of headers and payload that the server takes in one message."""
        return self.client.max_payload

    async def publish(self, subject: str, payload: bytes, headers: dict[str, str] | None = None) -> None:
        """Hand one message to the connection. Raises nats-py's errors when that cannot be done now."""
        await self.client.publish(subject, payload, headers=headers)

    async def close(self) -> None:
        """Flush what can be flushed, then close; never takes longer than a few seconds."""
        self._closing = True
        if self._giving_up is not None:
            self._giving_up.cancel()
        try:
            if self.client.is_connected:
                async with asyncio.timeout(_FLUSH_SECS):
                    await self.client.flush()
        except (TimeoutError, nats.errors.Error, OSError) as error:
            log.warning("NATS could not be flushed: %s", error or type(error).__name__)
        try:
            async with asyncio.timeout(_FLUSH_SECS):
                await self.client.close()
        except (TimeoutError, nats.errors.Error, OSError) as error:
            log.debug("NATS did not close cleanly: %s", error)

    async def _on_error(self, error: Exception) -> None:
        # Runs inside the read loop, once per dropped message: nothing here may wait.
        if isinstance(error, nats.errors.SlowConsumerError):
            self.on_slow_consumer(error.subject)
            return
        text = str(error) or type(error).__name__
        refused = isinstance(error, nats.errors.AuthorizationError) or "permissions violation" in text.lower()
        if refused and not self._refusal.done():
            self._refusal.set_result(text)
        log.log(logging.ERROR if refused else logging.WARNING, "NATS: %s", text)

    async def _on_disconnected(self) -> None:
        self.connected.clear()
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
        self.connected.set()
        log.warning("NATS reconnected")

    async def _on_closed(self) -> None:
        self.connected.clear()
        if not self._closing:
            self._give_up()

    def _give_up(self) -> None:
        if not self.lost.done():
            self.lost.set_exception(BrokerLost(self.options.address, self.options.reconnect_timeout))
            self.lost.exception()  # marks it as seen: whoever waits for it still gets it
