"""A member's own lease by its own clock: whether it holds, and what must come before the next renewal. Pure."""

from __future__ import annotations

from transcriber.fleet.roster import MARGIN_SECS
from transcriber.protocol.partitions import LEASE_SECS


class OwnLease:
    """Times are seconds on the member's monotonic clock. The lease counts from when its renewal was asked for."""

    def __init__(self, now: float) -> None:
        self._asked = now  # for the newest renewal that was answered
        self._verified = True  # whether the plan was read since the lease may have run out
        # Whether the newest renewal has no answer. The server may have got it all the same. Another one would then keep
        # the entry of a member that hears nothing, so an answer must come first.
        self.doubtful = False

    def holds(self, now: float) -> bool:
        """Whether it holds, and nobody got what we work on while it may not have held."""
        return self._verified and not self.lapsed(now)

    def lapsed(self, now: float) -> bool:
        """Whether it may have run out."""
        return now - self._asked >= LEASE_SECS - MARGIN_SECS

    @property
    def verified(self) -> bool:
        """Whether the plan was read since the lease may have run out."""
        return self._verified

    def ask(self, now: float) -> None:
        """Note that a renewal goes out."""
        self._verified = self._verified and not self.lapsed(now)
        self.doubtful = True

    def answered(self, asked: float) -> None:
        """Note that the server has the renewal that was asked for then."""
        self._asked, self.doubtful = asked, False

    def verify(self) -> None:
        """Note that all we work on is still ours."""
        self._verified = True

    def void(self) -> None:
        """Note that somebody else owns what we work on."""
        self._verified = False
