"""Writes logs to standard output as JSON lines or plain text, with trace ids and a rate limit."""

from __future__ import annotations

import io
import json
import logging
import math
import sys
import time
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TextIO

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
RATE_SECS = 1.0  # one line of a kind per stream and second: enough to notice, too few to fill a disk
_LIBRARY = "opentelemetry."
LIBRARY_SECS = 60.0  # several exporters report an absent collector on every attempt; once a minute is enough


class LogFormat(StrEnum):
    """The format of log lines."""

    JSON = "json"
    TEXT = "text"


def fields(record: logging.LogRecord) -> dict[str, Any]:
    """Return what was passed as `extra`."""
    return {k: v for k, v in vars(record).items() if k not in _STANDARD and k != "limited"}


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the record's own fields, such as trace_id."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextFormatter(logging.Formatter):
    """Readable lines for a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        extra = "".join(f" {k}={v}" for k, v in fields(record).items())
        text = f"{clock} {record.levelname.lower():7} {record.getMessage()}{extra}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class RateLimit(logging.Filter):
    """Lets one record of a kind through per stream and `RATE_SECS`. The next one says how many were held back.

    A kind is a message template. Only records with a true `limited` field are limited, and OpenTelemetry's own, which
    get one per `LIBRARY_SECS`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[tuple[str, object], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        library = record.name.startswith(_LIBRARY)
        if not library and not getattr(record, "limited", False):
            return True
        pause = LIBRARY_SECS if library else RATE_SECS
        key = (str(record.msg), getattr(record, "stream", None))
        now = time.monotonic()
        last, held = self._seen.get(key, (-math.inf, 0))
        if now - last < pause:
            self._seen[key] = (last, held + 1)
            return False
        if len(self._seen) > 10_000:  # noqa: PLR2004 - streams come and go; clearing only lets a line through early
            self._seen.clear()
        self._seen[key] = (now, 0)
        if held:
            record.held_back = held
        return True


def configure(level: str, log_format: LogFormat, stream: TextIO | None = None) -> None:
    """Send every log line, Python's warnings too, to standard output in the given format."""
    if stream is None and isinstance(sys.stdout, io.TextIOWrapper):
        # UTF-8 in any locale. Half of a surrogate pair, which UTF-8 cannot encode, becomes \udXXX, which JSON can read.
        sys.stdout.reconfigure(encoding="utf-8", errors="backslashreplace")
    handler = logging.StreamHandler(stream or sys.stdout)
    handler.setFormatter(JsonFormatter() if log_format is LogFormat.JSON else TextFormatter())
    handler.addFilter(RateLimit())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(capture=True)
    logging.getLogger("grpc").setLevel(logging.ERROR)  # its internal messages do not help an operator
