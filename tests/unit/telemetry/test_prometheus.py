"""What Prometheus scrapes from a daemon: its text format, under the names that alert rules use."""

from __future__ import annotations

import asyncio
import re
import threading
import urllib.request
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest
from harness import QUICK, Client, Daemon, NatsServer, Speech, s16
from metric_names import FLEET, GATEWAY, OURS, PROMISED, scraped_name
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.resources import Resource
from places import ROOT

from transcriber.telemetry.prometheus import RATIOS, Scraped

TYPES = {"gauge": "gauge", "up-down counter": "gauge", "counter": "counter", "histogram": "histogram"}


@pytest.fixture
def scraped() -> Scraped:
    return Scraped()


@pytest.fixture
def meters(scraped: Scraped) -> MeterProvider:
    resource = Resource({"service.name": "transcriber", "service.version": "1"})
    return MeterProvider([scraped.reader], resource, shutdown_on_exit=False, views=scraped.views)


def test_kinds_labels_and_numbers_are_as_prometheus_reads_them(scraped: Scraped, meters: MeterProvider) -> None:
    meter = meters.get_meter("test")
    assert scraped.text() == ""
    meter.create_counter("a.jobs", "{job}", "Jobs").add(3, {"cpu.mode": 'a "b"\\c\nd'})
    meter.create_gauge("a.age", "s", "An age").set(0.25)
    meter.create_up_down_counter("a.size", "By", "A size").add(-2)
    meter.create_gauge("transcriber.rtf", "1", "A share").set(0.5)
    histogram = meter.create_histogram("a.wait", "ms", "Time", explicit_bucket_boundaries_advisory=(5, 10))
    for value in (5, 7.5, 11):
        histogram.record(value, {"stream": "s"})
    assert scraped.text().splitlines() == [
        "# HELP target_info Target metadata",
        "# TYPE target_info gauge",
        'target_info{service_name="transcriber",service_version="1"} 1.0',
        "# HELP a_jobs_total Jobs",
        "# TYPE a_jobs_total counter",
        r'a_jobs_total{cpu_mode="a \"b\"\\c\nd"} 3.0',
        "# HELP a_age_seconds An age",
        "# TYPE a_age_seconds gauge",
        "a_age_seconds 0.25",
        "# HELP a_size_bytes A size",
        "# TYPE a_size_bytes gauge",
        "a_size_bytes -2.0",
        "# HELP transcriber_rtf_ratio A share",
        "# TYPE transcriber_rtf_ratio gauge",
        "transcriber_rtf_ratio 0.5",
        "# HELP a_wait_milliseconds Time",
        "# TYPE a_wait_milliseconds histogram",
        'a_wait_milliseconds_bucket{le="5",stream="s"} 1.0',
        'a_wait_milliseconds_bucket{le="10",stream="s"} 2.0',
        'a_wait_milliseconds_bucket{le="+Inf",stream="s"} 3.0',
        'a_wait_milliseconds_count{stream="s"} 3.0',
        'a_wait_milliseconds_sum{stream="s"} 23.5',
    ]


def test_scrapes_at_the_same_time_each_get_everything() -> None:
    """The exporter alone would give all figures to the second scrape, and none to the first."""
    scraped, interrupted = Scraped(), threading.Event()
    second: list[Future[str]] = []
    with ThreadPoolExecutor() as pool:

        class Version(str):
            __slots__ = ()

            def __str__(self) -> str:
                if not interrupted.is_set():  # the first scrape is under way: it has collected, and not written yet
                    interrupted.set()
                    second.append(pool.submit(scraped.text))
                    wait(second, 0.2)  # time enough to come in between; it must not
                return "1"

        resource = Resource({"service.version": Version("1")})
        meters = MeterProvider([scraped.reader], resource, shutdown_on_exit=False, views=scraped.views)
        meters.get_meter("test").create_counter("a.jobs").add(7)
        texts = [scraped.text(), second[0].result()]
    assert [text.splitlines().count("a_jobs_total 7.0") for text in texts] == [1, 1]


def test_two_daemons_in_one_process_do_not_share_a_registry(scraped: Scraped, meters: MeterProvider) -> None:
    meters.get_meter("test").create_counter("a.jobs").add(1)
    assert "a_jobs_total" in scraped.text()
    assert Scraped().text() == ""


def test_gauges_without_a_unit_are_ratios() -> None:
    """The list that the exporter needs names all of them."""
    assert {name for name, (kind, unit, _) in (PROMISED | OURS).items() if (kind, unit) == ("gauge", "1")} == {*RATIOS}


def test_the_page_on_metrics_gives_both_names() -> None:
    """docs/metrics.md has every metric, with its names over OTLP and in Prometheus."""
    rows = [line.split(" | ") for line in (ROOT / "docs/metrics.md").read_text().splitlines() if line.startswith("| `")]
    names = {
        ours: theirs
        for row in rows
        for ours, theirs in zip(*(re.findall(r"`([^`]+)`", cell) for cell in row[:2]), strict=True)
    }
    assert names == {name: scraped_name(name) for name in PROMISED | OURS | GATEWAY | FLEET}


async def test_a_daemon_is_scraped_for_every_metric(nats_server: NatsServer, heldout: Speech) -> None:
    """No collector is needed. The names are those that a collector gives."""
    speech = heldout.cut(0, 1)
    environ = QUICK | {"OTEL_METRICS_EXPORTER": "prometheus"}
    async with Client(nats_server.url) as client, Daemon(nats_server.url, **environ) as daemon:
        await client.send(s16(speech.samples), audio_sample_rate=speech.rate, audio_event="end")
        await client.until_type("ended")
        text = await asyncio.to_thread(scrape, (await daemon.logged("starting"))["health_port"])
    typed = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    expected = {scraped_name(name): TYPES[kind] for name, (kind, _, _) in (PROMISED | OURS).items()}
    assert typed == expected | {"target_info": "gauge"}
    received = float(re.search(r'^transcriber_audio_seconds_total{fate="received".*} (.*)$', text, re.MULTILINE)[1])
    assert received == pytest.approx(len(speech.samples) / speech.rate, abs=1e-3)
    assert "transcriber_max_latency_ms_milliseconds 20000.0\n" in text
    assert "otel_scope" not in text


async def test_metrics_path_is_404_without_the_setting(nats_server: NatsServer) -> None:
    async with Daemon(nats_server.url, **QUICK) as daemon:
        assert await daemon.probe("/metrics") == 404


def scrape(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return str(answer.read().decode())
