"""Each benchmark runs for a moment on the bundled model. Its figures must make sense, not be fast."""

from __future__ import annotations

from pathlib import Path

import pytest
from benchmarks_run import bench, check_frame


def test_engine_compares_plain_decoding_with_the_daemons(tmp_path: Path) -> None:
    """Each way has its CPU time and word errors. The ratios are quotients of these figures."""
    found, out = bench(tmp_path, "engine", "--seconds", "4", "--threads", "1")
    check_frame(found, "engine")
    for name, recording in found["figures"]["recordings"].items():
        assert recording["recorded_seconds"] >= 4
        ways = recording["ways"]
        # The one with the daemon's flags differs from the plain cuts as long as the daemon has no flash attention.
        assert set(ways) - {"plain_cuts_same_flags"} == {"plain_cuts", "plain_windows", "daemon"}
        assert all(way["cpu_seconds_a_second"] > 0 and 0 <= way["wer"] < 1 for way in ways.values())
        for way in set(ways) - {"daemon"}:
            ratio = ways[way]["cpu_seconds_a_second"] / ways["daemon"]["cpu_seconds_a_second"]
            assert found["ratios"][f"{way}_over_daemon_{name}"] == pytest.approx(ratio)
    worker = found["figures"]["worker"]
    assert found["ratios"]["worker_over_bare_engine"] == pytest.approx(worker["worker"] / worker["bare"])
    assert "plain cuts over daemon half silence" in out


@pytest.mark.slow
def test_engine_with_random_weights_says_so_and_knows_no_words(tmp_path: Path) -> None:
    """Nobody can take its figures for those of a real model, and there is no error rate."""
    found, out = bench(tmp_path, "engine", "--random-weights", "tiny", "--seconds", "1", "--threads", "1")
    assert "note: the model has random weights in the size of tiny" in out
    assert found["settings"]["model"] == "random-weights-tiny"
    ways = [way for recording in found["figures"]["recordings"].values() for way in recording["ways"].values()]
    assert {way["wer"] for way in ways} == {None}


def test_ingest_measures_daemon_and_floor_on_the_same_messages(tmp_path: Path) -> None:
    """Every message is counted and none is lost. The ratio is that of the two figures."""
    found, out = bench(tmp_path, "ingest", "--seconds", "2", "--streams", "5", "--chunk-ms", "100", "40")
    check_frame(found, "ingest")
    assert [f["chunk_ms"] for f in found["figures"]["loads"]] == [100, 40]
    for f in found["figures"]["loads"]:
        assert f["lost"] == 0
        assert f["messages"] == 5 * round((1 + 1 + f["chunk_ms"] / 1000) * 1000 / f["chunk_ms"])
        assert min(f["daemon_ms"], f["floor_ms"]) > 0
        assert found["ratios"][f"daemon_over_floor_{f['chunk_ms']}_ms"] == pytest.approx(f["daemon_ms"] / f["floor_ms"])
        assert 0 <= f["lag"]["p50"] <= f["lag"]["p99"] <= f["lag"]["max"]
        assert f["lag"]["n"] > 0
    assert 10_000 < found["figures"]["idle_stream_bytes"] < 1_000_000
    assert "memory per idle stream" in out


@pytest.mark.slow
def test_latency_finds_a_final_for_every_utterance(tmp_path: Path) -> None:
    """At a low load nothing is dropped, and no text is there before its utterance has ended."""
    found, out = bench(tmp_path, "latency", "--seconds", "6", "--loads", "0.2", "--threads", "1")
    check_frame(found, "latency")
    (low,) = found["figures"]["loads"]
    assert low["utterances"] > 0
    assert low["without_final"] + low["final"]["n"] == low["utterances"]
    assert low["without_final"] == sum(low["dropped"].values()) == 0
    assert 0 < low["final"]["p50"] <= low["final"]["p95"] <= low["final"]["p99"]
    assert low["partial"]["n"] <= low["utterances"]
    assert "20%" in out


