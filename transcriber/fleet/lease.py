"""A member's own lease by its own clock: whether it holds, and what must come before the next renewal. Pure."""

from __future__ import annotations

from transcriber.fleet.roster import MARGIN_SECS, SILENCE_SECS
from transcriber.protocol.partitions import LEASE_SECS


class OwnLease:
    """Times are seconds on the member's monotonic clock. The lease counts from when its renewal was asked for.

    `connection` is the number of the connection to the server. While there is none, others may remove the member's
    entry once it is silent. So a renewal on an earlier connection counts for no longer than that.
    """

    def __init__(self, now: float, connection: int = 0) -> None:
        self._asked = now  # for the newest renewal that was answered
        self.connection = connection  # on which that went out
        self._verified = True  # whether the plan was read since the lease may have run out
        # Whether the newest renewal has no answer. The server may have got it all the same. Another one would then keep
        # the entry of a member that hears nothing, so an answer must come first.
        self.doubtful = False

    def holds(self, now: float, connection: int = 0) -> bool:
        """Whether it holds, and nobody got what we work on while it may not have held."""
        return self._verified and not self.lapsed(now, connection)

    def lapsed(self, now: float, connection: int = 0) -> bool:
        """Whether it may have run out, or others may have taken it away."""
        lasts = LEASE_SECS if connection == self.connection else SILENCE_SECS
        return now - self._asked >= lasts - MARGIN_SECS

    @property
    def verified(self) -> bool:
        """Whether the plan was read since the lease may have run out."""
        return self._verified

    def ask(self, now: float, connection: int = 0) -> None:
        """Note that a renewal goes out."""
        self._verified = self._verified and not self.lapsed(now, connection)
        self.doubtful = True

    def answered(self, asked: float, connection: int = 0) -> None:
        """Note that the server has the renewal that was asked for then, on that connection."""
        self._asked, self.connection, self.doubtful = asked, connection, False

    def verify(self) -> None:
        """Note that all we work on is still ours."""
        self._verified = True

    def void(self) -> None:
        """Note that somebody else owns what we work on."""
        self._verified = False
