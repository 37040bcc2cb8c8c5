"""The real parts as context managers: a NATS server, the daemon as a process, a client that checks what it hears."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import nats
import numpy as np
import soundfile
from checks import check_account, check_tiles, schema  # noqa: F401 - tests take all three from here
from nats.aio.client import Client as NatsClient
from nats.aio.client import Server as ServerChoice
from nats.aio.msg import Msg
from places import SUPPORT

from transcriber.cli.programs import find_server

PATIENCE = 30.0  # seconds until a test gives up waiting for an event that must come
STUB = SUPPORT / "stub_daemon.py"
IDENTITY: dict[str, str] = {}  # what clients of the tests tell a server about themselves, as nats-py takes it
QUICK = {"WHISPER_RTF": "0.05", "WHISPER_THREADS": "1"}  # start without measuring, and leave a core to the test


class NatsServer:
    """A real nats-server on a free loopback port, which it keeps over restarts."""

    def __init__(self, folder: Path, *arguments: str, config: str = "") -> None:
        self._folder = folder
        self._arguments = arguments
        self.config = config
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        ports = self._folder / f"ports-{time.monotonic_ns()}"
        ports.mkdir(parents=True)
        command = [str(find_server()), "-a", "127.0.0.1", "-p", str(self.port or -1), "--ports_file_dir", str(ports)]
        if self.config:
            path = self._folder / "nats.conf"
            path.write_text(self.config)
            command += ["-c", str(path)]
        self._process = subprocess.Popen([*command, *self._arguments], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while True:
            with contextlib.suppress(StopIteration, ValueError):
                file = next(ports.glob("*.ports"))
                self.port = int(json.loads(file.read_text())["nats"][0].rpartition(":")[2])
                return
            assert time.monotonic() < deadline, "nats-server did not start"
            assert self._process.poll() is None, "nats-server ended"
            time.sleep(0.01)

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()  # a frozen one, too
            self._process.wait()
            self._process = None

    def reload(self, config: str) -> None:
        """Take another configuration, as the running server does on SIGHUP."""
        assert self._process is not None
        self.config = config
        (self._folder / "nats.conf").write_text(config)
        self._process.send_signal(signal.SIGHUP)

    def freeze(self) -> None:
        """Alive but deaf: connections stay open and nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        os.waitpid(self._process.pid, os.WUNTRACED)  # until it has really stopped

    def resume(self) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGCONT)


def free_port() -> int:
    """A loopback port that nobody has at this moment."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


async def converse(port: int, *commands: bytes) -> list[bytes]:
    """Speak to the server without a client's checks; returns its lines up to the PONG, or to the end if it hangs up."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    lines: list[bytes] = []
    try:
        await reader.readline()  # INFO
        for command in (b'CONNECT {"verbose":false,"headers":true}\r\n', *commands, b"PING\r\n"):
            writer.write(command)
        while not lines or lines[-1] not in {b"PONG\r\n", b""}:
            lines.append(await reader.readline())
    except ConnectionError:
        lines.append(b"")
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return lines


