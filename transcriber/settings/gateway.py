"""Reads the settings of the gateway. NATS_*, LOG_* and OTEL_* are the daemon's own."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from transcriber.domain.errors import SettingError
from transcriber.gateway.options import GatewayOptions
from transcriber.settings.reader import Reader
from transcriber.settings.shared import broker, fleet, log_format, log_level, shutdown_grace, telemetry

_HOST = re.compile(r"[^\s,]+")
_DEFAULTS = GatewayOptions()
_GIB = 1 << 30


def load(environ: Mapping[str, str] | None = None) -> GatewayOptions:
    """Read the settings from `environ`, by default the process's. Raises `SettingError` for the first bad one."""
    return _read(Reader(os.environ if environ is None else environ))


def names() -> frozenset[str]:
    """Every variable that the gateway reads."""
    reader = Reader({})
    _read(reader)
    return frozenset(reader.names)


def _read(r: Reader) -> GatewayOptions:
    cert, key = _path(r, "GATEWAY_TLS_CERT"), _path(r, "GATEWAY_TLS_KEY")
    if (cert is None) != (key is None):
        given, missing = (
            ("GATEWAY_TLS_CERT", "GATEWAY_TLS_KEY") if key is None else ("GATEWAY_TLS_KEY", "GATEWAY_TLS_CERT")
        )
        raise SettingError(given, str(cert or key), f"only together with {missing}")
    max_upload = r.whole("GATEWAY_MAX_UPLOAD_BYTES", _DEFAULTS.max_upload, 1, 1024 * _GIB)
    return GatewayOptions(
        host=r.matching("GATEWAY_HOST", _DEFAULTS.host, _HOST, "an address or a host name"),
        port=r.whole("GATEWAY_PORT", _DEFAULTS.port, 0, 65_535),
        keys=_path(r, "GATEWAY_KEYS"),
        open=r.choice("GATEWAY_AUTH", "keys", "keys", "none") == "none",
        token_secret=r.text("GATEWAY_TOKEN_SECRET"),
        origins=frozenset(o.strip().rstrip("/").lower() for o in r.text("GATEWAY_ORIGINS").split(",") if o.strip()),
        wyoming_host=r.matching("GATEWAY_WYOMING_HOST", _DEFAULTS.wyoming_host, _HOST, "an address or a host name"),
        wyoming_port=None if (port := r.whole("GATEWAY_WYOMING_PORT", -1, 0, 65_535)) < 0 else port,
        tls_cert=cert,
        tls_key=key,
        max_connections=r.whole("GATEWAY_MAX_CONNECTIONS", _DEFAULTS.max_connections, 1, 1_000_000),
        max_upload=max_upload,
        uploads=r.whole("GATEWAY_UPLOADS_BYTES", max(_DEFAULTS.uploads, max_upload), max_upload, 1024 * _GIB),
        max_audio=r.number("GATEWAY_MAX_AUDIO_SECS", _DEFAULTS.max_audio, 1, 10**7),
        patience=r.number("GATEWAY_PATIENCE_SECS", _DEFAULTS.patience, 0.1, 3600),
        shutdown_grace=shutdown_grace(r),
        fleet=fleet(r),
        broker=broker(r),
        telemetry=telemetry(r),
        log_level=log_level(r),
        log_format=log_format(r),
    )


def _path(r: Reader, name: str) -> Path | None:
    value = r.raw(name)
    return None if value is None else Path(value)
