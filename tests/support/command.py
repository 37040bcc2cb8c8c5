"""Commands as a user runs them: processes, pipes, terminals, signals; and somebody on the other side of NATS."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Self

import nats
import numpy as np
import soundfile
from harness import PATIENCE


class Command:
    """`transcriber` with these arguments as a process; its output arrives line by line."""

    def __init__(self, *arguments: str, program: tuple[str, ...] = ("-m", "transcriber"), **options: Any) -> None:
        """Upper-case options are environment variables, the others go to the process."""
        self._command = (sys.executable, *program, *arguments)
        others = ("NATS_", "AUDIO_", "WHISPER_", "OTEL_", "LOG_", "XDG_")
        keep = {k: v for k, v in os.environ.items() if not (k.startswith(others) or k.lower().endswith("_proxy"))}
        self._environ = keep | {k: v for k, v in options.items() if k.isupper()}
        self._options = {k: v for k, v in options.items() if not k.isupper()}
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        self.process = await asyncio.create_subprocess_exec(
            *self._command, **(pipes | self._options), env=self._environ
        )
        self._reading = asyncio.gather(
            self._read(self.process.stdout, self.out), self._read(self.process.stderr, self.err)
        )
        self._reading.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        if stream is not None:
            async for line in stream:
                lines.append(line.decode().rstrip("\n"))
                self._changed.set()

    async def printed(self, text: str) -> str:
        """Wait for a line, on either stream, that holds the text."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in (*self.out, *self.err):
                    if text in line:
                        return line
                assert not self._reading.done(), f"ended without {text!r}: {self.out} {self.err}"
                self._changed.clear()
                await self._changed.wait()

    async def feed(self, data: bytes) -> None:
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    def end_input(self) -> None:
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the exit code; all output is here then."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code


async def on_terminal(*arguments: str, **options: Any) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns; returns the exit code and all that it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read() -> bytes:
        shown = b""
        with contextlib.suppress(OSError):  # Linux answers with one when the other side is closed
            while data := os.read(ours, 4096):
                shown += data
        return shown

    try:
        async with Command(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, **options) as command:
            os.close(theirs)
            shown = await asyncio.to_thread(read)
            return await command.ended(), shown.decode()
    finally:
        os.close(ours)


class Bus:
    """A client that hears all audio and can play the daemon."""

    def __init__(self, client: nats.aio.client.Client) -> None:
        self._client = client
        self.heard: asyncio.Queue[nats.aio.msg.Msg] = asyncio.Queue()

    async def next(self) -> nats.aio.msg.Msg:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    async def until_end(self) -> tuple[bytes, list[nats.aio.msg.Msg]]:
        """All audio up to the next `end`, joined, and its messages."""
        messages = [await self.next()]
        while messages[-1].headers.get("Audio-Event") != "end":
            messages.append(await self.next())
        return b"".join(m.data for m in messages), messages

    async def tell(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            kind = "final" if message["type"] == "final" else "event"
            await self._client.publish(f"transcript.{message['stream']}.{kind}", json.dumps(message).encode())
        await self._client.flush()


@asynccontextmanager
async def bus(url: str) -> AsyncIterator[Bus]:
    async def ignore(_error: Exception) -> None:
        pass

    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignore)
    connected = Bus(client)
    await client.subscribe("audio.>", cb=connected.heard.put)
    await client.flush()
    await client.flush()  # the first one's PING overtakes the subscription
    try:
        yield connected
    finally:
        await client.close()


def noise(seconds: float, channels: int = 1, rate: int = 16_000) -> np.ndarray:
    return np.random.default_rng(1).integers(-9000, 9000, (int(seconds * rate), channels), np.int16)


def recording(samples: np.ndarray, container: str = "WAV", rate: int = 16_000, subtype: str | None = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=container)
    return file.getvalue()
