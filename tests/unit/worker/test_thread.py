"""The one thread that owns the engine: order, failures, deadlines, and no object kept alive."""

from __future__ import annotations

import asyncio
import gc
import math
import threading
import time
import weakref

import pytest
from scripted import SPEECH, Collector, Scripted, started, window

from transcriber.domain.errors import EngineError, ModelError
from transcriber.domain.timeline import GapReason
from transcriber.worker import memory
from transcriber.worker.admission import EngineSpeed
from transcriber.worker.jobs import Job
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread


async def test_jobs_run_in_order_on_one_thread_and_end_on_the_loop() -> None:
    """The engine never sees a second thread. Outcomes arrive on the event loop's thread."""
    engine, done = Scripted(0.0), Collector()
    thread, queue = await started(engine)
    for n in range(8):
        assert queue.try_put(Job(window=window(n, 1000 + n), deliver=done))
    outcomes = await done.have(8)
    assert [o.window.sequence for o in outcomes] == list(range(8))
    assert [o.recognition and o.recognition.text for o in outcomes] == [str(1000 + n) for n in range(8)]
    assert engine.threads == {"whisper"}
    assert queue.depth == 0
    queue.close()
    async with asyncio.timeout(10):
        await thread.finished.wait()


async def test_memory_is_given_back_once_no_job_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is after the last of three jobs that waited together. A fourth comes too soon after it."""
    given_back: list[int] = []
    once = threading.Event()
    engine, took = Scripted(0.0), Collector()

    def trim_heap() -> None:
        given_back.append(len(engine.attempts) - measured)
        once.set()

    monkeypatch.setattr(memory, "trim_heap", trim_heap)
    thread, queue = await started(engine)
    measured = len(engine.attempts)
    engine.may_go.clear()
    for sequence in range(3):
        assert queue.try_put(Job(window=window(sequence), deliver=took))
    engine.may_go.set()
    assert await asyncio.to_thread(once.wait, 10)  # comes after the third job's delivery
    assert queue.try_put(Job(window=window(3), deliver=took))
    await took.have(4)
    queue.close()
    await asyncio.wait_for(thread.finished.wait(), 10)
    assert given_back == [3]


async def test_failing_window_does_not_stop_the_next_one() -> None:
    """One bad window becomes an engine error with its cause, and the next one is decoded."""
    engine, done = Scripted(0.0, EngineError("whisper_full returned -6"), MemoryError("out of it"), 0.0), Collector()
    _, queue = await started(engine)
    for n in range(3):
        queue.try_put(Job(window=window(n), deliver=done))
    first, second, third = await done.have(3)
    assert (first.reason, first.detail) == (GapReason.ENGINE_ERROR, "whisper_full returned -6")
    assert (second.reason, second.detail) == (GapReason.ENGINE_ERROR, "MemoryError: out of it")
    assert third.recognition is not None
    queue.close()


async def test_an_exception_does_not_keep_its_window_alive() -> None:
    """A kept traceback would keep audio. After delivery nothing holds the samples."""
    engine, done = Scripted(0.0, EngineError("bad"), 0.0), Collector()
    thread, queue = await started(engine)
    doomed = window(0)
    ghost = weakref.ref(doomed.samples)
    queue.try_put(Job(window=doomed, deliver=done))
    await done.have(1)
    queue.close()
    async with asyncio.timeout(10):
        await thread.finished.wait()
    done.outcomes.clear()
    del doomed
    gc.collect()
    assert ghost() is None


async def test_a_job_that_would_be_late_is_not_decoded() -> None:
    """It is a gap at once. Decoding it would make the next one late too."""
    engine, done = Scripted(0.0, 0.3), Collector()
    _, queue = await started(engine, max_latency=0.2)
    queue.try_put(Job(window=window(0), deliver=done))
    queue.try_put(Job(window=window(1), deliver=done))
    slow, late = await done.have(2)
    assert slow.recognition is not None  # it is late too, which only the publisher can tell
    assert late.reason is GapReason.DEADLINE
    assert late.processing == 0
    assert "waited" in late.detail
    queue.close()


async def test_hopeless_job_is_tried_when_none_can_be_in_time() -> None:
    """The measurement must go on, or nobody would know when the slow spell is over."""
    engine, done = Scripted(0.0), Collector()
    thread, queue = await started(engine, max_latency=0.5)
    thread.admission.speed = EngineSpeed(5.0, 1.0, 1.0)  # what a CPU hog left behind
    for n in range(20):
        queue.try_put(Job(window=window(n), deliver=done))
        await done.have(n + 1)
    assert all(o.recognition is not None for o in done.outcomes)
    assert thread.speed.expected(1.0) < 0.5
    queue.close()


async def test_start_up_measures_the_engine_by_running_it() -> None:
    """RTF is processing time over audio length, from real passes after a warm-up."""
    engine = Scripted(0.2, 0.05)  # the first pass is slow, as first passes are
    thread = WhisperThread(lambda: engine, 20)
    rtf = await thread.start(SPEECH)
    assert 0.05 <= rtf < 0.2
    assert thread.speed.expected(engine.work(16_000)) == pytest.approx(rtf * 1.0)
    assert thread.speed.rtf == pytest.approx(rtf)
    thread.serve(queue := JobQueue(1))
    queue.close()


async def test_a_given_rtf_is_taken_and_the_engine_still_warmed_up() -> None:
    """WHISPER_RTF spares the measurement, not the first pass."""
    engine = Scripted(0.0)
    thread = WhisperThread(lambda: engine, 20)
    assert await thread.start(SPEECH, rtf=0.7) == 0.7
    assert engine.threads == {"whisper"}
    thread.serve(queue := JobQueue(1))
    queue.close()


async def test_failed_load_is_reported_to_its_caller() -> None:
    """The cause of a failed start arrives as itself. Anything unforeseen is an EngineError."""

    def fails() -> Scripted:
        raise ModelError("x.bin", "is no model")

    with pytest.raises(ModelError, match=r"x\.bin: is no model"):
        await WhisperThread(fails, 20).start(SPEECH)
    with pytest.raises(EngineError, match="ValueError: odd"):
        await WhisperThread(lambda: Scripted(ValueError("odd")), 20).start(SPEECH)


async def test_a_window_in_the_engine_is_visible_from_outside() -> None:
    """/livez and the busy metric look at `busy_since`."""
    engine, done = Scripted(0.0), Collector()
    thread, queue = await started(engine)
    assert thread.busy_since is None
    engine.may_go.clear()
    before = time.monotonic()
    queue.try_put(Job(window=window(0), deliver=done))
    async with asyncio.timeout(10):
        while thread.busy_since is None:  # noqa: ASYNC110 - set by the other thread, without news
            await asyncio.sleep(0)
    assert thread.busy_since >= before
    engine.may_go.set()
    await done.have(1)
    assert thread.busy_since is None
    assert thread.busy_seconds > 0
    queue.close()


async def test_a_start_that_was_cancelled_is_not_reported_to_anybody() -> None:
    """After a stop while the model loads, the end of the load is no error."""
    engine, errors = Scripted(0.0), []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, context: errors.append(context))
    engine.may_go.clear()
    thread = WhisperThread(lambda: engine, 20)
    starting = asyncio.create_task(thread.start(SPEECH, rtf=0.1))
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    engine.may_go.set()
    thread.serve(queue := JobQueue(1))
    queue.close()
    async with asyncio.timeout(10):
        await thread.finished.wait()
    assert errors == []


async def test_stuck_window_is_stopped_at_its_deadline() -> None:
    """After L_max its text is of no use. It becomes a gap, its time counts, and the next window is decoded."""
    engine, done = Scripted(0.0, math.inf, 0.0), Collector()
    thread, queue = await started(engine, max_latency=0.2)
    queue.try_put(Job(window=window(0), deliver=done))
    (stopped,) = await done.have(1)
    assert (stopped.recognition, stopped.reason, stopped.detail) == (None, GapReason.DEADLINE, "stopped")
    assert stopped.processing >= 0.1
    assert thread.speed.expected(1.0) > 0.01
    queue.try_put(Job(window=window(1), deliver=done))
    assert (await done.have(2))[1].recognition is not None
    queue.close()


async def test_an_idle_thread_decodes_a_partial() -> None:
    """Its outcome is delivered like any other. It says nothing about the pace of windows."""
    engine, done = Scripted(0.0, 0.05), Collector()
    thread, queue = await started(engine)
    before = thread.speed
    queue.offer_partial(Job(window=window(0), deliver=done, partial=True))
    (looked,) = await done.have(1)
    assert looked.recognition is not None
    assert thread.speed is before
    assert thread.busy_seconds == 0  # it would have given way: it takes nothing from what the engine can do
    assert queue.try_put(Job(window=window(1), deliver=done))
    await done.have(2)
    assert thread.busy_seconds >= 0.05
    queue.close()


async def test_a_running_partial_gives_way_to_a_window() -> None:
    """It ends without a reason. The window is decoded at once."""
    engine, done = Scripted(0.0, math.inf, 0.0), Collector()
    _, queue = await started(engine)
    queue.offer_partial(Job(window=window(0), deliver=done, partial=True))
    assert await asyncio.to_thread(engine.endless.wait, 10)
    assert queue.try_put(Job(window=window(1, stream="other"), deliver=done))
    gave_way, decoded = await done.have(2)
    assert (gave_way.window.sequence, gave_way.recognition, gave_way.reason) == (0, None, None)
    assert (decoded.window.sequence, decoded.recognition is not None) == (1, True)
    queue.close()


async def test_an_old_partial_is_still_decoded() -> None:
    """Partials have no deadline. The queue replaces them, and the thread does not judge them."""
    engine, done = Scripted(0.0), Collector()
    _, queue = await started(engine, max_latency=0.5)
    queue.offer_partial(Job(window=window(0), deliver=done, enqueued=time.monotonic() - 5.0, partial=True))
    assert (await done.have(1))[0].recognition is not None
    queue.close()


async def test_a_failure_says_nothing_about_the_pace() -> None:
    """An engine that fails at once is not a fast one."""
    engine, done = Scripted(0.0, EngineError("bad")), Collector()
    thread, queue = await started(engine)
    before = thread.speed
    queue.try_put(Job(window=window(0), deliver=done))
    await done.have(1)
    assert thread.speed is before
    queue.close()


@pytest.mark.parametrize(
    ("texts", "confidences", "passes", "said"),
    [
        (["gate five"], [0.9], 1, "gate five"),
        (["gate five", "gate nine"], [0.2, 0.9], 2, "gate nine"),
        (["move move move move move", "gate nine"], [0.9, 0.9], 2, "gate nine"),
        (["go go go go", "go go go go", "gate nine"], [0.9, 0.9, 0.9], 3, "gate nine"),
        (["gate five", "gate nine"], [0.3, 0.2], 2, "gate five"),  # neither is sure: the surer one
    ],
)
async def test_a_window_is_decoded_until_its_text_is_beyond_doubt(
    texts: list[str], confidences: list[float], passes: int, said: str
) -> None:
    """Looping or unsure text is decoded again, at most twice. All passes count."""
    engine, done = Scripted(0.0), Collector()
    engine.texts[: len(texts)], engine.confidences[: len(texts)] = texts, confidences
    _, queue = await started(engine)
    engine.attempts.clear()
    queue.try_put(Job(window=window(0), deliver=done))
    (outcome,) = await done.have(1)
    assert engine.attempts == list(range(passes))
    assert outcome.passes == passes
    assert outcome.recognition is not None
    assert outcome.recognition.text == said
    queue.close()


async def test_partials_and_windows_without_time_are_not_decoded_twice() -> None:
    """A second pass must not break the promise that the first one keeps."""
    engine, done = Scripted(0.0), Collector()
    engine.confidences = [0.2, 0.9, 0.9]
    _, queue = await started(engine, max_latency=1.0, rtf=0.6)  # the wider context would take twice 0.6 s
    engine.attempts.clear()
    queue.offer_partial(Job(window=window(0), deliver=done, partial=True))
    await done.have(1)
    for n in (1, 2):
        queue.try_put(Job(window=window(n), deliver=done))
        outcome = (await done.have(n + 1))[-1]
        assert outcome.passes == 1
    assert engine.attempts == [0] * 3
    queue.close()


@pytest.mark.parametrize(("rtf", "passes"), [(0.1, 2), (1.2, 1)])
async def test_second_pass_needs_waiting_windows_to_stay_in_time(rtf: float, passes: int) -> None:
    """The second pass takes two units of work. The waiting windows were promised theirs."""
    engine, done = Scripted(0.0), Collector()
    engine.confidences[0] = 0.2
    thread = WhisperThread(lambda: engine, 4.0)
    await thread.start(SPEECH, rtf=rtf)
    queue = JobQueue(10, thread.admission, thread.costs)
    for n in range(3):
        assert queue.try_put(Job(window=window(n), deliver=done))
    thread.serve(queue)
    assert (await done.have(1))[0].passes == passes
    queue.close()


async def test_second_passes_count_in_the_expected_pace() -> None:
    """Waiting windows are weighed with one pass each. So the pace has to know that some need two."""
    engine, done = Scripted(0.0, 0.02), Collector()
    engine.confidences = [0.2, 0.9, 0.9]
    thread, queue = await started(engine)
    for n in range(20):
        queue.try_put(Job(window=window(n), deliver=done))
        await done.have(n + 1)
    assert thread.speed.expected(engine.work(16_000)) > 0.038
    queue.close()
