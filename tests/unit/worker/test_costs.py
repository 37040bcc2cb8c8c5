"""The arithmetic of passes over several windows."""

from __future__ import annotations

import pytest

from transcriber.worker.costs import PassCosts

BATCHES = PassCosts(most=8, full=2.4)  # each further window costs a fifth of the first


def test_one_window_at_a_time_costs_its_own_work() -> None:
    """An engine without batches is not weighed differently from before."""
    costs = PassCosts()
    assert costs.together([3.0]) == 3.0
    assert costs.together([]) == 0.0
    assert costs.in_full_passes(7.0) == 7.0
    assert costs.until_done(7.0, 2.0, 5.0) == 7.0


@pytest.mark.parametrize(("count", "expected"), [(1, 10.0), (2, 12.0), (8, 24.0)])
def test_each_further_window_costs_a_share_of_the_first(count: int, expected: float) -> None:
    """Of equal windows."""
    assert BATCHES.together([10.0] * count) == pytest.approx(expected)


def test_windows_of_several_lengths_cost_as_their_mean() -> None:
    """The measured speed takes in what is lost to different lengths."""
    assert BATCHES.together([5.0, 15.0]) == pytest.approx(BATCHES.together([10.0, 10.0]))


def test_a_window_waits_for_its_whole_pass() -> None:
    """Sixteen before it are two full passes; its own may be filled by later ones, which may be longer."""
    assert BATCHES.until_done(17 * 10.0, 10.0, 10.0) == pytest.approx(3 * 24.0)
    assert BATCHES.until_done(17 * 10.0, 10.0, 20.0) == pytest.approx(2 * 24.0 + 48.0)
    assert BATCHES.until_done(10.0, 10.0, 10.0) == pytest.approx(24.0)
