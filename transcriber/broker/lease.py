"""Decides which daemon works, by a lease in a key-value bucket. If the lease fails, the fence protects the data."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING

import nats.errors
import nats.js.errors

from transcriber.domain.errors import BrokerError, Fenced
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

    from transcriber.broker.connection import Connection

log = logging.getLogger(__name__)

NO_JETSTREAM = "JetStream does not answer: it is off on this server (nats-server -js) or for this account"
LEASE_SECS = 10.0  # after which a lease that is not renewed is free (P-25)
_RENEW_SECS = LEASE_SECS / 4  # two renewals may fail
_ASK_SECS = 1.0  # between a standby's attempts: with LEASE_SECS and its start, it takes over within 15 s
_FULL = 10023  # JSInsufficientResourcesErr: the server's store is full
_AWAY = (nats.errors.Error, nats.js.errors.Error, OSError, TimeoutError)


class Lease:
    """The right to work on a subject, for one holder at a time.

    `holder` identifies a daemon. After a restart under the same name it has the lease at once.
    """

    def __init__(self, connection: Connection, subject: str, holder: str) -> None:
        self._connection = connection
        self._key = incoming.key_of(subject)
        self._holder = holder.encode()
        self._bucket: KeyValue | None = None
        self._revision = 0

    async def acquire(self) -> None:
        """Wait until the lease is ours. Raises `BrokerError` when there is no bucket, or no JetStream."""
        standing_by = False
        give_up = time.monotonic() + self._connection.options.connect_timeout
        while True:
            await self._connection.connected.wait()
            try:
                if await self._take():
                    return
                if not standing_by:
                    log.info("standing by: another daemon holds the lease", extra={"lease": self._key})
                    standing_by = True
            except nats.js.errors.NotFoundError as error:
                reason = f"there is no bucket {incoming.LEASES}; `transcriber setup` makes it"
                raise BrokerError(self._connection.options.address, reason) from error
            except _AWAY as error:
                off = isinstance(error, nats.js.errors.ServiceUnavailableError) and error.err_code != _FULL
                if off and time.monotonic() > give_up:  # while a cluster starts, JetStream may be off for a moment
                    raise BrokerError(self._connection.options.address, NO_JETSTREAM) from error
                log.warning("the lease: %s", str(error) or type(error).__name__, extra={"limited": True})
            await asyncio.sleep(_ASK_SECS)

    async def keep(self) -> None:
        """Renew the lease, for ever. Raises `Fenced` when another daemon has it."""
        while True:
            await asyncio.sleep(_RENEW_SECS)
            await self._connection.connected.wait()
            try:
                if not await self._renew() and not await self._take():
                    raise Fenced(f"the lease {self._key}", "another daemon has taken it")
            except _AWAY as error:
                log.warning("the lease: %s", str(error) or type(error).__name__, extra={"limited": True})

    async def release(self) -> None:
        """Give up the lease, so that another daemon can take it at once."""
        try:
            async with asyncio.timeout(_ASK_SECS):
                if self._bucket is not None and self._revision:
                    await self._bucket.delete(self._key, last=self._revision)
        except _AWAY as error:
            log.debug("the lease runs out by itself: %s", error)

    async def _take(self) -> bool:
        """Take the lease if it is free or already ours. Return whether it is ours."""
        bucket = await self._opened()
        try:
            self._revision = await bucket.create(self._key, self._holder)
        except nats.js.errors.KeyWrongLastSequenceError:
            return await self._is_ours()
        return True

    async def _renew(self) -> bool:
        """Renew the lease if it is still ours, even if the last renewal's acknowledgement was lost."""
        bucket = await self._opened()
        try:
            self._revision = await bucket.update(self._key, self._holder, last=self._revision)
        except nats.js.errors.KeyWrongLastSequenceError:
            return await self._is_ours()
        return True

    async def _is_ours(self) -> bool:
        try:
            entry = await (await self._opened()).get(self._key)
        except nats.js.errors.KeyNotFoundError:
            return False
        self._revision = entry.revision or 0
        return entry.value == self._holder

    async def _opened(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._connection.client.jetstream(timeout=_ASK_SECS).key_value(incoming.LEASES)
        return self._bucket
