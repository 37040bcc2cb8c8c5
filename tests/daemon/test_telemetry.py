"""Which exporter is chosen, how it names us, and what the daemon does when its collector is away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable

import numpy as np
import pytest
from harness import Client, Daemon, NatsServer, Speech, s16
from otlp import CALM, Collector, http_receiver, nobody
from places import SUPPORT

from transcriber import settings
from transcriber.domain.errors import CannotStart
from transcriber.domain.measurements import Snapshot, Tallies
from transcriber.domain.results import Latency
from transcriber.domain.timeline import Origin, Window
from transcriber.telemetry.observer import Telemetry

Start = Callable[..., Telemetry]

SNAPSHOT = Snapshot(queue_depth=0, queue_capacity=1, busy=0.0, rtf=0.1, buffered=0.0)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with Collector() as receiver:
        yield receiver


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Telemetry as the settings make it of these OTEL_* variables."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)

    def _start(**environ: str) -> Telemetry:
        for name, value in environ.items():
            monkeypatch.setenv(name, value)
        return Telemetry(
            settings.load().telemetry,
            Tallies(),
            lambda: SNAPSHOT,
        )

    return _start


def trace_one_window(telemetry: Telemetry) -> None:
    telemetry.start(
        Window(origin=Origin("radio", "s"), sequence=0, start=0, end=16_000, samples=np.zeros(16_000, np.float32))
    ).end("transcribed")
    telemetry.record("radio", Latency(0.1, 0.2, 0.3))


async def test_the_last_figures_are_flushed_at_shutdown(start: Start, collector: Collector) -> None:
    """Shutdown hands over the metrics and the open batch of spans, long before the first interval is over."""
    telemetry = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint)
    trace_one_window(telemetry)
    assert await telemetry.shutdown()
    await collector.until(lambda c: bool(c.exports and c.spans))
    assert len(collector.exports) == len(collector.spans) == 1
    assert collector.value("transcriber.end_to_end.latency_ms", stream="radio") == 1


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, {"service.name": "transcriber"}),
        ({"OTEL_SERVICE_NAME": "scribe"}, {"service.name": "scribe"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "team=audio"}, {"service.name": "transcriber", "team": "audio"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a,team=audio"}, {"service.name": "a", "team": "audio"}),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.name=a", "OTEL_SERVICE_NAME": "b"}, {"service.name": "b"}),
    ],
    ids=["neither", "name", "attributes", "name in attributes", "both"],
)
async def test_the_resource_is_what_the_standard_variables_say(
    start: Start, collector: Collector, environ: dict[str, str], expected: dict[str, str]
) -> None:
    """Name and attributes come from OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES.

    The default name is `transcriber`.
    """
    telemetry = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **environ)
    trace_one_window(telemetry)
    assert await telemetry.shutdown()
    await collector.until(lambda c: bool(c.exports and c.spans))
    assert len(collector.resources) == 2
    assert all(resource.items() >= expected.items() for resource in collector.resources)


async def test_http_protobuf_is_spoken_when_asked_for(start: Start) -> None:
    """OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf sends the same metrics and spans by HTTP."""
    received = Collector()
    async with http_receiver(received) as endpoint:
        telemetry = start(OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
        trace_one_window(telemetry)
        assert await telemetry.shutdown()
    assert received.value("transcriber.queue.capacity") == 1
    assert [span.name for span in received.spans] == ["window"]


async def test_each_signal_may_have_its_own_endpoint_and_protocol(start: Start, collector: Collector) -> None:
    """Traces by HTTP to one place, metrics by gRPC to another."""
    received = Collector()
    async with http_receiver(received) as endpoint:
        telemetry = start(
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=collector.endpoint,
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{endpoint}/v1/traces",
            OTEL_EXPORTER_OTLP_TRACES_PROTOCOL="http/protobuf",
        )
        trace_one_window(telemetry)
        assert await telemetry.shutdown()
    await collector.until(lambda c: bool(c.exports))
    assert (len(received.exports), len(received.spans)) == (0, 1)
    assert (len(collector.exports), len(collector.spans)) == (1, 0)


@pytest.mark.parametrize(
    ("environ", "metrics", "spans"),
    [
        ({"OTEL_SDK_DISABLED": "true"}, 0, 0),
        ({"OTEL_METRICS_EXPORTER": "none"}, 0, 1),
        ({"OTEL_TRACES_EXPORTER": "none"}, 1, 0),
    ],
    ids=["all", "metrics", "traces"],
)
async def test_disabled_signals_are_not_sent(
    start: Start, collector: Collector, environ: dict[str, str], metrics: int, spans: int
) -> None:
    """OTEL_SDK_DISABLED silences both signals, an exporter of `none` its own. The rest is delivered."""
    telemetry = start(OTEL_EXPORTER_OTLP_ENDPOINT=collector.endpoint, **environ)
    trace_one_window(telemetry)
    assert await telemetry.shutdown()
    await collector.until(lambda c: (len(c.exports), len(c.spans)) == (metrics, spans))


def test_the_console_exporter_writes_one_json_object_a_line() -> None:
    """Metrics and spans on standard output do not break the log's rule that a line is a JSON object."""
    script = (
        "import asyncio, test_telemetry as t; from transcriber import settings\n"
        "telemetry = t.Telemetry(settings.load().telemetry, t.Tallies(), lambda: t.SNAPSHOT)\n"
        "t.trace_one_window(telemetry)\n"
        "asyncio.run(telemetry.shutdown())\n"
    )
    environ = os.environ | {"OTEL_METRICS_EXPORTER": "console", "OTEL_TRACES_EXPORTER": "console"}
    environ["PYTHONPATH"] = str(SUPPORT)
    folder = os.path.dirname(__file__)  # noqa: PTH120 - of this module, for the script's import
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=folder, env=environ
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert sorted("resource_metrics" in line for line in lines) == [False, True]
    assert [line["name"] for line in lines if "name" in line] == ["window"]


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_METRIC_EXPORT_INTERVAL=0",
        "OTEL_EXPORTER_OTLP_TIMEOUT=soon",
        "OTEL_EXPORTER_OTLP_COMPRESSION=zstd",
        "OTEL_BSP_MAX_QUEUE_SIZE=0",
    ],
)
def test_otel_setting_that_the_sdk_refuses_stops_the_start(start: Start, variable: str) -> None:
    """A bad OTEL_* value is one sentence, not a traceback from within the SDK."""
    name, _, value = variable.partition("=")
    with pytest.raises(CannotStart, match=r"OTEL_\* setting: ."):
        start(OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:4317", **{name: value})


async def transcribe_and_stop(client: Client, daemon: Daemon, speech: Speech) -> float:
    """All speech becomes text at once and SIGTERM ends cleanly; returns the seconds that the end took."""
    headers = {"audio_sample_rate": speech.rate, "audio_session": "s", "audio_event": "end"}
    await client.send(s16(speech.samples), **headers)
    ended = await client.until_type("ended")
    assert ended["gap"] == {}
    assert len(client.of("final")) >= len(speech.rows)
    for latency in (body["latency"] for body in client.of("final")):
        assert latency["end_to_end"] - latency["queue"] - latency["processing"] < 1
    before = time.monotonic()
    assert await daemon.stop() == 0
    assert daemon.stderr == ""
    return time.monotonic() - before


async def test_a_collector_that_refuses_connections_costs_nothing(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """Text comes as ever, SIGTERM ends the daemon in time, and the log has each complaint once."""
    quick = {"OTEL_METRIC_EXPORT_INTERVAL": "50", "OTEL_BSP_SCHEDULE_DELAY": "50"}
    with nobody(listening=False) as endpoint:
        async with Daemon(nats_server.url, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **CALM, **quick) as daemon:
            await daemon.logged("Failed to export")
            assert await transcribe_and_stop(client, daemon, heldout.cut(0, 4)) < 4  # 2 s, on a machine others use
    complaints = Counter(r["message"][:16] for r in daemon.records if r["logger"].startswith("opentelemetry."))
    assert complaints["Failed to export"] == 1
    assert set(complaints.values()) == {1}


async def test_a_collector_that_never_answers_costs_nothing(
    nats_server: NatsServer, client: Client, heldout: Speech
) -> None:
    """The exporter is told to wait a minute for it. Our own deadline at the end still holds."""
    patient = {"OTEL_METRIC_EXPORT_INTERVAL": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "60"}
    with nobody(listening=True) as endpoint:
        async with Daemon(nats_server.url, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **CALM, **patient) as daemon:
            assert await transcribe_and_stop(client, daemon, heldout.cut(0, 4)) < 4  # 2 s, on a machine others use
    assert any(r["message"].startswith("telemetry was not flushed") for r in daemon.records)
