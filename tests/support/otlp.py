"""A collector for the tests: a real OTLP gRPC receiver that keeps what it is sent; and a run of the daemon under it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import math
import socket
import tempfile
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc
import numpy as np
from harness import PATIENCE, Client, Daemon, NatsServer, Speech, s16
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from places import DATA

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
    from opentelemetry.proto.trace.v1.trace_pb2 import Span

Attributes = frozenset[tuple[str, Any]]

# The contexts of the producer's three chunks: trace id, span id.
CONTEXTS = (
    ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"),
    ("1bf7651916cd43dd8448eb211c80319d", "c7ad6b7169203332"),
    ("2cf7651916cd43dd8448eb211c80319e", "d7ad6b7169203333"),
)
# One thread, and no measuring at start: whisper.cpp's threads spin, and cores that other tests use cost them dearly.
CALM = {"WHISPER_THREADS": "1", "WHISPER_RTF": "0.1", "TRANSCRIPTION_MAX_LATENCY_SECS": "120"}
_TRACEPARENTS = [f"00-{trace}-{span}-01" for trace, span in CONTEXTS]


class Collector:
    """Listens on a free loopback port. Everything it keeps is touched on the event loop alone."""

    def __init__(self) -> None:
        self.exports: list[dict[str, Metric]] = []  # one per request, metrics by name
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []  # one per request, of either kind
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(2)
        self._server = grpc.server(self._threads)
        add_MetricsServiceServicer_to_server(_Metrics(self._hand_over), self._server)
        add_TraceServiceServicer_to_server(_Traces(self._hand_over), self._server)
        self.endpoint = f"http://127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"
        self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self._server.stop(None).wait)
        self._threads.shutdown()

    def _hand_over(self, request: ExportMetricsServiceRequest | ExportTraceServiceRequest) -> None:
        self._loop.call_soon_threadsafe(self.take, request)

    def take(self, request: ExportMetricsServiceRequest | ExportTraceServiceRequest) -> None:
        """Keep one request."""
        if isinstance(request, ExportMetricsServiceRequest):
            scopes = [scope for resource in request.resource_metrics for scope in resource.scope_metrics]
            self.exports.append({metric.name: metric for scope in scopes for metric in scope.metrics})
            self.resources += [attributes(r.resource.attributes) for r in request.resource_metrics]
        else:
            self.spans += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
            self.resources += [attributes(r.resource.attributes) for r in request.resource_spans]
        self._changed.set()

    async def until(self, wanted: Callable[[Self], bool], patience: float = PATIENCE) -> None:
        """Wait until what was received fits."""
        async with asyncio.timeout(patience):
            while not wanted(self):
                self._changed.clear()
                await self._changed.wait()

    @property
    def metrics(self) -> dict[str, Metric]:
        """The last export: cumulative, so it holds everything but exemplars, each of which is exported once."""
        return self.exports[-1] if self.exports else {}

    def value(self, name: str, **wanted: str) -> float:
        """The sum over the last points of a metric that have these attributes; 0.0 without any."""
        return total(self.metrics, name, **wanted)


def total(export: Mapping[str, Metric], name: str, **wanted: str) -> float:
    """The sum over a metric's points that have these attributes; 0.0 without any."""
    if name not in export:
        return 0.0
    return sum(value for found, value in points(export[name]) if found >= set(wanted.items()))


def points(metric: Metric) -> list[tuple[Attributes, float]]:
    """Attributes and value (of a histogram, the count) of every point of a metric."""
    found = data(metric).data_points
    return [
        (
            frozenset(attributes(p.attributes).items()),
            p.count if metric.HasField("histogram") else getattr(p, p.WhichOneof("value")),
        )
        for p in found
    ]


def data(metric: Metric) -> Any:
    """The data of a metric, with its points: a Gauge, Sum or Histogram."""
    return getattr(metric, metric.WhichOneof("data"))


def attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}


class _Metrics(MetricsServiceServicer):
    def __init__(self, take: Callable[[ExportMetricsServiceRequest], None]) -> None:
        self._take = take

    def Export(self, request, _context):  # noqa: N802 - the service's name for it
        self._take(request)
        return ExportMetricsServiceResponse()


