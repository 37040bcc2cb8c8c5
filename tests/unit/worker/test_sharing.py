"""Which windows of a batch are decoded together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from transcriber.worker.sharing import shares


def test_one_worker_decodes_all_windows_together() -> None:
    """The longest first."""
    assert shares([800, 1000, 900], [0, 0, 0], 1) == [[1, 2, 0]]


def test_two_workers_get_a_half_each() -> None:
    """By work, and not by the number of windows."""
    assert shares([1000] * 4, [0] * 4, 2) == [[0, 1], [2, 3]]
    assert shares([1000, 800, 780, 770], [0] * 4, 2) == [[0, 1], [2, 3]]
    assert shares([1500, 500, 490, 480], [0] * 4, 2) == [[0], [1, 2, 3]]


def test_windows_with_other_prompts_are_decoded_by_themselves() -> None:
    """CTranslate2 demands as many tokens before each text."""
    assert shares([1000, 1000, 1000], [0, 7, 0], 1) == [[0, 2], [1]]


@given(
    st.lists(st.tuples(st.integers(250, 1500), st.integers(0, 2)), min_size=1, max_size=64),
    st.integers(1, 16),
)
def test_every_window_is_in_one_share(windows: list[tuple[int, int]], workers: int) -> None:
    """All windows of a share are of one kind, and no share has much more than its part."""
    works, kinds = [work for work, _ in windows], [kind for _, kind in windows]
    found = shares(works, kinds, workers)
    assert sorted(place for share in found for place in share) == list(range(len(windows)))
    for share in found:
        assert len({kinds[place] for place in share}) == 1
        assert sum(works[place] for place in share[:-1]) + works[share[-1]] / 2 <= max(
            sum(works) / workers, works[share[-1]] / 2
        )
