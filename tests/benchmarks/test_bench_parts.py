"""The parts of the benchmarks: material, plans, random weights, and the arithmetic of their figures."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jiwer
import numpy as np
import psutil
import pytest
from harness import NatsServer, Speech

from benchmarks import chart, latency, machine, speech, weights
from benchmarks.calibrate import Cost
from benchmarks.load import Plan, publish
from benchmarks.report import percentiles, table
from benchmarks.rig import Played, environ_for
from benchmarks.words import errors
from transcriber import settings
from transcriber.audio.segmenter import StreamOptions
from transcriber.broker.connection import Connection
from transcriber.domain.errors import CannotStart
from transcriber.models import store
from transcriber.models.ggml import check_model_file
from transcriber.worker.engine import WhisperOptions
from transcriber.worker.engines.whispercpp import WhisperCppEngine


def test_half_of_the_half_silent_material_is_silence() -> None:
    """Its utterances, with the margin around them, are as long as its pauses."""
    material = speech.half_silent(20)
    spoken = sum(u.end - u.start + 0.2 for u in material.utterances)
    assert material.seconds >= 20
    assert spoken / material.seconds == pytest.approx(0.5, abs=0.01)


def test_material_has_its_utterances_where_it_says(demo_speech: Speech) -> None:
    """The utterances are as loud as in the recording, and the pauses as quiet."""
    for material in (speech.half_silent(8), speech.speech_alone(40)):
        assert material.words.startswith(demo_speech.rows[0]["words"])
        for u, row in zip(material.utterances, demo_speech.rows * 2, strict=False):
            original = demo_speech.samples[round(row["start"] * 48_000) : round(row["end"] * 48_000)]
            assert np.array_equal(material.cut(u.start, u.end)[: len(original) - 1], original[:-1])
    quiet = speech.half_silent(8)
    first, second = quiet.utterances[:2]
    assert np.abs(quiet.cut(first.end + 0.1, second.start - 0.1)).max() < 0.01


def test_windows_are_the_daemons_own(demo_speech: Speech) -> None:
    """There is one window for each utterance of the recording."""
    windows = speech.windows(speech.recording(), StreamOptions())
    assert len(windows) == len(demo_speech.rows)


def test_lengthened_material_adds_background_only() -> None:
    """The end is as quiet as the pauses, and nothing is cut off."""
    source = speech.recording()
    longer = speech.lengthened(source, source.seconds + 5)
    assert longer.seconds == pytest.approx(source.seconds + 5)
    assert np.abs(longer.samples[len(source.samples) :]).max() < 0.01
    assert len(speech.lengthened(source, 1.0).samples) == len(source.samples)


def test_material_at_another_rate_is_as_long_and_as_loud() -> None:
    """Utterances stay where they are. At its own rate the material does not change."""
    source = speech.recording()
    assert speech.resampled(source, source.rate) is source
    low = speech.resampled(source, 16_000)
    assert (low.rate, low.utterances) == (16_000, source.utterances)
    assert low.seconds == pytest.approx(source.seconds, abs=1e-3)
    first = source.utterances[0]
    assert np.std(low.cut(first.start, first.end)) == pytest.approx(np.std(source.cut(first.start, first.end)), rel=0.1)


def test_plan_knows_which_utterance_is_where() -> None:
    """An utterance in which a stream begins or ends does not count. The cycle repeats."""
    plan = Plan(prefix="p", streams=2, seconds=25.0, chunk_ms=100, cycle=10.0)
    assert Plan.parse(str(plan)) == plan
    said = speech.Utterance(2.0, 4.0, "x")
    assert plan.spoken(0, said) == [(2.0, 4.0), (12.0, 14.0), (22.0, 24.0)]
    assert plan.phase(1) == 6.18
    assert [start for start, _ in plan.spoken(1, said)] == pytest.approx([5.82, 15.82])
    assert (plan.begin(0), plan.begin(1)) == (0.0, 0.05)
    assert Plan(prefix="p", streams=2, seconds=25.0, chunk_ms=100, cycle=10.0, in_step=True).begin(1) == 0.0
    assert [
        Plan(prefix="p", streams=2, seconds=25.0, chunk_ms=100, cycle=10.0, rate=rate).chunk_frames
        for rate in (48_000, 16_000)
    ] == [4800, 1600]


@pytest.mark.parametrize("nap", [0.001, 0.02])
async def test_no_chunk_goes_out_before_it_was_recorded(nats_server: NatsServer, nap: float) -> None:
    """Chunks that fall due in a pause of the generator go out late. Early ones would make text look too fast."""
    connection = Connection(settings.load({"NATS_URL": nats_server.url}).broker, name="test")
    await connection.open()
    late = await publish(
        Plan(prefix="p", streams=20, seconds=0.3, chunk_ms=10, cycle=31.0, nap=nap), connection, time.monotonic() + 0.2
    )
    await connection.close()
    assert len(late) == 600
    assert min(late) >= 0
    assert max(late) > nap / 2


@pytest.mark.parametrize("load", [0.05, 0.3, 1.0, 5.0])
@pytest.mark.parametrize("seconds", [0.4, 8.0, 100.0])
def test_streams_make_the_load_exactly(load: float, seconds: float) -> None:
    """Streams are whole and as long as the recording at least. Their work is the load to the last digit."""
    cost = Cost(seconds, windows=8, recorded=31.0)
    streams, cycle = cost.streams(load)
    assert streams * seconds / cycle == pytest.approx(load)
    assert cycle >= 31.0 - 1e-9


def test_latencies_count_from_what_was_recorded() -> None:
    """From an utterance's end to its final, and from its start to the first partial of its window."""
    plan = Plan(prefix="bench", streams=1, seconds=8.0, chunk_ms=100, cycle=speech.recording().seconds)
    played = Played(plan, begin=100.0)
    first, second = speech.recording().utterances[:2]
    window = {"stream": "bench-0", "start": first.start - 0.3, "end": first.end + 0.2}
    played.messages = [
        (100.0 + first.start + 1.0, {"type": "partial", **window}),
        (100.0 + first.start + 2.0, {"type": "partial", **window}),
        (100.0 + first.end + 0.6, {"type": "final", **window}),
    ]
    assert second.end + 1.0 > plan.audio_seconds or len(latency.utterances(played)[0]) == 2
    finals, partials = latency.delays(played)
    assert finals == pytest.approx([0.6])
    assert partials == pytest.approx([1.0])


