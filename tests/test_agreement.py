"""What two passes over a growing window agree on is shown as stable, and stays."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transcriber.worker.agreement import Agreement

WORDS = st.lists(st.sampled_from(["a", "b", "c"]), max_size=6)


def test_the_words_of_two_passes_become_stable() -> None:
    """The first pass settles nothing; then the common beginning of each two does."""
    agreement = Agreement()
    assert agreement.add(["turn", "left"]) == ("turn left", "")
    assert agreement.add(["turn", "left", "to"]) == ("turn left to", "turn left")
    assert agreement.add(["turn", "left", "two", "seven"]) == ("turn left two seven", "turn left")
    assert agreement.add(["turn", "left", "two", "seven", "zero"]) == (
        "turn left two seven zero",
        "turn left two seven",
    )


def test_a_pass_that_contradicts_what_is_stable_changes_only_what_follows() -> None:
    """What was promised to stay stays, even when the model thinks better of it."""
    agreement = Agreement()
    agreement.add(["red", "bus"])
    agreement.add(["red", "bus"])
    assert agreement.add(["bed", "bus", "stops"]) == ("red bus stops", "red bus")
    assert agreement.add(["bed", "bus", "stops"]) == ("red bus stops", "red bus")
    assert agreement.add(["bed"]) == ("red bus", "red bus")


@given(st.lists(WORDS, max_size=8))
def test_the_stable_prefix_only_grows_and_begins_the_text(passes: list[list[str]]) -> None:
    """Whatever the passes say."""
    agreement = Agreement()
    before: list[str] = []
    for words in passes:
        text, stable = agreement.add(words)
        assert stable.split()[: len(before)] == before
        assert text.split()[: len(stable.split())] == stable.split()
        before = stable.split()
