"""Partitions: the same hash as the server's, and names that fit into keys and subjects."""

from __future__ import annotations

from collections import Counter

import pytest

from transcriber.protocol import partitions
from transcriber.protocol.partitions import FleetOptions, member_name, name_of, partition_of


@pytest.mark.parametrize(("stream", "expected"), [("radio-1", 30), ("s1", 9), ("a_b", 49), ("S2", 48)])
def test_partition_is_the_one_that_nats_server_computes(stream: str, expected: int) -> None:
    """These came from a server with the mapping; tests/daemon/test_fleet.py asks one again."""
    assert partition_of(stream, 64) == expected
    assert FleetOptions("f").subject_of(stream) == f"audio.{expected}.{stream}"


def test_partitions_get_about_as_many_streams_each() -> None:
    """No partition of 64 has more than twice the mean of 6,400 streams."""
    counts = Counter(partition_of(f"stream-{n}", 64) for n in range(6400))
    assert len(counts) == 64
    assert max(counts.values()) <= 200


def test_member_name_is_a_token_of_a_key() -> None:
    """Dots of a host name would be tokens of their own."""
    assert member_name("pod-3.fleet.svc", 8080) == "pod-3_fleet_svc-8080"
    assert name_of("pod-3-8080=1f") == "pod-3-8080"
    assert partitions.member_key("f", "a=1") == "f.a=1"
