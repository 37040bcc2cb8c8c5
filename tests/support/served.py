"""A server, a daemon and a gateway as processes, for clients that are not asyncio's."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from harness import PATIENCE, QUICK, NatsServer, Speech

_START_SECS = 4 * PATIENCE  # a model is loaded and measured, perhaps while the machine is busy


class Process:
    """`transcriber COMMAND`, ready when entered."""

    def __init__(self, command: str, environ: Mapping[str, str]) -> None:
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "AUDIO_", "WHISPER_", "GATEWAY_"))}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "transcriber", command], stdout=subprocess.PIPE, text=True, env=keep | dict(environ)
        )
        self.records: list[dict[str, Any]] = []
        self._ready = threading.Event()
        self._reading = threading.Thread(target=self._read)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.records.append(json.loads(line))
            if self.records[-1]["message"] == "ready":
                self._ready.set()
        self._ready.set()

    @property
    def ready(self) -> dict[str, Any]:
        """The log's line that says where it listens."""
        assert self._ready.wait(_START_SECS)
        return next(record for record in self.records if record["message"] == "ready")

    def stop(self) -> None:
        self.process.terminate()
        assert self.process.wait(PATIENCE) == 0
        self._reading.join()
        assert self.process.stdout is not None
        self.process.stdout.close()


class Served(NamedTuple):
    """A gateway's address and process id."""

    url: str
    pid: int


@contextlib.contextmanager
def served(folder: Path, **gateway: str) -> Iterator[Served]:
    """A gateway in front of one daemon with the bundled model."""
    with NatsServer(folder) as server, contextlib.ExitStack() as stack:
        environ = {"NATS_URL": server.url}
        daemon = Process("run", environ | QUICK | {"HEALTH_PORT": "0"})
        stack.callback(daemon.stop)
        assert daemon.ready
        running = Process("gateway", environ | {"GATEWAY_PORT": "0"} | gateway)
        stack.callback(running.stop)
        yield Served(f"http://127.0.0.1:{running.ready['port']}", running.process.pid)


def check_words(words: Sequence[tuple[str, float, float]], speech: Speech, shift: float = 0.0) -> None:
    """Every word of the speech, in order, within a third of a second of its sentence."""
    said = [(word, row) for row in speech.rows for word in row["words"].split()]
    assert [word for word, _, _ in words] == [word for word, _ in said]
    for (_, start, end), (_, row) in zip(words, said, strict=True):
        assert row["start"] - 0.35 <= start - shift <= end - shift <= row["end"] + 0.35
    starts = [start for _, start, _ in words]
    assert starts == sorted(starts)


def check_times(bounds: Sequence[tuple[float, float]], speech: Speech) -> None:
    """A stretch of text for each sentence, within a third of a second of it."""
    for (start, end), row in zip(bounds, speech.rows, strict=True):
        assert (start, end) == (pytest.approx(row["start"], abs=0.35), pytest.approx(row["end"], abs=0.35))
