"""Partitions: the same hash as the server's, and names that fit into keys and subjects."""

from __future__ import annotations

from collections import Counter

import pytest

from transcriber.protocol import incoming, partitions
from transcriber.protocol.partitions import (
    FleetOptions,
    audio_subject,
    group_of,
    is_for_group,
    member_name,
    name_of,
    partition_of,
)


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


@pytest.mark.parametrize(
    ("subject", "group", "key"),
    [
        ("audio.*", "", "=all"),
        ("audio.large.*", "large", "=all-large"),
        ("audio.7b.*", "7b", "=all-7b"),
        ("audio.radio-1", None, "radio-1"),
        ("audio.7.*", None, "=p7"),
    ],
)
def test_group_is_told_by_the_subject(subject: str, group: str | None, key: str) -> None:
    """What is all digits is a partition. No group's key is that of a stream or a partition."""
    assert group_of(subject) == group
    assert incoming.key_of(subject) == key


@pytest.mark.parametrize("group", ["", "large"])
@pytest.mark.parametrize("count", [None, 64])
def test_stream_is_found_in_the_subject_of_its_group(group: str, count: int | None) -> None:
    """In a fleet of the group, too."""
    subject = audio_subject("s1", group, count)
    assert subject == ".".join(filter(None, ["audio", group, count and "9", "s1"]))
    assert incoming.stream_of(subject) == "s1"
    assert is_for_group(subject) == bool(group)
