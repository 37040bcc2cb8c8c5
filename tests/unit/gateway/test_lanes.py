"""Where streams go: by their model, and in a fleet under names whose partitions somebody hears."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from transcriber.gateway.lanes import Lane, Lanes
from transcriber.gateway.workers import Worker
from transcriber.protocol.partitions import FleetOptions, partition_of


class Line:
    """Keeps who listens."""

    def listen(self, _subject: str, take: Callable[[bytes, bytes, bytes], None]) -> int:
        self.take = take
        return 1


def worker(model: str, group: str = "", **state: Any) -> Worker:
    subject = f"audio.{group}.*" if group else "audio.*"
    return Worker(id=f"{model} {group} {state}", model=model, subject=subject, **state)


def lanes_of(*workers: Worker) -> Lanes:
    lanes = Lanes(None, Line(), lambda _stream: None)  # type: ignore[arg-type]
    lanes.update(workers)
    return lanes


async def test_name_avoids_partitions_that_nobody_hears() -> None:
    """Until none is left. Only the answer for nobody counts."""
    line, deserted = Line(), list[bytes]()
    lane = Lane(line, deserted.append, partitions=4)  # type: ignore[arg-type]
    numbers = itertools.count()
    alone: set[int] = set()
    while (name := lane.name(lambda: f"s{next(numbers)}")) is not None:
        partition = partition_of(name, 4)
        assert partition not in alone
        subject, inbox = lane.asking(name).split(b" ")
        assert subject == lane.subject(name) == f"audio.{partition}.{name}".encode()
        line.take(inbox, b"NATS/1.0 100 Idle Heartbeat\r\n\r\n", b"")
        assert deserted == []
        line.take(inbox, b"NATS/1.0 503\r\n\r\n", b"")
        assert deserted == [name.encode()]
        deserted.clear()
        alone.add(partition)
    assert alone == {0, 1, 2, 3}


BASE, LARGE = worker("ggml-base.en"), worker("ct2-large-v3", "big")


@pytest.mark.parametrize(
    ("there", "model", "group"),
    [
        ([BASE, LARGE], "large-v3", "big"),
        ([BASE, LARGE], "ggml-large-v3", "big"),  # the names of both formats
        ([BASE, LARGE], "Large-V3", "big"),
        ([BASE, LARGE], "whisper-1", ""),  # that nobody has
        ([BASE, LARGE], "", ""),
        ([BASE, LARGE], None, ""),
        ([BASE, LARGE], "base.en", ""),
        ([BASE, worker("base.en", "other")], "base.en", ""),  # the default has it
        ([BASE, worker("tiny"), worker("tiny", "small")], "tiny", "small"),  # not all of the default have it
        ([BASE, worker("tiny")], "tiny", ""),  # and no group has
        ([LARGE, worker("base", "mixed"), worker("tiny", "mixed")], "tiny", "mixed"),  # one of a group is enough
        ([LARGE], "base", ""),  # although nobody is there
        ([BASE, worker("tiny", "full", streams=1, max_streams=1), worker("tiny", "free")], "tiny", "free"),
        ([BASE, worker("tiny", "slow", estimated_wait=2.0), worker("tiny", "quick")], "tiny", "quick"),
        ([BASE, Worker(id="x", model="tiny", subject="audio.radio-1")], "tiny", ""),  # hears that stream alone
        ([BASE, Worker(id="x", model="tiny", subject="audio.>.*")], "tiny", ""),  # no group of this protocol
        ([BASE, worker("tiny", "odd", partitions=0)], "tiny", ""),  # no fleet of this protocol
    ],
)
def test_stream_goes_where_its_model_is(there: Sequence[Worker], model: str | None, group: str) -> None:
    assert lanes_of(*there).of(model).group == group


def test_lane_has_the_subjects_of_its_group() -> None:
    """A fleet's with the partition; the default's as the gateway's own settings say."""
    lanes = Lanes(FleetOptions("f"), Line(), lambda _stream: None)  # type: ignore[arg-type]
    lanes.update([BASE, LARGE, worker("tiny", "small", partitions=64)])
    assert lanes.of("whisper-1").subject("s1") == b"audio.9.s1"
    assert lanes.of("large-v3").subject("s1") == b"audio.big.s1"
    assert lanes.of("tiny").subject("s1") == b"audio.small.9.s1"


def test_lane_stays_when_its_workers_are_gone() -> None:
    """New streams go elsewhere. Those that wait learn when somebody is back."""
    lanes = lanes_of(BASE, LARGE)
    big = lanes.of("large-v3")
    assert lanes.update([BASE]) == set()
    assert (big.serving, lanes.of("large-v3")) == (False, lanes.default)
    assert lanes.update([BASE, LARGE]) == {big}
    assert lanes.of("large-v3") is big
    assert lanes.update([BASE, LARGE]) == set()


def test_client_that_may_say_its_model_later_may_come_in() -> None:
    """If any lane has room. One that has said it depends on its own lane, and a worker of one stream is none's."""
    alone = Worker(id="x", model="tiny", subject="audio.radio-1")
    lanes = lanes_of(BASE, LARGE, alone)
    assert lanes.may_take(None) == [BASE, LARGE]
    assert lanes.may_take("") == lanes.may_take("nova-3") == [BASE]
    assert lanes.may_take("large-v3") == [LARGE]
