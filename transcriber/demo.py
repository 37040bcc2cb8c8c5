"""The whole way on one machine: a NATS server, the daemon, the bundled recording, text, and the account."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any
from uuid import uuid4

from transcriber import modelstore, settings
from transcriber.audio.recording import Recording
from transcriber.broker.connection import BrokerOptions, Connection
from transcriber.broker.listener import Listener
from transcriber.broker.producer import Delivery, Producer
from transcriber.messages import AudioFormat, Encoding
from transcriber.programs import Record, environment, find_server, run_daemon, run_server, unless_ended
from transcriber.subtitles import Formatter, Style, account

STREAM = "demo"
_SPEED = 1.0  # times real time
_CHUNK_SECS = 0.1


async def run(*, serve: bool) -> None:
    """Run the demonstration; with `serve`, stay up afterwards for the user's own audio.

    Raises `SettingError` for a bad setting in the environment, `CannotStart` when a program is missing or ends.
    """
    environ = environment(os.environ)
    shows = settings.load(environ).status_page
    binary = find_server()
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="transcriber-demo-")))
        url, server = await stack.enter_async_context(run_server(binary, folder))
        _say(f"NATS server     {url}")
        ports: list[int] = []

        def on_record(record: Record) -> None:
            if "health_port" in record:
                ports.append(record["health_port"])
            _on_record(record)

        model, daemon = await stack.enter_async_context(run_daemon(environ | {"NATS_URL": url}, on_record=on_record))
        _say(f"daemon          {model}")
        connection = Connection(BrokerOptions(url=url), name="transcriber demo")
        stack.push_async_callback(connection.close)
        await connection.open()
        await unless_ended(_play(connection), server, daemon)
        if serve:
            _say(f"\nStill up; Ctrl-C ends it. Your own audio, in another terminal:\n  export NATS_URL={url}")
            _say("  transcriber listen &\n  transcriber publish FILE.wav --stream mine")
            if shows and ports:
                _say(f"What the daemon does, in a browser: http://127.0.0.1:{ports[-1]}/")
            await unless_ended(asyncio.Event().wait(), server, daemon)


def _on_record(record: Record) -> None:
    """Pass on the daemon's warnings; what it says about the bundled model is no news for who asked for a demo."""
    if record["message"] == modelstore.BUNDLED_NOTE:
        _say(f"model           {record['message']}")
    elif record["level"] not in {"debug", "info"}:
        sys.stderr.write(f"daemon: {record['message']}\n")


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
