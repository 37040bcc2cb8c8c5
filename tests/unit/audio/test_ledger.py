"""The account of one session."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.audio.ledger import Ledger
from transcriber.domain.errors import AccountingError
from transcriber.domain.timeline import Fate, GapReason

FATES = [*Fate, *GapReason]


@given(
    st.integers(0, 1000), st.lists(st.tuples(st.integers(1, 100), st.sampled_from(FATES)), max_size=40), st.randoms()
)
def test_spans_settled_in_any_order_add_up_to_what_was_received(start: int, spans: list, random) -> None:
    """received = transcribed + silent + gap + pending, after every single step."""
    ledger, head, bounds = Ledger(start), start, []
    for length, fate in spans:
        bounds.append((head, head + length, fate))
        head += length
        ledger.advance(head)
    random.shuffle(bounds)
    for begin, end, fate in bounds:
        ledger.settle(begin, end, fate)
        account = ledger.account()
        assert account.received == head - start
        assert account.received == account.transcribed + account.silent + sum(account.gap.values()) + account.pending
    account = ledger.account()
    assert account.pending == 0
    for reason in GapReason:
        assert account.gap.get(reason, 0) == sum(e - b for b, e, fate in bounds if fate is reason)


@pytest.mark.parametrize(("begin", "end"), [(0, 10), (5, 15), (19, 21), (30, 31), (25, 25), (-1, 5)])
def test_settling_what_is_not_pending_is_an_error(begin: int, end: int) -> None:
    """It is an error in the program to settle a sample twice, or one never received. The error names the samples."""
    ledger = Ledger(0)
    ledger.advance(30)
    ledger.settle(0, 10, Fate.SILENT)
    ledger.settle(20, 30, Fate.TRANSCRIBED)
    with pytest.raises(AccountingError) as caught:
        ledger.settle(begin, end, Fate.SILENT)
    assert (caught.value.start, caught.value.end) == (begin, end)
    assert ledger.pending == 10


def test_a_head_never_moves_backwards() -> None:
    """Passed time cannot be taken back."""
    ledger = Ledger(100)
    ledger.advance(200)
    with pytest.raises(AccountingError):
        ledger.advance(199)
