"""Pace and promise: the arithmetic that decides whether a job is accepted."""

from __future__ import annotations

import math
import random

import pytest

from transcriber.worker.admission import AdmissionControl, EngineSpeed


def test_the_rate_is_a_ratio_of_sums_and_so_right_for_any_mix() -> None:
    """Every window, long or short, has a fixed cost. Their total is foreseen in any order."""
    speed, rand = EngineSpeed(1.0, 1.0, 1.0), random.Random(3)
    jobs = [(work, 0.1 * work) for work in (rand.choice([1.0, 20.0]) for _ in range(200))]
    for work, seconds in jobs:
        speed = speed.after(work, seconds, work)
    assert speed.expected(sum(work for work, _ in jobs)) == pytest.approx(sum(seconds for _, seconds in jobs))
    assert speed.rtf == pytest.approx(0.1)


def test_pace_follows_a_lasting_change_and_forgets_an_outlier() -> None:
    """Ten windows show nine tenths of a threefold slowdown.

    A window of ten times the usual cost is forgotten by then.
    """
    slower = odd = EngineSpeed(1.0, 10.0, 5.0)
    odd = odd.after(10.0, 10.0, 5.0)
    for _ in range(10):
        slower = slower.after(10.0, 3.0, 5.0)
        odd = odd.after(10.0, 1.0, 5.0)
    assert 2.7 < slower.expected(10.0) < 3.0
    assert 1.0 < odd.expected(10.0) < 1.3


def test_margin_covers_chance_in_single_jobs_and_in_sums() -> None:
    """Sums of 1 to 100 jobs stay below `at_most` nearly always, and it is not far above them."""
    rand, speed = random.Random(5), EngineSpeed(1.0, 1.0, 1.0)
    held = tried = 0
    for n in range(20_000):
        speed = speed.after(1.0, rand.gauss(1.0, 0.2), 1.0)
        if n % 20 == 0:
            jobs = rand.choice([1, 10, 100])
            held += sum(rand.gauss(1.0, 0.2) for _ in range(jobs)) <= speed.at_most(jobs)
            tried += 1
    assert held / tried > 0.985
    assert speed.at_most(100) < 100 * 1.6


def test_promised_job_may_begin_with_a_smaller_margin() -> None:
    """At its turn only the window itself is left to foresee. It needs one mean deviation, and acceptance three."""
    admission = AdmissionControl(10.0, EngineSpeed(1.0, 1.0, 1.0, deviation=0.5))
    assert not admission.in_time(7.6, 1.0)
    assert not admission.late(7.6, 1.0)
    assert not admission.late(8.4, 1.0)
    assert admission.late(8.6, 1.0)


def test_margin_is_zero_without_noise() -> None:
    """Jobs that always take the same time are promised to the second."""
    speed = EngineSpeed(0.5, 2.0, 1.0)
    for _ in range(50):
        speed = speed.after(2.0, 0.5, 1.0)
    assert speed.at_most(20.0) == pytest.approx(speed.expected(20.0)) == pytest.approx(5.0)


def test_job_is_in_time_until_wait_and_work_fill_the_promise() -> None:
    """L_max bounds waiting and processing together."""
    admission = AdmissionControl(10.0, EngineSpeed(1.0, 1.0, 1.0))
    assert admission.in_time(0.0, 10.0)
    assert not admission.in_time(0.1, 10.0)
    assert admission.in_time(9.0, 1.0)
    assert not admission.late(9.0, 1.0)
    assert admission.late(9.1, 1.0)


def test_hopeless_job_is_tried_until_its_own_time_is_over() -> None:
    """A job that cannot be in time still tells how slow the engine is."""
    admission = AdmissionControl(2.0, EngineSpeed(5.0, 1.0, 1.0))
    assert not admission.in_time(0.0, 1.0)
    assert not admission.late(1.9, 1.0)
    assert admission.late(2.1, 1.0)
    for _ in range(30):
        admission.measured(1.0, 0.1, 1.0)
    assert admission.in_time(0.0, 1.0)


def test_a_pace_that_was_never_measured_promises_everything() -> None:
    """Only the queue's tests work without an engine."""
    assert AdmissionControl(math.inf).in_time(1e9, 1e9)
    assert EngineSpeed().expected(1e9) == 0.0
