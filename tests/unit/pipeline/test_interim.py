"""Which open windows get a partial."""

from __future__ import annotations

from types import SimpleNamespace

from harness import Speech, s16

from transcriber.audio.session import SessionOptions
from transcriber.audio.sessions import Sessions
from transcriber.domain.chunks import AudioFormat, Chunk, Encoding
from transcriber.domain.measurements import Tallies
from transcriber.pipeline.interim import Interim
from transcriber.worker.queue import JobQueue

RATE = 16_000


async def test_streams_that_fall_silent_in_mid_window_are_forgotten(heldout: Speech) -> None:
    """None of their chunks will say so. The next stream's window makes room."""
    sessions = Sessions(SessionOptions(), lambda: "new", Tallies())
    publisher = SimpleNamespace(connected=False)  # a stand-in: nothing goes out
    partials = Interim(sessions, JobQueue(1), publisher, Tallies(), interval=RATE, max_payload=lambda: 2**20)
    pcm = s16(heldout.cut(0, 1).samples)
    for n in range(50):
        sessions.receive(Chunk(f"s{n}", AudioFormat(Encoding.S16LE, RATE, 1), pcm[: 2 * RATE], "x"), 0.0)
        partials.offer(f"s{n}")
    assert len(partials._open) == 50
    sessions.end_all()
    sessions.receive(Chunk("last", AudioFormat(Encoding.S16LE, RATE, 1), pcm[: 2 * RATE], "x"), 0.0)
    partials.offer("last")
    assert set(partials._open) == {"last"}
