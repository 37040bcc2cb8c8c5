"""The gateway's options."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from transcriber.broker.options import BrokerOptions
from transcriber.telemetry.logs import LogFormat
from transcriber.telemetry.providers import TelemetryOptions

if TYPE_CHECKING:
    from pathlib import Path

    from transcriber.protocol.partitions import FleetOptions


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayOptions:
    """Where the gateway listens, whom it serves, and how much it takes."""

    host: str = "127.0.0.1"
    port: int = 8081  # 0 takes a free one
    keys: Path | None = None  # a file of hashed keys
    open: bool = False  # GATEWAY_AUTH=none: serve everybody
    token_secret: str = field(default="", repr=False)  # signs tokens for browsers; empty: a random one
    origins: frozenset[str] = frozenset()  # whose pages may call, besides our own; "*": all
    wyoming_host: str = "127.0.0.1"  # Wyoming has no keys
    wyoming_port: int | None = None  # None: no Wyoming; 0 takes a free one
    tls_cert: Path | None = None
    tls_key: Path | None = None
    max_connections: int = 10_000
    max_upload: int = 1 << 30  # bytes
    uploads: int = 4 << 30  # bytes on disk, of all uploads together
    max_audio: float = 4 * 3600.0  # seconds in one recording
    patience: float = 60.0  # seconds that a recording waits while none of its parts is answered
    shutdown_grace: float = 25.0  # seconds
    fleet: FleetOptions | None = None  # whose daemons hear the streams
    broker: BrokerOptions = field(default_factory=BrokerOptions)
    telemetry: TelemetryOptions = field(default_factory=TelemetryOptions)
    log_level: str = "INFO"
    log_format: LogFormat = LogFormat.JSON
