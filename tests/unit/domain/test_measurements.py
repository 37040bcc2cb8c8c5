"""The counts from which the metrics come."""

from __future__ import annotations

from transcriber.domain.measurements import NAMED_STREAMS, OTHERS, Tally


def test_first_streams_keep_their_names_and_later_share_one() -> None:
    """Names go to streams in the order of arrival, for good: a stream never changes its series."""
    tally = Tally()
    named = [f"s{n}" for n in range(NAMED_STREAMS)]
    assert [tally.label(stream) for stream in named] == named
    assert tally.label("late") == OTHERS
    assert [tally.label(stream) for stream in named] == named
    assert tally.label("late") == OTHERS


def test_streams_without_a_name_are_counted_together_and_in_full() -> None:
    """Counts of the late streams are in `OTHERS` and in every total."""
    tally = Tally()
    for n in range(NAMED_STREAMS + 50):
        tally.add(f"s{n}", "queue_full", 2)
    counts = tally.by_stream()
    assert len(counts) == NAMED_STREAMS + 1
    assert counts["s0", "queue_full"] == 2
    assert counts[OTHERS, "queue_full"] == 100
    assert tally.grand_total() == 2 * (NAMED_STREAMS + 50)


def test_totals_are_by_key_over_all_streams() -> None:
    """`total` sums one key, `kinds` names the keys that occurred, `grand_total` sums everything."""
    tally = Tally()
    tally.add("a", "lag", 3)
    tally.add("b", "lag")
    tally.add("b", "deadline", 5)
    assert (tally.total("lag"), tally.total("deadline"), tally.total("shutdown"), tally.total()) == (4, 5, 0, 0)
    assert tally.kinds() == {"lag", "deadline"}
    assert tally.grand_total() == 9


def test_exported_copy_does_not_change_while_counting_goes_on() -> None:
    """`by_stream` is a copy, so that the exporter can work through it."""
    tally = Tally()
    tally.add("a")
    read = tally.by_stream()
    tally.add("a")
    tally.add("b")
    assert read == {("a", None): 1}
    assert tally.by_stream() == {("a", None): 2, ("b", None): 1}
