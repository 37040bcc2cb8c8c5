"""The gateway's benchmark: every chunk is counted, every client let in."""

from __future__ import annotations

from pathlib import Path

from benchmarks_run import bench, check_frame


def test_gateway_is_measured_with_every_chunk_counted(tmp_path: Path) -> None:
    arguments = ("--idle", "100", "--live", "5", "--seconds", "1", "--reconnects", "50")
    found, out = bench(tmp_path, "gateway", *arguments)
    check_frame(found, "gateway")
    figures = found["figures"]
    assert figures["idle"]["refused"] == figures["idle"]["closed"] == figures["reconnects"]["refused"] == 0
    assert figures["idle"]["total_bytes"] > figures["base_bytes"] > 10_000_000
    live = figures["live"]
    assert live["chunks"] == live["sent"] == 50
    assert live["lost"] == live["closed"] == 0
    for way in ("in", "out"):
        assert 0 < live[way]["p50"] <= live[way]["p99"]
    assert live["out"]["n"] == 5
    assert "an idle client" in out