def test_windows_that_only_the_end_closes_are_not_counted() -> None:
    """They all end at once, unlike those of independent producers."""
    played = Played(Plan(prefix="bench", streams=1, seconds=10.0, chunk_ms=100, cycle=31.0))
    played.messages = [(0.0, {"type": "gap", "end": end, "reason": "queue_full"}) for end in (3.0, 9.0, 9.5, 10.0)]
    assert played.dropped() == {"queue_full": 2}


@pytest.mark.parametrize(
    "heard", ["", "close the valve", "please close the valves at at sixty", "percent sixty at valve the close please"]
)
def test_the_word_error_rate_is_the_usual_one(heard: str) -> None:
    """As jiwer computes it; capitals and punctuation cost nothing."""
    said = "please close the valve at sixty percent"
    assert errors(said, heard).rate == pytest.approx(jiwer.wer(said, heard))
    assert errors(said, "Please, close the valve at sixty percent.").wrong == 0


def test_random_weights_make_a_model_of_the_official_size(tmp_path: Path) -> None:
    """The file is complete and one token smaller than the published one. It says eleven tokens and stops."""
    path = tmp_path / "tiny.bin"
    weights.write_random(path, "tiny")
    header = check_model_file(path)
    assert (header.size, header.weights) == ("tiny", "f16")
    assert store.MODELS["tiny.en"].size - path.stat().st_size == 4 + len("<|endoftext|>")
    engine = WhisperCppEngine(WhisperOptions(path=path, threads=1, audio_ctx=512))
    for seconds in (1, 3):
        (segment,) = engine.transcribe(np.zeros(seconds * 16_000, np.float32), None).segments
        assert 6 <= len(segment.words) <= 11


def test_cpu_time_is_what_the_system_counts() -> None:
    """The two readings may differ by 20 ms."""
    me = psutil.Process()
    begin = time.process_time()
    while time.process_time() < begin + 0.05:
        pass
    assert machine.cpu_seconds(me.pid) == pytest.approx(sum(me.cpu_times()[:2]), abs=0.02)
    assert machine.memory_bytes(me.pid) > 10_000_000


def test_a_missing_matplotlib_names_the_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes before anything is measured."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(CannotStart, match=r"pip install --group bench"):
        chart.check()


def test_a_chart_draws_loads_without_values_as_holes(tmp_path: Path) -> None:
    """A load at which nothing arrived has no point, and its drops are still shown."""
    pytest.importorskip("matplotlib")
    loads = [
        {"load": load, "offered": 10, "dropped": {"queue_full": drops}, "goodput": 0.9, "lateness": late}
        for load, drops, late in ((1.0, 1, percentiles([0.5], 50, 100)), (2.0, 10, percentiles([], 50, 100)))
    ]
    settings = {"model": "m", "threads": 1, "max_latency": 2.0}
    chart.draw(SimpleNamespace(figures={"loads": loads}, settings=settings), tmp_path / "chart.svg")
    text = (tmp_path / "chart.svg").read_text()
    for name in ("L_max", "dropped: queue_full", "goodput"):
        assert name in text


def test_report_aligns_figures_and_shows_missing_ones() -> None:
    """Names are on the left, figures on the right. Percentiles of nothing are shown as missing."""
    assert table(("load", "n"), [("1", "10"), ("100", "5")]) == "load   n\n1     10\n100    5"
    assert percentiles([], 50) == {"p50": None, "n": 0}
    assert percentiles([1.0, 3.0], 50, 100) == {"p50": 2.0, "p100": 3.0, "n": 2}


def test_the_users_server_keeps_the_users_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """With `--url`, NATS settings reach the child processes. Without it they are not passed to our own server."""
    monkeypatch.setenv("NATS_USER", "me")
    monkeypatch.setenv("NATS_URL", "nats://elsewhere")
    ours, theirs = environ_for(None), environ_for("nats://there", WHISPER_THREADS="3")
    assert "NATS_USER" not in ours
    assert "NATS_URL" not in ours
    assert (theirs["NATS_USER"], theirs["NATS_URL"], theirs["WHISPER_THREADS"]) == ("me", "nats://there", "3")
