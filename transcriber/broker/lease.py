"""Decides which daemon works, by a lease in a key-value bucket. If the lease fails, the fence protects the data."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import nats.js.errors

from transcriber.broker.patience import AWAY, NO_JETSTREAM, Backoff, is_off
from transcriber.domain.errors import BrokerError, Fenced
from transcriber.protocol import incoming

if TYPE_CHECKING:
    from nats.js.kv import KeyValue

    from transcriber.broker.connection import Connection

log = logging.getLogger(__name__)

LEASE_SECS = 10.0  # after which one that is not renewed is free (P-25)
_RENEW_SECS = LEASE_SECS / 4  # two renewals may fail
_ASK_SECS = 1.0  # between a standby's attempts: with LEASE_SECS and the start of work it is there within 15 s


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
        backoff = Backoff("the lease")
        while True:
            await self._connection.connected.wait()
            try:
                taken = await self._take()
            except AWAY as error:
                self._check(error, backoff)
                await backoff.failed(error)
                continue
            backoff.worked()
            if taken:
                return
            if not standing_by:
                log.info("standing by: another daemon holds the lease", extra={"lease": self._key})
                standing_by = True
            await asyncio.sleep(_ASK_SECS)

    def _check(self, error: Exception, backoff: Backoff) -> None:
        """Raise `BrokerError` when it is time to: a cluster has NATS_CONNECT_TIMEOUT_SECS to find what it has."""
        options, in_time = self._connection.options, backoff.failing <= self._connection.options.connect_timeout
        self._connection.check()
        missing = isinstance(error, nats.js.errors.NotFoundError)
        missing &= not isinstance(error, nats.js.errors.KeyNotFoundError)  # it has run out between two calls
        if missing and not (self._connection.clustered and in_time):
            raise BrokerError(
                options.address, f"there is no bucket {incoming.LEASES}; `transcriber setup` makes it"
            ) from error
        if is_off(error) and not in_time:
            raise BrokerError(options.address, NO_JETSTREAM) from error

    async def keep(self) -> None:
        """Renew it, for ever. Raises `Fenced` when somebody else has it."""
        backoff = Backoff("the lease")
        while True:
            await asyncio.sleep(_RENEW_SECS)
            await self._connection.connected.wait()
            try:
                ours = await self._renew() or await self._take()
            except AWAY as error:
                await backoff.failed(error)
                continue
            backoff.worked()
            if not ours:
                raise Fenced(f"the lease {self._key}", "another daemon has taken it")

    async def release(self) -> None:
        """Give up the lease, so that another daemon can take it at once."""
        try:
            async with asyncio.timeout(_ASK_SECS):
                if self._bucket is not None and self._revision:
                    await self._bucket.delete(self._key, last=self._revision)
        except AWAY as error:
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
        # Not KeyValue.get: any server may answer that, also one that has not heard of the latest entry yet.
        stream, subject = f"KV_{incoming.LEASES}", f"$KV.{incoming.LEASES}.{self._key}"
        try:
            entry = await self._connection.client.jetstream(timeout=_ASK_SECS).get_last_msg(stream, subject)
        except nats.js.errors.NotFoundError as error:
            if error.err_code != incoming.NO_MESSAGE:
                raise
            return False
        self._revision = entry.seq or 0
        return entry.data == self._holder  # what marks an entry as deleted is empty

    async def _opened(self) -> KeyValue:
        if self._bucket is None:
            self._bucket = await self._connection.client.jetstream(timeout=_ASK_SECS).key_value(incoming.LEASES)
        return self._bucket
