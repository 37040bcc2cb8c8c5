"""Implements `publish`, `listen` and `models`, and the terminal output that all commands share."""

from __future__ import annotations

import argparse
import asyncio
import io
import os
import stat
import sys
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

from tqdm import tqdm

from transcriber.broker.connection import Connection
from transcriber.cli.progress import bar
from transcriber.cli.subtitles import Formatter, Style
from transcriber.client.listener import Listener
from transcriber.client.producer import Delivery, Pipe, Producer, check_range
from transcriber.domain import containers
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import RecordingError, SettingError
from transcriber.domain.wav import wav_head
from transcriber.models import catalogue, store
from transcriber.recording import Recording, is_recording

if TYPE_CHECKING:
    from transcriber.broker.options import BrokerOptions
    from transcriber.protocol.partitions import FleetOptions

_STDIN = "standard input"
# A recorder's clock may run some parts per million faster than ours. Reading 1 % faster keeps its pipe from filling.
_PIPE_SPEED = 1.01


@asynccontextmanager
async def connected(broker: BrokerOptions, name: str) -> AsyncIterator[Connection]:
    """Yield an open connection; tell the user when connecting takes more than a second."""
    connection = Connection(broker, name=name)
    patience = f"waiting for NATS at {broker.address}, up to NATS_CONNECT_TIMEOUT_SECS={broker.connect_timeout:g}"
    notice = asyncio.get_running_loop().call_later(1.0, note, patience)
    try:
        await connection.open()
        notice.cancel()
        yield connection
    finally:
        notice.cancel()
        await connection.close()


@dataclass(frozen=True, slots=True)
class _Source:
    """Audio to publish: PCM in chunks, and its length in seconds if that is known in advance."""

    format: AudioFormat
    seconds: float | None
    pieces: Iterable[bytes] | AsyncIterable[bytes]
    speed: float = 1.0


async def publish(
    options: argparse.Namespace, broker: BrokerOptions, fleet: FleetOptions | None = None, group: str = ""
) -> None:
    """Send a recording or raw PCM, as a producer would. Ctrl-C ends the session too, so its last words count."""
    source = await _source(options)
    async with connected(broker, "transcriber publish") as connection:
        speed = options.speed * source.speed
        delivery = Delivery(options.stream, options.session or uuid4().hex, speed, options.language, fleet, group)
        producer = Producer(connection, delivery, source.format)
        bar = "{desc}: {percentage:3.0f}%|{bar}| {n:.1f}/{total:.1f} s" if source.seconds else "{desc}: {n:.1f} s"
        whole = False
        try:
            with tqdm(total=source.seconds, desc=producer.subject, bar_format=bar, disable=None) as progress:
                await producer.send(source.pieces, lambda done: progress.update(done - progress.n))
            whole = True
        finally:
            await _end(producer, delivery.session, away=not whole and not connection.connected.is_set())


async def _end(producer: Producer, session: str, *, away: bool) -> None:
    """End the session if it was begun, and report what was sent."""
    if not producer.seconds:
        return
    if not away:
        await producer.end()
    sent = f"sent {producer.seconds:.2f} s of audio to {producer.subject}, session {session}"
    note(f"{sent}; NATS is away, so without its end" if away else sent)


async def _source(options: argparse.Namespace) -> _Source:
    secs = options.chunk_ms / 1000
    if options.file != "-":
        return _recorded(Recording(Path(options.file)), options.file, secs)
    if sys.stdin is None or sys.stdin.isatty():
        what = "is closed" if sys.stdin is None else "is a terminal"
        raise RecordingError(_STDIN, f"{what}; pipe a recording or raw PCM into it")
    pipe = Pipe(sys.stdin.fileno(), _STDIN, note)
    raw = AudioFormat(Encoding(options.encoding), options.rate, options.channels)
    head = await _head(pipe, raw)
    if not is_recording(head):
        note(f"{_STDIN}: raw {raw.encoding}, {raw.rate} Hz, channels: {raw.channels}")
        return _Source(raw, None, pipe.chunks(raw, secs, head), _PIPE_SPEED)
    wav = wav_head(head)
    while wav is None and (more := await pipe.some()):
        head += more
        wav = wav_head(head)
    if wav is None or wav.format is None:
        return _recorded(Recording(head + await pipe.rest()), _STDIN, secs)
    check_range(_STDIN, wav.format.rate, wav.format.channels)
    seconds = wav.size / wav.format.frame_bytes / wav.format.rate if wav.size else None
    return _Source(wav.format, seconds, pipe.chunks(wav.format, secs, head[wav.start :], wav.size), _PIPE_SPEED)


