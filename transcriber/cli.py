"""The commands: parse, call, exit code."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Awaitable, Sequence
from pathlib import Path

from transcriber import __version__, commands, demo, modelstore, settings
from transcriber.errors import BrokerLost, CannotStart, RecordingError, SettingError, TranscriberError
from transcriber.messages import Encoding
from transcriber.service import ExitCode, Service
from transcriber.subtitles import Style
from transcriber.telemetry import logs

_INTERRUPTED = 130  # what shells report for a command that Ctrl-C ended


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.call(options)
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output is gone: `listen | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.CLEAN
    except TranscriberError as error:
        sys.stderr.write(f"transcriber: {error}\n")
        return _exit_code(error)
    return code


def _exit_code(error: TranscriberError) -> ExitCode:
    match error:
        case SettingError() | RecordingError():
            return ExitCode.BAD_SETTINGS
        case CannotStart():
            return ExitCode.CANNOT_START
        case BrokerLost():
            return ExitCode.BROKER_LOST
        case _:
            return ExitCode.DEFECT


def _run(_options: argparse.Namespace) -> int:
    chosen = settings.load()
    logs.configure(chosen.log_level, chosen.log_format)

    async def live() -> tuple[int, bool]:
        service = Service(chosen)
        try:
            return await service.run(), service.worker_alive
        except CannotStart as error:
            logging.getLogger("transcriber").critical("cannot start: %s", error)
            return ExitCode.CANNOT_START, service.worker_alive

    code, worker_alive = asyncio.run(live())
    if worker_alive:
        # Native code still runs on the Whisper thread; tearing the interpreter down under it could crash.
        sys.stdout.flush()
        os._exit(code)
    return code


def _interruptible(work: Awaitable[None]) -> int:
    """Run until done or Ctrl-C, which is a normal way to end these commands."""

    async def wrapped() -> None:
        await work

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(wrapped())
        return ExitCode.CLEAN
    return _INTERRUPTED


def _demo(options: argparse.Namespace) -> int:
    return _interruptible(demo.run(serve=options.serve))


def _publish(options: argparse.Namespace) -> int:
    return _interruptible(commands.publish(options, settings.load()))


def _listen(options: argparse.Namespace) -> int:
    _interruptible(commands.listen(options, settings.load().broker))
    return ExitCode.CLEAN


def _models(options: argparse.Namespace) -> int:
    commands.models(options)
    return ExitCode.CLEAN


def _capacity(options: argparse.Namespace) -> int:
    return _interruptible(commands.capacity(options, settings.load()))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transcriber",
        description="Speech on NATS in, text on NATS out.",
        epilog="Settings come from the environment: NATS_URL, AUDIO_SUBJECT, WHISPER_MODEL_PATH, ...; see the README.",
    )
    parser.add_argument("--version", action="version", version=f"transcriber {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")
    run = subparsers.add_parser("run", help="the daemon")
    run.set_defaults(call=_run)
    show = subparsers.add_parser("demo", help="the whole way on this machine, with the bundled model and recording")
    show.add_argument("--serve", action="store_true", help="stay up afterwards for your own audio")
    show.set_defaults(call=_demo)
    _add_publish(subparsers.add_parser("publish", help="send a WAV, FLAC or OGG file, or raw PCM from standard input"))
    _add_listen(subparsers.add_parser("listen", help="print results as they arrive"))
    _add_models(subparsers.add_parser("models", help="list, pull and verify models"))
    _add_capacity(subparsers.add_parser("capacity", help="measure this machine: RTF, queue capacity, streams, workers"))
    return parser


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a recording, or - for standard input (a recording or raw PCM)")
    parser.add_argument("--stream", default="demo", type=commands.stream, help="publish to audio.STREAM [%(default)s]")
    parser.add_argument(
        "--speed", default=1.0, type=commands.speed, help="times real time; 0: as fast as it goes [%(default)g]"
    )
    parser.add_argument("--chunk-ms", default=100, type=commands.chunk_ms, help="length of a chunk [%(default)s]")
    parser.add_argument("--session", help="session id [a new one]")
    parser.add_argument("--language", help="ISO 639-1 hint, or auto")
    raw = parser.add_argument_group("raw PCM on standard input")
    raw.add_argument("--encoding", default=Encoding.S16LE, type=Encoding, choices=list(Encoding), metavar="ENCODING")
    raw.add_argument("--rate", default=48_000, type=commands.rate, help="Hz [%(default)s]")
    raw.add_argument("--channels", default=1, type=commands.channels, help="[%(default)s]")
    parser.set_defaults(call=_publish)


def _add_listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stream", default="*", help="one stream [all]")
    parser.add_argument("--format", default=Style.TEXT, type=Style, choices=list(Style), metavar="text|json|srt|vtt")
    parser.add_argument("--until-end", action="store_true", help="stop after the first session that ends")
    parser.set_defaults(call=_listen)


def _add_models(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dir", type=Path, default=modelstore.models_dir(), help="where models live [%(default)s]")
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    actions.add_parser("list", help="models known by name, and which are here")
    pull = actions.add_parser("pull", help="download an official model, resuming what is there")
    pull.add_argument("name")
    verify = actions.add_parser("verify", help="check a model file, by name or path")
    verify.add_argument("name")
    verify.add_argument("--sha256", help="the expected digest [the published one]")
    parser.set_defaults(call=_models)


def _add_capacity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", type=int, default=10, help="streams to carry [%(default)s]")
    parser.add_argument(
        "--utilisation", type=commands.share, default=0.7, help="how busy a worker may be [%(default)g]"
    )
    parser.set_defaults(call=_capacity)
