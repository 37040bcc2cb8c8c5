"""What the commands beside `run` and `demo` do."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from uuid import uuid4

from tqdm import tqdm

from transcriber import demo, modelstore, service
from transcriber.audio.recording import Recording, is_recording
from transcriber.broker import wire
from transcriber.broker.connection import BrokerOptions, Connection
from transcriber.broker.listener import Listener
from transcriber.broker.producer import Delivery, Producer
from transcriber.errors import RecordingError
from transcriber.messages import AudioFormat, Encoding
from transcriber.subtitles import Formatter
from transcriber.worker import capacity as queue_capacity
from transcriber.worker.engine import WhisperEngine
from transcriber.worker.whisper import WhisperThread

if TYPE_CHECKING:
    from transcriber.settings import Settings


def stream(text: str) -> str:
    """Argument type: a stream id."""
    if not wire.is_stream(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no stream: [A-Za-z0-9_-]{{1,64}} is allowed")
    return text


def _within(text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from {low:g} to {high:g}")
    return number


def speed(text: str) -> float:
    """Argument type: times real time."""
    return _within(text, 0, 10_000)


def chunk_ms(text: str) -> int:
    """Argument type: milliseconds of one chunk."""
    return int(_within(text, 1, 10_000))


def rate(text: str) -> int:
    """Argument type: Hz."""
    return int(_within(text, wire.RATES.start, wire.RATES.stop - 1))


def channels(text: str) -> int:
    """Argument type: channels."""
    return int(_within(text, wire.CHANNEL_COUNTS.start, wire.CHANNEL_COUNTS.stop - 1))


def share(text: str) -> float:
    """Argument type: a share in (0, 1]."""
    return _within(text, 0.01, 1)


async def publish(options: argparse.Namespace, settings: Settings) -> None:
    """Send a recording, or raw PCM, as a producer would."""
    connection = Connection(settings.broker, name="transcriber publish")
    audio_format, seconds, pieces = _source(options)
    await connection.open()
    try:
        delivery = Delivery(options.stream, options.session or uuid4().hex, options.speed, options.language)
        producer = Producer(connection, delivery, audio_format)
        bar = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s" if seconds else "{desc}: {n:.1f} s"
        with tqdm(total=seconds, desc=f"audio.{options.stream}", bar_format=bar, disable=None) as progress:
            await producer.send(pieces, progress.update)
            await producer.end()
    finally:
        await connection.close()


def _source(options: argparse.Namespace) -> tuple[AudioFormat, float | None, Iterator[bytes]]:
    """The format, the length in seconds where it is known, and the PCM in chunks."""
    chunk_secs = options.chunk_ms / 1000
    if options.file == "-":
        stdin = sys.stdin.buffer
        head = stdin.read(4)
        if not is_recording(head):
            raw = AudioFormat(options.encoding, options.rate, options.channels)
            return raw, None, _raw(stdin, head, raw.frame_bytes * max(1, int(raw.rate * chunk_secs)))
        recording = Recording(head + stdin.read())
    else:
        recording = Recording(Path(options.file))
    if recording.rate not in wire.RATES or recording.channels not in wire.CHANNEL_COUNTS:
        reason = (
            f"{recording.rate} Hz with {recording.channels} channels; allowed are 8000 to 192000 Hz, 1 to 8 channels"
        )
        raise RecordingError(options.file, reason)
    audio_format = AudioFormat(Encoding.S16LE, recording.rate, recording.channels)
    blocks = recording.blocks(max(1, int(recording.rate * chunk_secs)))
    return audio_format, recording.seconds, (demo.to_s16(block) for block in blocks)


def _raw(source: BinaryIO, head: bytes, size: int) -> Iterator[bytes]:
    """Cut a pipe into chunks of `size` bytes; a last partial frame is left to the daemon to reject."""
    rest = head
    while data := source.read(size - len(rest)):
        rest += data
        if len(rest) == size:
            yield rest
            rest = b""
    if rest:
        yield rest


async def listen(options: argparse.Namespace, broker: BrokerOptions) -> None:
    """Print what the daemon publishes until Ctrl-C."""
    connection = Connection(broker, name="transcriber listen")
    await connection.open()
    try:
        listener = Listener(connection, options.stream)
        await listener.start()
        formatter = Formatter(options.format, name_streams=options.stream == "*")
        if formatter.head:
            print(formatter.head, flush=True)  # noqa: T201 - printing is this command's purpose
        async for message in listener.messages():
            if (text := formatter.format(message)) is not None:
                print(text, flush=True)  # noqa: T201
            if options.until_end and message["type"] == "ended":
                return
    finally:
        await connection.close()


def models(options: argparse.Namespace) -> None:
    """`models list|pull|verify`."""
    if options.action == "list":
        for entry in modelstore.listing(options.dir):
            state = str(entry.path) if entry.present else "-"
            print(f"{entry.model.name:22} {entry.model.size / 1e6:7.0f} MB  {state}")  # noqa: T201
    elif options.action == "pull":
        with tqdm(unit="B", unit_scale=True, unit_divisor=1024, desc=options.name, disable=None) as bar:

            def progress(done: int, total: int) -> None:
                bar.total = total
                bar.update(done - bar.n)

            path = modelstore.pull(options.name, options.dir, progress)
        print(f"{path}\nuse it with: WHISPER_MODEL_PATH={path}")  # noqa: T201
    else:
        verified = modelstore.verify(modelstore.resolve(options.name, options.dir), options.sha256)
        digest = (
            f"sha256 {verified.sha256} as published" if verified.sha256 else "complete; no published sha256 to compare"
        )
        print(f"{verified.path}: {verified.header.size}, {verified.header.weights}, {digest}")  # noqa: T201


async def capacity(options: argparse.Namespace, settings: Settings) -> None:
    """Measure this machine with the configured model, and say what it carries."""
    modelstore.verify(settings.whisper.path, settings.model_sha256)
    window = settings.sessions.stream.window_secs
    worker = WhisperThread(lambda: WhisperEngine(settings.whisper), settings.max_latency)
    rtf = await worker.start(service.speech(window), settings.rtf)
    derived = queue_capacity.derive(settings.max_latency, window, rtf)
    used, count = options.utilisation, options.streams
    lines = (
        f"model        {worker.model}, {settings.whisper.threads} threads, windows of {window:g} s",
        f"RTF          {rtf:.4f} ({rtf * window * 1000:.0f} ms for a full window)",
        f"queue        {derived}",
        f"one worker   {queue_capacity.streams(rtf, used)} streams of speech without pauses at {used:.0%} utilisation",
        f"{count:<3} streams  {queue_capacity.workers(count, rtf, used)} workers = ceil({count} x {rtf:.4f} / {used:g})",
    )
    print("\n".join(lines))  # noqa: T201
