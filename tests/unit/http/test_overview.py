"""The status page's figures, made from events and tallies, and never more than a page full."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.events import Suppressed
from transcriber.domain.measurements import NAMED_STREAMS, OTHERS, Snapshot, Tallies
from transcriber.domain.results import Latency, Recognition, Segment, Transcript
from transcriber.domain.timeline import SAMPLE_RATE, Fate, Gap, GapReason, Origin
from transcriber.http.overview import Overview, PageState, percentile

SECOND = SAMPLE_RATE


def transcript(text: str, start: int = 0, took: float = 0.5, stream: str = "s1") -> Transcript:
    recognition = Recognition((Segment(text=text, start=0, end=SECOND, confidence=0.9),), "en", "stub")
    return Transcript(
        origin=Origin(stream, "x"),
        sequence=0,
        start=start,
        end=start + SECOND,
        recognition=recognition,
        latency=Latency(0.1, took - 0.1, took),
    )


def standing(busy: float = 0.0, pending: float = 0.0, **more: Any) -> PageState:
    snapshot = Snapshot(
        queue_depth=3,
        queue_capacity=8,
        busy=busy,
        rtf=0.1,
        buffered=0.0,
        pending=pending,
        lag_chunks=7,
        lag_seconds=1.5,
    )
    return PageState(state="ready", version="1.0", model="stub", max_latency=20.0, snapshot=snapshot, streams=1, **more)


def view(overview: Overview, now: float = 0.0, **more: Any) -> dict[str, Any]:
    """The figures as a browser gets them."""
    seen: dict[str, Any] = json.loads(json.dumps(overview.view(standing(**more), now)))
    return seen


@pytest.fixture
def tallies() -> Tallies:
    return Tallies()


@pytest.fixture
def overview(tallies: Tallies) -> Overview:
    return Overview(tallies)


def test_overview_is_empty_at_the_start_and_does_not_fail(overview: Overview) -> None:
    """Nothing is divided by zero. Latencies and the worker's share are not known yet."""
    seen = view(overview)
    assert seen["latency"] == {
        "queue": [None, None],
        "processing": [None, None],
        "end_to_end": [None, None],
        "windows": 0,
        "limit": 20.0,
    }
    assert (seen["busy"], seen["lines"], seen["streams"], seen["drops"], seen["lag"]) == (None, [], [], [], None)
    assert seen["audio"] == {"received": 0, "transcribed": 0, "silent": 0, "gap": {}, "pending": 0}


