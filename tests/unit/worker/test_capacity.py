"""The capacity formula and its inverse questions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.worker import capacity


@pytest.mark.parametrize(
    ("max_latency", "window", "rtf", "jobs"),
    [(20, 5, 0.5, 8), (20, 5, 0.3, 13), (20, 5, 1.0, 4), (20, 5, 5.0, 1), (1, 30, 2.0, 1), (20, 5, 1e-9, 10_000)],
)
def test_capacity_is_the_budget_over_a_jobs_cost_at_least_one(
    max_latency: float, window: float, rtf: float, jobs: int
) -> None:
    """floor(L_max / (D x RTF)), never less than one job, never an absurd number."""
    assert capacity.derive(max_latency, window, rtf).jobs == jobs


def test_the_derivation_can_be_read_in_one_line() -> None:
    """An operator sees every figure from which the capacity follows."""
    text = str(capacity.derive(20, 5, 0.25))
    assert text == "capacity 16 = max(1, floor(L_max / (D x RTF))) = max(1, floor(20 s / (5 s x 0.2500)))"
    assert str(capacity.given(3, capacity.derive(20, 5, 0.25))) == "capacity 3 (TRANSCRIPTION_QUEUE_CAPACITY)"


@given(st.floats(0.1, 100), st.floats(0.1, 30), st.floats(0.001, 10))
def test_a_full_queue_is_done_within_the_budget(max_latency: float, window: float, rtf: float) -> None:
    """The last of `capacity` jobs ends within L_max, unless one job alone takes longer."""
    jobs = capacity.derive(max_latency, window, rtf).jobs
    assert jobs == 1 or jobs * window * rtf <= max_latency * (1 + 1e-9)


@given(st.integers(1, 1000), st.floats(0.001, 0.5), st.floats(0.5, 1))
def test_workers_and_streams_are_inverse_questions(count: int, rtf: float, utilisation: float) -> None:
    """N streams need N x RTF / utilisation workers, rounded up. That many carry N streams."""
    workers = capacity.workers(count, rtf, utilisation)
    assert workers * utilisation >= count * rtf * (1 - 1e-9)
    assert (workers - 1) * utilisation < count * rtf
    assert capacity.streams(rtf, utilisation) * rtf <= utilisation * (1 + 1e-9)