@pytest.mark.slow
def test_overload_accounts_for_every_window(tmp_path: Path) -> None:
    """Offered = accepted + dropped, the audio adds up, and no text is later than L_max."""
    pytest.importorskip("matplotlib")
    chart = tmp_path / "chart.svg"
    arguments = ("--seconds", "8", "--loads", "0.3", "4", "--max-latency", "2", "--threads", "1")
    found, out = bench(tmp_path, "overload", *arguments, "--chart", str(chart))
    check_frame(found, "overload")
    low, high = found["figures"]["loads"]
    for f in (low, high):
        assert f["offered"] == f["accepted"] + sum(f["dropped"].values())
        assert set(f["dropped"]) <= {"queue_full", "deadline"}
        audio = f["audio"]
        assert audio["received"] == pytest.approx(audio["transcribed"] + audio["silent"] + sum(audio["gap"].values()))
        assert audio["received"] == pytest.approx(f["streams"] * 4.0)
        assert f["lateness"]["n"] == f["accepted"]
        assert f["alone"] > 0
    assert high["streams"] > low["streams"]
    assert sum(high["dropped"].values()) > 0
    assert low["busy"] < high["busy"] <= 1.1  # a final counts whole where it ends: a little more than all may be
    latest = max(f["lateness"]["p100"] for f in (low, high) if f["accepted"])
    assert latest <= 2
    assert found["ratios"]["latest_over_max_latency"] == pytest.approx(latest / 2)
    assert found["ratios"]["goodput_over_capacity_at_load_4"] == high["goodput"]
    assert chart.read_text().startswith("<?xml")
    assert "400%" in out


@pytest.mark.slow
def test_fairness_plays_streams_with_and_without_a_flood(tmp_path: Path) -> None:
    """Every utterance of the ordinary streams has its text both times, and the flood was one."""
    found, _ = bench(tmp_path, "fairness", "--seconds", "14", "--streams", "2", "--flood", "10", "--threads", "1")
    check_frame(found, "fairness")
    alone, crowded, flood = found["figures"]["loads"]
    assert alone["final"]["n"] == crowded["final"]["n"] > 0
    assert flood["finals"] + sum(flood["dropped"].values()) > crowded["finals"]
    allowed = 1.2 * alone["final"]["p95"] + found["figures"]["engine_seconds_a_window"]
    assert found["ratios"]["over_allowed"] == pytest.approx(crowded["final"]["p95"] / allowed)


@pytest.mark.slow
def test_durable_compares_a_backlog_with_live_audio(tmp_path: Path) -> None:
    """The same audio takes both ways. The ratios are quotients of the figures."""
    found, _ = bench(tmp_path, "durable", "--seconds", "20", "--threads", "1")
    check_frame(found, "durable")
    live, stored = found["figures"]["live"], found["figures"]["durable"]
    assert found["ratios"]["durable_over_live_throughput"] == pytest.approx(live["wall"] / stored["wall"])
    assert 0 < found["figures"]["resumed"]["seconds"] < 30
    assert 0 < stored["engine"] <= stored["wall"]


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("engine", "--model", "base.en", "--random-weights", "tiny"), 2, "not allowed with argument"),
        (("engine", "--model", "/nowhere/model.bin"), 3, "/nowhere/model.bin: no such file"),
        (("latency", "--chart", "/nowhere/chart.svg"), 3, "/nowhere/chart.svg: there is no such folder"),
        (("latency", "--loads", "0"), 2, "is not a number from 0.01 to 100"),
        (("overload", "--rate", "16001"), 2, "argument --rate: invalid choice: 16001 (choose from 8000, 16000"),
    ],
    ids=["two models", "no model", "no folder", "no load", "no rate"],
)
def test_bad_options_are_refused_by_their_name(
    tmp_path: Path, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    """Nothing is measured, and the message says what was wrong."""
    _, err = bench(tmp_path, *arguments, code=code)
    assert complaint in err


@pytest.mark.slow
def test_recovery_reports_windows_late_after_others_took_cpu(tmp_path: Path) -> None:
    """No final is later than L_max, whatever the machine does. What was late is a gap."""
    found, _ = bench(tmp_path, "recovery", "--seconds", "10", "--hogs", "2", "--threads", "1")
    check_frame(found, "recovery")
    assert found["settings"]["hogs"] == 2
    assert found["figures"]["engine_before"]["n"] > 0
    assert 0 < found["ratios"]["latest_over_max_latency"] <= 1
    assert found["figures"]["recovered"] == 0 or found["figures"]["deadline_gaps"] > 0