class _Traces(TraceServiceServicer):
    def __init__(self, take: Callable[[ExportTraceServiceRequest], None]) -> None:
        self._take = take

    def Export(self, request, _context):  # noqa: N802 - the service's name for it
        self._take(request)
        return ExportTraceServiceResponse()


@contextlib.asynccontextmanager
async def http_receiver(collector: Collector) -> AsyncIterator[str]:
    """OTLP over HTTP in its smallest form: what is posted to /v1/metrics and /v1/traces goes to `collector`."""
    kinds = {"/v1/metrics": ExportMetricsServiceRequest, "/v1/traces": ExportTraceServiceRequest}

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        path = (await reader.readline()).decode().split()[1]
        length = 0
        while line := (await reader.readline()).decode().strip():
            name, _, value = line.partition(":")
            length = int(value) if name.lower() == "content-length" else length
        collector.take(kinds[path].FromString(await reader.readexactly(length)))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    server.close()
    await server.wait_closed()


@contextlib.contextmanager
def nobody(*, listening: bool) -> Iterator[str]:
    """A collector that is away: connections are refused, or (`listening`) made by the kernel and never answered."""
    with socket.socket() as port:
        port.bind(("127.0.0.1", 0))
        if listening:
            port.listen()
        yield f"http://127.0.0.1:{port.getsockname()[1]}"


@dataclass(frozen=True)
class Run:
    """Everything that one run of the daemon produced."""

    collector: Collector
    client: Client
    daemon: Daemon
    exit_code: int


@functools.cache
def recorded_run() -> Run:
    """Three streams: `traced` speaks, into a queue that holds one job; `quiet` does not; `bad` breaks the protocol."""
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_run(Path(folder)))


async def _run(folder: Path) -> Run:
    with NatsServer(folder) as server:
        async with Collector() as collector, Client(server.url) as client:
            environ = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": collector.endpoint,
                "OTEL_METRIC_EXPORT_INTERVAL": "100",
                "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
                "TRANSCRIPTION_QUEUE_CAPACITY": "1",
                "STREAM_TIMEOUT_SECS": "300",  # no window closes because the machine is slow
            }
            async with Daemon(server.url, **CALM, **environ) as daemon:
                await _speak(client, collector)
                await _be_quiet(client)
                await client.send(b"..", subject="audio.n@me")
                await client.send(b"odd", subject="audio.bad")
                await client.until_type("rejected", stream="bad")
                await client.until_type("ended", stream="traced")
                await client.until_type("ended", stream="quiet")
                return Run(collector, client, daemon, await daemon.stop())


async def _speak(client: Client, collector: Collector) -> None:
    """One utterance in two chunks of two traces; then six in one chunk: the first gets into the queue and fills it."""
    speech = Speech.load(DATA / "heldout").cut(0, 7)
    pcm, rate = s16(speech.samples), speech.rate
    half, whole = (round(speech.rows[0]["end"] * rate * part) * 2 for part in (0.5, 1.0))
    headers = {"subject": "audio.traced", "audio_sample_rate": rate, "audio_session": "t"}
    await client.send(pcm[:half], traceparent=_TRACEPARENTS[0], **headers)
    await collector.until(lambda c: c.value("transcriber.buffer.size") > 0)
    await client.send(pcm[half:whole], traceparent=_TRACEPARENTS[1], audio_event="flush", **headers)
    await client.until_type("final", stream="traced")
    await client.send(pcm[whole:], traceparent=_TRACEPARENTS[2], audio_event="end", **headers)


async def _be_quiet(client: Client) -> None:
    """Half a second without speech, in two chunks, with three samples that are no numbers or out of range."""
    silence = np.zeros(4000, "<f4")
    broken = silence.copy()
    broken[:3] = math.nan, math.inf, 1e38
    headers = {"subject": "audio.quiet", "audio_sample_rate": 16_000, "audio_encoding": "pcm_f32le"}
    await client.send(broken.tobytes(), **headers)
    await client.send(silence.tobytes(), audio_event="end", **headers)
