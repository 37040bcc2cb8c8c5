"""What Prometheus scrapes from a daemon: its text format, under the names that alert rules use."""

from __future__ import annotations

import asyncio
import re
import urllib.request

import pytest
from harness import QUICK, Client, Daemon, NatsServer, Speech, s16
from metric_names import OURS, PROMISED
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from transcriber.telemetry.exposition import exposition


def test_kinds_labels_and_numbers_are_written_as_prometheus_reads_them() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter("test")
    assert exposition(reader) == ""
    meter.create_counter("a.jobs", "{job}", "Jobs").add(3, {"cpu.mode": 'a "b"\\c\nd'})
    meter.create_gauge("a.share", "1", "A share").set(0.25)
    meter.create_up_down_counter("a.size", "By", "A size").add(-2)
    histogram = meter.create_histogram("a.ms", "ms", "Time", explicit_bucket_boundaries_advisory=(5, 10))
    for value in (5, 7.5, 11):
        histogram.record(value, {"stream": "s"})
    assert exposition(reader).splitlines() == [
        "# HELP a_jobs Jobs",
        "# TYPE a_jobs counter",
        r'a_jobs{cpu_mode="a \"b\"\\c\nd"} 3',
        "# HELP a_share A share",
        "# TYPE a_share gauge",
        "a_share 0.25",
        "# HELP a_size A size",
        "# TYPE a_size gauge",
        "a_size -2",
        "# HELP a_ms Time",
        "# TYPE a_ms histogram",
        'a_ms_bucket{stream="s",le="5"} 1',
        'a_ms_bucket{stream="s",le="10"} 2',
        'a_ms_bucket{stream="s",le="+Inf"} 3',
        'a_ms_sum{stream="s"} 23.5',
        'a_ms_count{stream="s"} 3',
    ]


async def test_a_daemon_is_scraped_for_every_metric(nats_server: NatsServer, heldout: Speech) -> None:
    """No collector needed; the names are those that a collector without suffixes gives."""
    speech = heldout.cut(0, 1)
    environ = QUICK | {"OTEL_METRICS_EXPORTER": "prometheus"}
    async with Client(nats_server.url) as client, Daemon(nats_server.url, **environ) as daemon:
        await client.send(s16(speech.samples), audio_sample_rate=speech.rate, audio_event="end")
        await client.until_type("ended")
        text = await asyncio.to_thread(scrape, (await daemon.logged("starting"))["health_port"])
    named = {name.replace(".", "_") for name in PROMISED | OURS}
    assert named <= set(re.findall(r"^# TYPE (\S+) ", text, re.MULTILINE))
    received = float(re.search(r'^transcriber_audio_seconds{.*fate="received".*} (.*)$', text, re.MULTILINE)[1])
    assert received == pytest.approx(len(speech.samples) / speech.rate, abs=1e-3)
    assert "transcriber_max_latency_ms 20000\n" in text


async def test_without_the_setting_there_is_nothing_to_scrape(nats_server: NatsServer) -> None:
    async with Daemon(nats_server.url, **QUICK) as daemon:
        assert await daemon.probe("/metrics") == 404


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())
