"""Reads the settings that the daemon and the gateway share: NATS, the log, telemetry, the time to stop."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from transcriber import __version__
from transcriber.broker.options import BrokerOptions
from transcriber.domain.errors import SettingError
from transcriber.protocol import partitions
from transcriber.telemetry.logs import LogFormat
from transcriber.telemetry.providers import TelemetryOptions

if TYPE_CHECKING:
    from transcriber.settings.reader import Reader

_SERVER = re.compile(r"((nats|tls|wss?)://)?(\S*@)?(\[[0-9a-fA-F:.]+\]|[^\s:/@\[\]]+)(:[0-9]{1,5})?/?")


def shutdown_grace(r: Reader) -> float:
    """Seconds to finish after SIGTERM."""
    return r.number("SHUTDOWN_GRACE_SECS", 25.0, 0, 3600)


def fleet(r: Reader) -> partitions.FleetOptions | None:
    """The fleet that shares the streams; None without one."""
    name = r.matching("FLEET", "", partitions.NAME, "1 to 32 of A-Z, a-z, 0-9, _ and -")
    count = r.whole("FLEET_PARTITIONS", partitions.PARTITIONS, 1, partitions.MOST_PARTITIONS)
    return partitions.FleetOptions(name, count) if name else None


def log_level(r: Reader) -> str:
    """The least level of a log line."""
    return r.choice("LOG_LEVEL", "INFO", "DEBUG", "INFO", "WARNING", "ERROR")


def log_format(r: Reader) -> LogFormat:
    """JSON or text."""
    return LogFormat(r.choice("LOG_FORMAT", "json", *LogFormat))


def broker(r: Reader) -> BrokerOptions:
    """Where NATS is, and who we are there."""
    url = r.text("NATS_URL", BrokerOptions().url)
    given = BrokerOptions(url=url)
    if not all(_SERVER.fullmatch(server) for server in given.servers):
        # Without user and password, because error messages end up in logs.
        raise SettingError("NATS_URL", given.address, "nats://, tls://, ws:// or wss://host:port, several with commas")
    return BrokerOptions(
        url=url,
        user=r.text("NATS_USER"),
        password=r.text("NATS_PASSWORD"),
        token=r.text("NATS_TOKEN"),
        creds=r.text("NATS_CREDS"),
        nkey=r.text("NATS_NKEY"),
        ca=r.text("NATS_CA"),
        cert=r.text("NATS_CERT"),
        key=r.text("NATS_KEY"),
        connect_timeout=r.number("NATS_CONNECT_TIMEOUT_SECS", 30.0, 0.1, 3600),
        reconnect_timeout=r.number("NATS_RECONNECT_TIMEOUT_SECS", 120.0, 0.1, 86_400),
    )


def telemetry(r: Reader) -> TelemetryOptions:
    """Exporters default to `otlp` if an endpoint is set, else to `none`: no collector on localhost is assumed."""
    anywhere = r.raw("OTEL_EXPORTER_OTLP_ENDPOINT")
    protocol = r.choice("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc", "grpc", "http/protobuf")
    off = r.flag("OTEL_SDK_DISABLED")

    def exporter(signal: str) -> str:
        endpoint = r.raw(f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT") or anywhere
        kinds = ("otlp", "console", "none", *(("prometheus",) if signal == "METRICS" else ()))
        chosen = r.choice(f"OTEL_{signal}_EXPORTER", "otlp" if endpoint else "none", *kinds)
        return "none" if off else chosen

    def spoken(signal: str) -> str:
        return r.choice(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", protocol, "grpc", "http/protobuf")

    timeouts = [r.raw(f"OTEL_EXPORTER_OTLP_{signal}TIMEOUT") for signal in ("", "METRICS_", "TRACES_")]
    return TelemetryOptions(
        metrics_exporter=exporter("METRICS"),
        traces_exporter=exporter("TRACES"),
        metrics_protocol=spoken("METRICS"),
        traces_protocol=spoken("TRACES"),
        timeout=None if any(timeouts) else 2.0,
        version=__version__,
    )
