"""The order in which live results are published, whatever waits for NATS meanwhile."""

from __future__ import annotations

import json

import pytest
from harness import Speech, s16
from outbox import Outbox, parts
from scripted import finish
from scripted import take as taken

from transcriber.domain.chunks import AudioFormat, Chunk, ChunkEvent, Encoding
from transcriber.domain.results import Recognition
from transcriber.domain.timeline import GapReason
from transcriber.pipeline.live import LivePipeline
from transcriber.pipeline.parts import Parts
from transcriber.worker.jobs import Job, Outcome

FLUSH, END = ChunkEvent.FLUSH, ChunkEvent.END


@pytest.fixture
def outbox() -> Outbox:
    """It publishes when it is told to, as the real one does in its own time."""
    waiting = Outbox()
    waiting.publishing = False
    return waiting


@pytest.fixture
def made(outbox: Outbox) -> Parts:
    return parts(outbox)


@pytest.fixture
def pipeline(made: Parts) -> LivePipeline:
    return LivePipeline(made)


def chunk(speech: Speech | None, event: ChunkEvent | None = None, session: str = "x") -> Chunk:
    pcm = s16(speech.samples) if speech is not None else b""
    return Chunk("s", AudioFormat(Encoding.S16LE, 16_000, 1), pcm, session, event=event)


def take(made: Parts) -> Job:
    """The next window, as the worker takes it."""
    job = taken(made.queue)
    assert job is not None
    finish(made.queue)
    return job


def decide(job: Job) -> None:
    job.deliver(
        Outcome(
            window=job.window,
            recognition=Recognition((), "en", "stub"),
            reason=None,
            detail="",
            enqueued=job.enqueued,
            queued=0.0,
            processing=0.1,
        )
    )


def published(outbox: Outbox) -> list[str]:
    outbox.publish()
    outbox.publishing = False
    return [json.loads(message.payload)["type"] for message in outbox.messages]


def ends(outbox: Outbox) -> list[float]:
    bodies = [json.loads(message.payload) for message in outbox.messages]
    return [body["end"] for body in bodies if body["type"] == "flushed"]


async def test_flush_waits_for_no_later_window(
    heldout: Speech, outbox: Outbox, made: Parts, pipeline: LivePipeline
) -> None:
    """It is answered right after the windows before it."""
    for row in range(3):
        pipeline.receive(chunk(heldout.cut(row, row + 1), FLUSH), 0.0)
    jobs = [take(made), take(made), take(made)]
    for job in jobs:
        decide(job)
    assert published(outbox) == ["started", *["final", "flushed"] * 3]
    assert ends(outbox) == sorted(ends(outbox))


async def test_answers_to_flushes_wait_for_their_windows(
    heldout: Speech, outbox: Outbox, made: Parts, pipeline: LivePipeline
) -> None:
    """In whichever order the windows are decided, every flush is answered once, after what came before it."""
    for first, event in ((0, FLUSH), (None, FLUSH), (1, FLUSH), (None, END)):
        pipeline.receive(chunk(None if first is None else heldout.cut(first, first + 1), event), 0.0)
    one, two = take(made), take(made)
    assert published(outbox) == ["started"]
    decide(two)
    assert published(outbox) == ["started", "final"]
    decide(one)
    assert published(outbox) == ["started", "final", "final", "flushed", "flushed", "flushed", "ended"]
    first, second, third = ends(outbox)
    assert first == second < third


async def test_nothing_of_a_session_is_published_after_its_end(
    heldout: Speech, outbox: Outbox, made: Parts, pipeline: LivePipeline
) -> None:
    """While NATS is away, a window is decided, and the next one finds no room."""
    pipeline.receive(chunk(heldout.cut(0, 1), FLUSH), 0.0)
    decide(take(made))
    made.queue.close()
    pipeline.receive(chunk(heldout.cut(1, 2), FLUSH), 0.0)
    pipeline.receive(chunk(None, END), 0.0)
    assert published(outbox) == ["started", "final", "flushed", "gap", "flushed", "ended"]


async def test_flush_of_windows_that_are_given_up_is_answered(
    heldout: Speech, outbox: Outbox, made: Parts, pipeline: LivePipeline
) -> None:
    """At the end of the grace period, whether they wait or are in the engine."""
    pipeline.receive(chunk(heldout.cut(0, 1), FLUSH), 0.0)
    pipeline.receive(chunk(heldout.cut(1, 2), FLUSH), 0.0)
    made.queue.get()
    pipeline.end_all()
    pipeline.give_up()
    assert published(outbox) == ["started", "gap", "gap", "flushed", "flushed", "ended"]
    gaps = [json.loads(m.payload)["reason"] for m in outbox.messages if b'"gap","stream"' in m.payload]
    assert gaps == [GapReason.SHUTDOWN, GapReason.SHUTDOWN]


async def test_flush_does_not_wait_for_other_sessions(
    heldout: Speech, outbox: Outbox, made: Parts, pipeline: LivePipeline
) -> None:
    """Not even for the same stream's last one."""
    pipeline.receive(chunk(heldout.cut(0, 1), END, "x"), 0.0)
    pipeline.receive(chunk(None, FLUSH, "y"), 0.0)
    assert published(outbox) == ["started", "flushed"]
    decide(take(made))
    assert published(outbox) == ["started", "flushed", "final", "ended"]


async def test_pipeline_notes_each_text_when_it_is_published(
    heldout: Speech, outbox: Outbox, made: Parts, pipeline: LivePipeline
) -> None:
    """Not when it is decided: a place that is written before its text would leave the text out."""
    pipeline.receive(chunk(heldout.cut(0, 1), FLUSH), 0.0)
    decide(take(made))
    assert not pipeline.published.is_set()
    published(outbox)
    assert pipeline.published.is_set()