async def _head(pipe: Pipe, raw: AudioFormat) -> bytes:
    """Return the pipe's first bytes. Raises `RecordingError` if they are neither raw PCM nor a file to decode."""
    head = await pipe.read(containers.HEAD_BYTES)
    if not head:
        raise RecordingError(_STDIN, "is empty")
    if containers.may_be_frames(head):
        head += await pipe.read(containers.FRAMES_BYTES - len(head))
    kind = containers.name_of(head, wide=raw.wide)
    if kind is not None and not is_recording(head):
        raise RecordingError(_STDIN, f"is {kind}; allowed are raw PCM and {', '.join(sorted(containers.DECODABLE))}")
    return head


def _recorded(recording: Recording, name: str, secs: float) -> _Source:
    check_range(name, recording.rate, recording.channels)
    if not recording.frames:
        raise RecordingError(name, "holds no audio")
    pcm = recording.pcm(max(1, int(recording.rate * secs)))
    return _Source(AudioFormat(Encoding.S16LE, recording.rate, recording.channels), recording.seconds, pcm)


async def listen(options: argparse.Namespace, broker: BrokerOptions) -> None:
    """Print what the daemon publishes until Ctrl-C, or until the reader of the output is gone."""
    async with connected(broker, "transcriber listen") as connection:
        listener = Listener(connection, options.stream)
        await listener.start()
        note(f"listening to transcript.{options.stream} at {broker.address}; Ctrl-C ends")
        printing = asyncio.create_task(_print(listener, options))
        gone = _on_reader_gone(printing.cancel)
        try:
            await printing
        except asyncio.CancelledError:
            if gone.is_set():
                raise BrokenPipeError from None
            raise
        finally:
            printing.cancel()


async def _print(listener: Listener, options: argparse.Namespace) -> None:
    style = Style(options.format)
    formatter = Formatter(style, name_streams=options.stream == "*", partials=options.partials)
    if isinstance(sys.stdout, io.TextIOWrapper):  # files are UTF-8; a terminal gets `?` for what it cannot show
        sys.stdout.reconfigure(errors="replace", encoding=None if style is Style.TEXT else "utf-8")
    if formatter.head:
        write(formatter.head)
    subtitles = style in {Style.SRT, Style.VTT}
    async for message in listener.messages():
        if (text := formatter.format(message)) is not None:
            write(text)
        if formatter.complete(message) if subtitles else options.until_end and message["type"] == "ended":
            return


def write(text: str) -> None:
    """Print one line and flush it, so that a program that reads the output gets each line at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _on_reader_gone(call: Callable[[], object]) -> asyncio.Event:
    """Call `call` as soon as the reader of our output is gone (`listen | head -1`), not only at the next write."""
    gone = asyncio.Event()

    def on_event() -> None:
        loop.remove_reader(output)
        gone.set()
        call()

    loop, output = asyncio.get_running_loop(), sys.stdout.fileno()
    if stat.S_ISFIFO(os.fstat(output).st_mode):
        loop.add_reader(output, on_event)  # the writing end of a pipe becomes "readable" only when its reader is gone
    return gone


def models(options: argparse.Namespace) -> None:
    """Run `models list`, `models pull` or `models verify`."""
    directory = options.dir or _models_dir()
    if options.action == "list":
        for entry in store.listing(directory):
            state = str(entry.path) if entry.present else "-"
            write(f"{entry.model.name:22} {entry.model.size / 1e6:7.0f} MB  {state}")
        write(store.BUNDLED_NOTE)
    elif options.action == "pull":
        pulled = _pull(options.name, directory, store.Source(options.source) if options.source else None)
        if options.format == catalogue.Format.CTRANSLATE2:
            pulled = store.pull_folder(options.name, directory, pulled)
        note(f"{options.name}: {pulled.origin}")
        write(f"{pulled.path}\nuse it with: WHISPER_MODEL_PATH={pulled.path}")
    else:
        verified = store.verify(store.resolve(options.name, directory), options.sha256)
        digest = (
            f"sha256 {verified.sha256} as published" if verified.sha256 else "complete; no published sha256 to compare"
        )
        write(f"{verified.path}: {verified.header.size}, {verified.header.weights}, {digest}")
        if verified.path == store.bundled_model_path():
            write(store.BUNDLED_NOTE)


def _pull(name: str, directory: Path, source: store.Source | None) -> store.Pulled:
    with bar(name) as progress:
        return store.pull(name, directory, progress, source=source)


def _models_dir() -> Path:
    try:
        return store.models_dir()
    except RuntimeError:  # the user has no home directory, as in a container
        raise SettingError("HOME", "", "there is no home directory to keep models in; name one with --dir") from None


def note(text: str) -> None:
    """Tell the user something on standard error, so that standard output holds results only."""
    sys.stderr.write(f"transcriber: {text}\n")
    sys.stderr.flush()