class Daemon:
    """`transcriber run` as a user would start it, or `script` in its place; ready when entered."""

    def __init__(self, url: str, *, script: Path | None = None, wait: bool = True, **environ: str) -> None:
        self._command = [sys.executable, *(["-m", "transcriber", "run"] if script is None else [str(script)])]
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "AUDIO_", "WHISPER_", "OTEL_"))}
        # One thread: whisper.cpp's threads wait for each other in a spin, fifty times slower where cores are shared.
        ours = {"NATS_URL": url, "HEALTH_HOST": "127.0.0.1", "HEALTH_PORT": "0", "WHISPER_THREADS": "1"}
        self._environ = keep | ours | environ
        self._wait = wait
        self.records: list[dict[str, Any]] = []
        self.stderr = ""

    async def __aenter__(self) -> Self:
        self.process = await asyncio.create_subprocess_exec(
            *self._command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=self._environ
        )
        self._changed = asyncio.Event()
        self._reading = asyncio.gather(self._read_log(), self._read_stderr())
        self._reading.add_done_callback(lambda _: self._changed.set())
        if self._wait:
            await self.logged("ready")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read_log(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.records.append(json.loads(line))
            self._changed.set()

    async def _read_stderr(self) -> None:
        assert self.process.stderr is not None
        self.stderr = (await self.process.stderr.read()).decode()

    async def logged(self, message: str, patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for a log line whose message starts like this."""
        async with asyncio.timeout(patience):
            while True:
                for record in self.records:
                    if record["message"].startswith(message):
                        return record
                assert not self._reading.done(), f"ended without {message!r}: {self.records[-3:]} {self.stderr}"
                self._changed.clear()
                await self._changed.wait()

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Not running for a while, as on a machine that stalls."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)

    async def ended(self, patience: float = PATIENCE) -> int:
        """Wait for the exit code; the log is complete then."""
        async with asyncio.timeout(patience):
            code = await self.process.wait()
            await self._reading
        return code

    async def stop(self) -> int:
        self.terminate()
        return await self.ended()

    @property
    def summary(self) -> dict[str, Any]:
        return next(r for r in self.records if r["message"] == "stopped")

    async def probe(self, path: str) -> int:
        """The status that the health port answers with."""
        port = (await self.logged("starting"))["health_port"]
        return await asyncio.to_thread(_get, f"http://127.0.0.1:{port}{path}")


def _get(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        with error:
            return error.code


class Client:
    """A producer and a listener. Every message heard is checked against the JSON Schema.

    `pinned`: to this server alone, whatever others its cluster tells of. `hears`: what it may subscribe to.
    """

    def __init__(self, url: str, *, pinned: bool = False, hears: str = "transcript.>", **identity: str) -> None:
        self.url = url
        self._identity = identity or IDENTITY
        self._hears = hears
        self._choose = self._same_server if pinned else None
        self.heard: list[dict[str, Any]] = []
        self.raw: list[Msg] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        self.nats: NatsClient = await nats.connect(
            self.url.split(","),
            max_reconnect_attempts=-1,
            reconnect_time_wait=0.1,
            error_cb=_ignore,
            reconnect_to_server_handler=self._choose,
            **self._identity,
        )
        await self.nats.subscribe(self._hears, cb=self._on_message)
        await self.flush()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.nats.close()

    def _same_server(self, servers: list[ServerChoice], _info: object) -> tuple[ServerChoice, float]:
        return next(server for server in servers if server.uri.geturl() == self.url), 0.1

    async def _on_message(self, message: Msg) -> None:
        body = json.loads(message.data)
        schema().validate(body)
        self.raw.append(message)
        self.heard.append(body)
        self._changed.set()

    async def send(self, payload: bytes = b"", *, subject: str = "audio.s1", **headers: str | int) -> None:
        """Publish one message; `audio_offset=5` becomes the header Audio-Offset."""
        named = {k.title().replace("_", "-") if k != "traceparent" else k: str(v) for k, v in headers.items()}
        await self.nats.publish(subject, payload, headers=named or None)

    async def flush(self) -> None:
        """Wait until the server has everything that was sent."""
        await self.nats.flush()  # its PING overtakes what nats-py has queued,
        await self.nats.flush()  # this one's answer comes after all of that

    async def back(self) -> None:
        """Wait until it listens again to a server that was restarted."""
        async with asyncio.timeout(PATIENCE):
            while not self.nats.is_connected:  # noqa: ASYNC110 - nats-py has no event for it
                await asyncio.sleep(0.01)
            await self.flush()

    async def until(self, wanted: Callable[[dict[str, Any]], bool], patience: float = PATIENCE) -> dict[str, Any]:
        """Wait for a message that fits; those heard before count."""
        async with asyncio.timeout(patience):
            while True:
                for body in self.heard:
                    if wanted(body):
                        return body
                self._changed.clear()
                await self._changed.wait()

    async def until_type(self, kind: str, patience: float = PATIENCE, **fields: Any) -> dict[str, Any]:
        """Wait for a message of this type with these fields."""
        return await self.until(
            lambda body: body["type"] == kind and all(body.get(k) == v for k, v in fields.items()), patience
        )

    def of(self, *kinds: str, stream: str | None = None) -> list[dict[str, Any]]:
        return [b for b in self.heard if b["type"] in kinds and stream in {None, b["stream"]}]

    async def until_count(self, count: int, *kinds: str, patience: float = PATIENCE) -> list[dict[str, Any]]:
        """Wait for at least so many messages of these types."""
        async with asyncio.timeout(patience):
            while len(found := self.of(*kinds)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found

    def text(self, stream: str | None = None) -> str:
        finals = sorted(self.of("final", stream=stream), key=lambda b: (b["stream"], b["session"], b["sequence"]))
        return " ".join(b["text"] for b in finals if b["text"])


async def _ignore(_error: Exception) -> None:
    """What the tests do to servers on purpose is no news."""


@dataclass(frozen=True)
class Speech:
    """A recording of known words: float32 mono, and rows with `start`, `end` (seconds) and `words`."""

    samples: np.ndarray[Any, np.dtype[np.float32]]
    rate: int
    rows: list[Mapping[str, Any]]

    @classmethod
    def load(cls, stem: Path) -> Self:
        samples, rate = soundfile.read(stem.with_suffix(".flac"), dtype="float32")
        return cls(samples, rate, json.loads(stem.with_suffix(".json").read_text()))

    @property
    def words(self) -> str:
        return " ".join(row["words"] for row in self.rows)

    def cut(self, first: int, last: int, margin: float = 0.35) -> Self:
        """The rows [first, last) with some silence around, their times counted from the cut's start."""
        rows = self.rows[first:last]
        begin = max(0, int((rows[0]["start"] - margin) * self.rate))
        end = int((rows[-1]["end"] + margin) * self.rate)
        moved = [dict(r, start=r["start"] - begin / self.rate, end=r["end"] - begin / self.rate) for r in rows]
        return type(self)(self.samples[begin:end], self.rate, moved)


def s16(samples: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """Float32 in [-1, 1] to pcm_s16le, interleaved when 2-D."""
    return bytes(np.clip(np.rint(samples * 32768), -32768, 32767).astype("<i2").tobytes())
