"""`transcriber demo`: runs a NATS server and the daemon, publishes a recording, and prints its text and account."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from transcriber import settings
from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.cli.demo_choice import Choice, choose
from transcriber.cli.programs import (
    LogLine,
    Program,
    environment,
    find_server,
    run_daemon,
    run_gateway,
    run_server,
    unless_ended,
)
from transcriber.cli.spoken import matching, words
from transcriber.cli.subtitles import Formatter, Style, account
from transcriber.client.listener import Listener
from transcriber.client.producer import Delivery, Producer
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.models import store
from transcriber.recording import Recording

STREAM = "demo"
_SPEED = 1.0  # times real time
_CHUNK_SECS = 0.1
_GATEWAY_HINTS = """Your own recordings and microphone, through the gateway:
  curl -F file=@FILE.mp3 {address}/v1/audio/transcriptions
  python -c "from openai import OpenAI; print(OpenAI(base_url='{address}/v1', api_key='any')
    .audio.transcriptions.create(model='whisper-1', file=open('FILE.mp3', 'rb')).text)"
  {address}/mic        speak, and read along, in a browser
  {address}/dashboard  what gateway and workers do"""
_ROUNDING_SECS = 0.01  # resampling may cut off so much at the end; a lost chunk is ten times as long


@dataclass(frozen=True, slots=True)
class Prepared:
    """Everything the demonstration needs, found and checked: the server's program, and a model with its recording."""

    server: Path
    choice: Choice
    status_page: bool


def prepare(model: str | None = None, recording: str | None = None) -> Prepared:
    """Find and check everything that is needed, quick checks first. A missing model is downloaded.

    Raises `SettingError` for a bad setting in the environment and `RecordingError` for a bad recording. Raises
    `CannotStart` when a program, or the model that was asked for, is missing.
    """
    environ = environment(os.environ)
    status_page = settings.load(environ).status_page
    binary = find_server()
    choice = choose(model, recording, environ, lambda text: _say(f"model           {text}"))
    return Prepared(binary, choice, status_page)


async def run(prepared: Prepared, *, serve: bool, gateway: bool = False) -> None:
    """Run the demonstration; with `serve` or `gateway`, keep running for the user's own audio.

    Raises `CannotStart` when a program does not start or ends early, `RecordingError` when the recording is damaged.
    """
    async with AsyncExitStack() as stack:
        url, programs, hints = await _start(stack, prepared, gateway=gateway)
        connection = Connection(BrokerOptions(url=url), name="transcriber demo")
        stack.push_async_callback(connection.close)
        await connection.open()
        await unless_ended(_play(connection, prepared.choice), *programs)
        if serve or gateway:
            _say(f"\nStill up; Ctrl-C ends it. Your own audio, in another terminal:\n  export NATS_URL={url}")
            _say("  transcriber listen &\n  transcriber publish FILE.wav --stream mine")
            for hint in hints:
                _say(hint)
            await unless_ended(asyncio.Event().wait(), *programs)


async def _start(stack: AsyncExitStack, prepared: Prepared, *, gateway: bool) -> tuple[str, list[Program], list[str]]:
    """Start the programs. Return the server's URL, the programs, and what a user can do with them in a browser."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transcriber-demo-")))
    url, server = await stack.enter_async_context(run_server(prepared.server, folder))
    _say(f"NATS server     {url}")
    ports: list[int] = []

    def on_record(record: LogLine) -> None:
        if "health_port" in record:
            ports.append(record["health_port"])
        _on_record(record)

    environ = {**prepared.choice.environ, "NATS_URL": url}
    model, daemon = await stack.enter_async_context(run_daemon(environ, on_record=on_record))
    _say(f"daemon          {model}")
    programs, hints = [server, daemon], list[str]()
    if prepared.status_page and ports:
        hints.append(f"What the daemon does, in a browser: http://127.0.0.1:{ports[-1]}/")
    if gateway:
        address, running = await stack.enter_async_context(run_gateway(_gateway_environ(url)))
        _say(f"gateway         {address}")
        programs.append(running)
        hints.append(_GATEWAY_HINTS.format(address=address))
    return url, programs, hints


def _gateway_environ(url: str) -> dict[str, str]:
    """The environment of a gateway for this machine alone, without the user's keys."""
    ours = {"NATS_URL": url, "GATEWAY_PORT": os.environ.get("GATEWAY_PORT", "0")}
    return {k: v for k, v in environment(os.environ).items() if not k.startswith("GATEWAY_")} | ours


def _on_record(record: LogLine) -> None:
    """Pass on the daemon's warnings. Its note on the bundled model is shown as part of the demo, not as a warning."""
    if record["message"] == store.BUNDLED_NOTE:
        _say(f"model           {record['message']}")
    elif record["level"] not in {"debug", "info"}:
        sys.stderr.write(f"daemon: {record['message']}\n")


async def _play(connection: Connection, choice: Choice) -> None:
    listener = Listener(connection, STREAM)
    await listener.start()
    recording = Recording(choice.recording)
    about = f"{recording.seconds:.0f} s at {recording.rate} Hz, published in real time"
    _say(f"recording       {choice.recording.name}, {about}\n")
    audio_format = AudioFormat(Encoding.S16LE, recording.rate, recording.channels)
    producer = Producer(connection, Delivery(STREAM, uuid4().hex, _SPEED), audio_format)

    async def produce() -> None:
        await producer.send(recording.pcm(int(recording.rate * _CHUNK_SECS)))
        await producer.end()

    following, producing = asyncio.create_task(_follow(listener)), asyncio.create_task(produce())
    try:
        ended, recognised = (await asyncio.gather(following, producing))[0]
    finally:
        following.cancel()
        producing.cancel()
    _say("")
    if choice.spoken is not None:
        _say(f"{matching(choice.spoken, recognised)} of {len(choice.spoken)} words as spoken")
    if lost := _lost(ended, recording.seconds):
        _say(f"{lost:.2f} s of the recording became neither text nor silence")
    _say(account(ended))


async def _follow(listener: Listener) -> tuple[Mapping[str, Any], list[str]]:
    """Print results until the session has ended; return its `ended` message and the recognised words."""
    recognised: list[str] = []
    formatter = Formatter(Style.TEXT, name_streams=False)
    async for message in listener.messages():
        if message["type"] == "ended":
            return message, recognised
        if message["type"] == "final":
            recognised += words(message["text"])
        if (text := formatter.format(message)) is not None:
            _say(f"  {text}")
    raise AssertionError("the listener ends by raising only")


def _lost(ended: Mapping[str, Any], seconds: float) -> float:
    """Return the seconds that were dropped, never settled, or never arrived; 0.0 when all became text or silence."""
    settled = ended["transcribed"] + ended["silent"]
    return missing if (missing := seconds - settled) > _ROUNDING_SECS else 0.0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