def test_lines_are_newest_first_with_bounds_in_seconds(overview: Overview) -> None:
    """A final with its latency, suppressed text and a gap with their reasons."""
    overview.add(transcript("train four", SECOND), at=100.0)
    overview.add(
        Suppressed(origin=Origin("s1", "x"), start=2 * SECOND, end=3 * SECOND, reason="looped", text="the the the"),
        at=101.0,
    )
    overview.add(Gap(origin=Origin("s2", "y"), start=0, end=SECOND // 2, reason=GapReason.DEADLINE), at=102.0)
    gap, suppressed, final = view(overview)["lines"]
    assert final == {
        "number": 0,
        "at": 100.0,
        "kind": "final",
        "stream": "s1",
        "start": 1.0,
        "end": 2.0,
        "text": "train four",
        "reason": "",
        "latency": 0.5,
    }
    assert [suppressed[k] for k in ("kind", "text", "reason", "latency")] == [
        "suppressed",
        "the the the",
        "looped",
        None,
    ]
    assert [gap[k] for k in ("kind", "stream", "start", "end", "reason")] == ["gap", "s2", 0.0, 0.5, "deadline"]


def test_a_storm_of_gaps_leaves_the_texts_and_stays_a_page(overview: Overview) -> None:
    """Twenty of each are shown, however many there were."""
    for number in range(1000):
        overview.add(transcript(f"text {number}"), at=0.0)
    for _ in range(1000):
        overview.add(Gap(origin=Origin("s1", "x"), start=0, end=SECOND, reason=GapReason.QUEUE_FULL), at=0.0)
    lines = view(overview)["lines"]
    assert [line["text"] for line in lines if line["kind"] == "final"] == [f"text {n}" for n in range(999, 979, -1)]
    assert sum(line["kind"] == "gap" for line in lines) == 20


def test_a_message_to_a_viewer_is_bounded(overview: Overview, tallies: Tallies) -> None:
    """The most streams and the longest texts still fit into what the kernel holds for a viewer."""
    for number in range(10 * NAMED_STREAMS):
        for fate in ("received", *Fate, *GapReason):
            tallies.audio.add(f"{number:064}", fate, 10**9)
    for _ in range(50):
        overview.add(transcript("字" * 10_000, stream="s" * 64), at=1e9)
        overview.add(
            Suppressed(origin=Origin("s" * 64, "x"), start=0, end=SECOND, reason="looped", text="字" * 10_000), at=1e9
        )
    seen = overview.view(standing(), 0.0)
    assert len(seen["streams"]) == NAMED_STREAMS + 1
    assert seen["streams"][-1]["name"] == OTHERS
    assert {len(line["text"]) for line in seen["lines"]} == {600}
    assert len(json.dumps(seen, ensure_ascii=False).encode()) < 128 * 1024


fates = st.sampled_from([*Fate, *GapReason])
spans = st.lists(st.tuples(st.sampled_from(["s1", "s2", "s3"]), fates, st.integers(1, 10**7)), max_size=40)


@given(spans, st.integers(0, 10**6))
def test_fates_add_up_for_every_stream_and_for_all(
    settled: list[tuple[str, Fate | GapReason, int]], open_: int
) -> None:
    """received = transcribed + silent + gap + pending, whatever was counted."""
    tallies = Tallies()
    for stream, fate, samples in settled:
        tallies.audio.add(stream, "received", samples)
        tallies.audio.add(stream, fate, samples)
    tallies.audio.add("s1", "received", open_)
    seen = view(Overview(tallies), pending=open_ / SECOND)
    for row in (seen["audio"], *seen["streams"]):
        told = row["transcribed"] + row["silent"] + sum(row["gap"].values()) + row["pending"]
        assert told == pytest.approx(row["received"], abs=1e-6)
    assert sum(row["pending"] for row in seen["streams"]) == pytest.approx(seen["audio"]["pending"], abs=1e-6)


def test_drops_are_told_by_reason_with_the_worst_first(overview: Overview, tallies: Tallies) -> None:
    """One row has the seconds, windows and chunks of one reason, over all streams."""
    for stream in ("s1", "s2"):
        tallies.audio.add(stream, GapReason.QUEUE_FULL, 3 * SECOND)
        tallies.jobs_dropped.add(stream, GapReason.QUEUE_FULL)
        tallies.chunks_dropped.add(stream, "partial_frame", 2)
        tallies.audio.add(stream, GapReason.LAG, SECOND)
        tallies.chunks_dropped.add(stream, GapReason.LAG, 5)
        tallies.audio.add(stream, Fate.SILENT, SECOND)
    assert view(overview)["drops"] == [
        {"reason": "queue_full", "seconds": 6.0, "windows": 2, "chunks": 0},
        {"reason": "lag", "seconds": 2.0, "windows": 0, "chunks": 10},
        {"reason": "partial_frame", "seconds": 0, "windows": 0, "chunks": 4},
    ]


def test_latencies_are_those_of_the_last_windows(overview: Overview) -> None:
    """Median and 95th percentile come from at most two hundred. Older ones are forgotten."""
    for _ in range(300):
        overview.add(transcript("old", took=9.0), at=0.0)
    for number in range(200):
        overview.add(transcript("new", took=1.0 + number / 100), at=0.0)
    latency = view(overview)["latency"]
    assert latency["windows"] == 200
    assert latency["end_to_end"] == pytest.approx([1.99, 2.89])
    assert latency["queue"] == pytest.approx([0.1, 0.1])
    assert latency["processing"] == pytest.approx([1.89, 2.79])


@given(st.lists(st.floats(0, 100), min_size=1), st.floats(0.01, 1))
def test_a_percentile_has_that_share_at_or_below_it(values: list[float], share: float) -> None:
    """No smaller value has."""
    found = percentile(values, share)
    assert found is not None
    assert sum(v <= found for v in values) >= share * len(values) - 1e-9
    assert sum(v < found for v in values) < share * len(values) + 1e-9


def test_the_workers_share_is_that_of_the_last_ten_seconds(overview: Overview) -> None:
    """It is not known at the first look, nor at the first look after a pause."""
    assert view(overview, 100.0, busy=50.0)["busy"] is None
    assert view(overview, 101.0, busy=51.0)["busy"] == 1.0
    for second in range(2, 30):
        seen = view(overview, 100.0 + second, busy=51.0 + (second - 1) / 4)
    assert seen["busy"] == pytest.approx(0.25)
    assert view(overview, 900.0, busy=100.0)["busy"] is None


def test_lag_is_shown_where_audio_is_stored(overview: Overview) -> None:
    """In live mode there is none to show."""
    assert view(overview)["lag"] is None
    assert view(overview, lags=True)["lag"] == {"chunks": 7, "seconds": 1.5}
