"""The account of one session: every sample is settled exactly once."""

from __future__ import annotations

from bisect import bisect_right
from typing import Self

from transcriber.domain.errors import AccountingError
from transcriber.domain.timeline import Account, Fate, GapReason


class Ledger:
    """Tracks which samples of [start, head) have no fate yet.

    Spans may be settled in any order. Settling a sample twice, or one that never arrived, raises `AccountingError`.
    """

    def __init__(self, start: int) -> None:
        self._start = start
        self._head = start
        self._pending: list[tuple[int, int]] = []  # disjoint, ascending, not touching: one per undecided stretch
        self._totals: dict[Fate | GapReason, int] = {}

    @classmethod
    def resumed(cls, head: int, account: Account) -> Self:
        """Return the ledger of a session that was settled up to `head`."""
        ledger = cls(head - account.received)
        ledger._head = head
        ledger._totals = {Fate.TRANSCRIBED: account.transcribed, Fate.SILENT: account.silent}
        for reason, samples in account.gap.items():
            ledger._totals[reason] = samples
        return ledger

    @property
    def start(self) -> int:
        return self._start

    @property
    def head(self) -> int:
        return self._head

    @property
    def settled(self) -> int:
        """The position before which every sample has a fate."""
        return self._pending[0][0] if self._pending else self._head

    @property
    def pending(self) -> int:
        return sum(end - start for start, end in self._pending)

    def advance(self, head: int) -> None:
        """Note that audio (or a hole) up to `head` has arrived. It is pending."""
        if head < self._head:
            raise AccountingError(head, self._head, "the head moved backwards")
        if head == self._head:
            return
        if self._pending and self._pending[-1][1] == self._head:
            self._pending[-1] = (self._pending[-1][0], head)
        else:
            self._pending.append((self._head, head))
        self._head = head

    def settle(self, start: int, end: int, fate: Fate | GapReason) -> None:
        """Settle [start, end), all of which must be pending."""
        index = bisect_right(self._pending, start, key=lambda span: span[0]) - 1
        if start >= end or index < 0 or end > self._pending[index][1]:
            raise AccountingError(start, end, f"settled as {fate}, but pending is {self._pending}")
        first, last = self._pending[index]
        self._pending[index : index + 1] = [(a, b) for a, b in ((first, start), (end, last)) if a < b]
        self._totals[fate] = self._totals.get(fate, 0) + end - start

    def account(self) -> Account:
        return Account(
            received=self._head - self._start,
            transcribed=self._totals.get(Fate.TRANSCRIBED, 0),
            silent=self._totals.get(Fate.SILENT, 0),
            gap={fate: n for fate, n in self._totals.items() if isinstance(fate, GapReason)},
            pending=self.pending,
        )
