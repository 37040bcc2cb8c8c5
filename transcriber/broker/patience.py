"""Decides which errors of JetStream are worth waiting for, and for how long, and logs the wait.

In a cluster a leader may die at any call. A new one takes 4 to 9 s, and calls meet with silence or refusals until then.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, TypeVar

import nats.errors
import nats.js.errors

from transcriber.domain.errors import BrokerError
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from transcriber.broker.connection import Connection

    T = TypeVar("T")

log = logging.getLogger(__name__)

# Every error that the server, or the way to it, causes in a call to JetStream. nats-py's TimeoutError is asyncio's.
AWAY = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)
NO_JETSTREAM = "JetStream does not answer: it is off on this server (nats-server -js) or for this account"
_FIRST_SECS = 0.2  # a server process that restarts is back within as much
_LONGEST_SECS = 2.0  # an election takes 4 to 9 s, so work resumes late by at most half of that
_ASK_SECS = 0.1  # a lease is renewed ten times more rarely
_NO_PEERS = 10005  # JSClusterNoPeersErr: a cluster that has just come up does not know all its servers yet
_FULL = 10023  # JSInsufficientResourcesErr: the server's store is
_OWN_FAULT = range(400, 500)  # what HTTP calls a client's error, and JetStream with it
_WORDED = (
    nats.js.errors.KeyNotFoundError,
    nats.js.errors.KeyDeletedError,
)  # these have a text instead


async def permitted(allowed: Callable[[], bool]) -> None:
    """Wait until this is allowed: in a fleet, a lease that has run out may be renewed."""
    while not allowed():  # noqa: ASYNC110 - time takes a lease away, without an event
        await asyncio.sleep(_ASK_SECS)


class Backoff:
    """Waits after each failure, longer every time, and says what failed, and that it works again."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._secs = _FIRST_SECS
        self._since: float | None = None

    @property
    def failing(self) -> float:
        """For how many seconds it has been failing now."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    async def failed(self, error: BaseException) -> None:
        """Say so, and wait."""
        self._since = time.monotonic() if self._since is None else self._since
        log.warning("%s: %s; trying again", self._what, describe(error), extra={"limited": True})
        await asyncio.sleep(self._secs)
        self._secs = min(2 * self._secs, _LONGEST_SECS)

    def worked(self) -> None:
        """Begin from the start with the next failure."""
        if self._since is not None:
            log.info("%s: answered again after %.1f s", self._what, self.failing)
        self._secs, self._since = _FIRST_SECS, None


def describe(error: BaseException) -> str:
    """Return the error in words. nats-py leaves some of its errors without a description."""
    if isinstance(error, nats.js.errors.APIError) and not isinstance(error, _WORDED):
        return getattr(error, "description", None) or type(error).__name__
    return str(error) or type(error).__name__


def is_off(error: BaseException) -> bool:
    """Whether JetStream is switched off. A full store gives a similar error."""
    return isinstance(error, nats.js.errors.ServiceUnavailableError) and getattr(error, "err_code", None) != _FULL


def is_final(connection: Connection, error: BaseException) -> bool:
    """Whether waiting cannot help. In a cluster a missing stream may appear once all servers are up."""
    if isinstance(error, nats.js.errors.NotFoundError) or (is_off(error) and getattr(error, "code", None) is None):
        return not connection.clustered
    code = getattr(error, "code", None)
    return code in _OWN_FAULT and getattr(error, "err_code", None) != _NO_PEERS


async def persist(connection: Connection, what: str, call: Callable[[], Awaitable[T]]) -> T:
    """Return what the call to JetStream returns, made as often as it takes.

    Raises `BrokerError` after NATS_CONNECT_TIMEOUT_SECS, or at once where waiting cannot mend it.
    """
    give_up = time.monotonic() + connection.options.connect_timeout
    backoff = Backoff(what)
    while True:
        try:
            async with asyncio.timeout_at(asyncio.get_running_loop().time() + max(0.0, give_up - time.monotonic())):
                await connection.connected.wait()
            return await call()
        except AWAY as error:
            connection.check()  # the server does not answer a forbidden call, which looks like silence
            if is_final(connection, error) or time.monotonic() >= give_up:
                raise BrokerError(connection.options.address, _explained(error)) from error
            await backoff.failed(error)


def _explained(error: BaseException) -> str:
    if isinstance(error, nats.js.errors.NotFoundError):
        made = f"{incoming.AUDIO_STREAM}, {incoming.TRANSCRIPT_STREAM} and the bucket {incoming.LEASES}"
        return f"{describe(error)}: `transcriber setup` makes {made}"
    return NO_JETSTREAM if is_off(error) else f"JetStream: {describe(error)}"
