"""Log lines: one JSON object each, with trace ids, and never a flood."""

from __future__ import annotations

import io
import json
import logging
import sys
import warnings
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from otlp import Run, recorded_run

from transcriber.telemetry import logs
from transcriber.telemetry.logs import LIBRARY_SECS, RATE_SECS, LogFormat

HEAD = ["time", "level", "logger", "message"]
log = logging.getLogger("transcriber.test")


@pytest.fixture(autouse=True)
def _restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    logging.captureWarnings(capture=False)
    root.handlers[:] = handlers
    root.setLevel(level)


class Clock:
    """Stands in for the module's `time`, so that a second passes when a test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(logs, "time", SimpleNamespace(monotonic=lambda: self.now))


def configured(level: str = "INFO", log_format: LogFormat = LogFormat.JSON) -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, log_format, stream)
    return stream


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_every_log_line_is_a_json_object_with_the_same_head() -> None:
    """The harness parses each line of standard output. All begin with the same fields, and stderr is empty."""
    run: Run = recorded_run()
    assert run.exit_code == 0
    assert run.daemon.stderr == ""
    assert {"ready", "draining", "stopped"} <= {r["message"] for r in run.daemon.records}
    assert [r for r in run.daemon.records if list(r)[:4] != HEAD] == []


def test_a_json_line_carries_the_fields_of_its_record() -> None:
    """Fields passed as `extra`, trace ids included, follow the head. Time is UTC, and the level is lower case."""
    stream = configured()
    log.warning("audio dropped: %s", "why", extra={"stream": "radio", "trace_id": "0a", "span_id": "0b"})
    [line] = lines(stream)
    assert list(line) == [*HEAD, "stream", "trace_id", "span_id"]
    assert line["time"].endswith("+00:00")
    assert (line["level"], line["logger"], line["message"]) == ("warning", log.name, "audio dropped: why")
    assert (line["stream"], line["trace_id"], line["span_id"]) == ("radio", "0a", "0b")


def test_record_is_one_line_whatever_it_holds() -> None:
    """Newlines, other scripts, an object without a JSON form and a traceback all stay within the line."""
    stream = configured()
    try:
        int("first\nsecond")
    except ValueError:
        log.exception("one\ntwo", extra={"text": "grüß\u2028 \x00", "what": {1, 2}.union})
    [line] = [json.loads(text) for text in stream.getvalue().split("\n") if text]
    assert line["message"] == "one\ntwo"
    assert line["text"] == "grüß\u2028 \x00"
    assert "union" in line["what"]
    assert line["exception"].startswith("Traceback")
    assert "ValueError" in line["exception"]


def test_standard_output_takes_any_text_in_any_locale(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even under an ASCII locale the line is UTF-8. Half a surrogate pair comes back as it was."""
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    logs.configure("INFO", LogFormat.JSON)
    log.info("grüß \udc80")
    sys.stdout.flush()
    assert "grüß".encode() in raw.getvalue()
    assert json.loads(raw.getvalue())["message"] == "grüß \udc80"


def test_a_python_warning_is_a_log_line() -> None:
    """Libraries' warnings do not reach standard error as text."""
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        stream = configured()
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        logging.captureWarnings(capture=False)
    [line] = lines(stream)
    assert line["logger"] == "py.warnings"
    assert "DeprecationWarning: old" in line["message"]


def test_text_format_is_for_reading() -> None:
    """One line has clock, level, message and fields. A traceback follows below."""
    stream = configured(log_format=LogFormat.TEXT)
    log.info("ready", extra={"subject": "audio.*", "limited": True})
    try:
        int("oops")
    except ValueError:
        log.exception("failed")
    first, second, *rest = stream.getvalue().splitlines()
    assert first[2] + first[5] == "::"
    assert first[8:] == " info    ready subject=audio.*"
    assert second[8:] == " error   failed"
    assert (rest[0], rest[-1]) == (
        "Traceback (most recent call last):",
        "ValueError: invalid literal for int() with base 10: 'oops'",
    )


@pytest.mark.parametrize(
    ("level", "kept"),
    [
        ("DEBUG", ["debug", "info", "warning", "error"]),
        ("INFO", ["info", "warning", "error"]),
        ("WARNING", ["warning", "error"]),
        ("ERROR", ["error"]),
    ],
)
def test_the_level_holds_back_what_lies_below(level: str, kept: list[str]) -> None:
    """LOG_LEVEL is the lowest level shown."""
    stream = configured(level)
    for write in (log.debug, log.info, log.warning, log.error):
        write("said")
    assert [line["level"] for line in lines(stream)] == kept


def test_a_flood_becomes_a_line_a_second_that_counts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first limited record is logged at once. The next one after the pause has the number held back."""
    clock = Clock(monkeypatch)
    stream = configured()
    for n in range(1000):
        log.warning("audio dropped", extra={"stream": "radio", "start": n, "limited": True})
    assert [line["start"] for line in lines(stream)] == [0]

    clock.now += RATE_SECS
    log.warning("audio dropped", extra={"stream": "radio", "start": 1000, "limited": True})
    clock.now += RATE_SECS
    log.warning("audio dropped", extra={"stream": "radio", "start": 1001, "limited": True})
    _, second, third = lines(stream)
    assert (second["start"], second["held_back"]) == (1000, 999)
    assert "held_back" not in third
    assert all("limited" not in line for line in lines(stream))


def test_flood_of_one_stream_hides_no_other_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is per message and stream. Unlimited records always pass."""
    Clock(monkeypatch)
    stream = configured()
    for _ in range(3):
        for name in ("a", "b"):
            log.warning("audio dropped", extra={"stream": name, "limited": True})
            log.warning("chunk rejected", extra={"stream": name, "limited": True})
        log.info("not limited")
    said = [(line["message"], line.get("stream")) for line in lines(stream)]
    assert sorted(said, key=str) == sorted(
        [
            *[(m, s) for m in ("audio dropped", "chunk rejected") for s in ("a", "b")],
            *[("not limited", None)] * 3,
        ],
        key=str,
    )


def test_the_limit_remembers_a_bounded_number_of_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stream names come from outside. A million of them must not stay in memory."""
    Clock(monkeypatch)
    limit = logs.RateLimit()
    for n in range(25_000):
        assert limit.filter(
            logging.makeLogRecord({"name": log.name, "msg": "rejected", "stream": f"s{n}", "limited": True})
        )
    assert len(limit._seen) <= 10_001


def test_an_absent_collector_is_reported_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenTelemetry's exporters complain on every attempt. The log keeps one line a minute of each complaint."""
    clock = Clock(monkeypatch)
    stream = configured()
    exporter = logging.getLogger("opentelemetry.exporter.test")
    for attempt in range(120):
        exporter.warning("Transient error, retrying in %d s", attempt)
        exporter.error("Failed to export to %s", "collector")
        clock.now += LIBRARY_SECS / 60
    heard = [(line["level"], line.get("held_back")) for line in lines(stream)]
    assert heard == [("warning", None), ("error", None), ("warning", 59), ("error", 59)]
