"""The simulated fleet: what it finds in a small one, and its report."""

from __future__ import annotations

from argparse import Namespace

from benchmarks import fleet
from benchmarks.fleet import Scene, simulate
from transcriber.protocol.partitions import LEASE_SECS


def test_simulated_deaths_leave_partitions_briefly_unowned() -> None:
    """Ten daemons of which a tenth dies each minute: 2 s after its lease, a dead one's partitions have owners."""
    found = simulate(Scene(daemons=10, streams=300, partitions=64, minutes=3.0, dying=0.2, seed=3))
    assert found.deaths > 1
    assert 0 < max(found.gaps) <= LEASE_SECS + 2
    assert found.ownerless / found.audio < 0.05
    assert found.joins > 0
    assert 0 < max(found.shares) <= 1.1  # a joining daemon gets its fair share, give or take a part of a partition


def test_simulated_fleet_without_deaths_does_all_audio_evenly() -> None:
    """Nothing is lost; the busiest of ten daemons has at most 1.25 times the mean."""
    found = simulate(Scene(daemons=10, streams=1000, partitions=128, minutes=1.0, dying=0.0, seed=1))
    assert (found.deaths, found.ownerless, found.crowded) == (0, 0.0, 0.0)
    assert sorted(found.evenness)[len(found.evenness) // 2] <= 1.25


async def test_report_says_that_it_is_simulated() -> None:
    """So that nobody takes its figures for measurements."""
    options = Namespace(daemons=4, streams=50, partitions=16, minutes=0.2, dying=0.0, seed=1)
    text = (await fleet.run(options)).text()
    assert "simulated" in text
    assert "in time" in text
