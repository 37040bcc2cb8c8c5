"""The commands: parse, call, exit code."""

# The commands' modules are imported where they are called: half a second that --help does not need, and in which Ctrl-C
# must end as quietly as anywhere else. Hence the PLC0415 below.
# ruff: noqa: PLC0415

from __future__ import annotations

import argparse
import asyncio
import contextlib
import io
import logging
import math
import os
import signal
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from transcriber import __version__
from transcriber.broker import wire
from transcriber.errors import BrokerLost, CannotStart, RecordingError, SettingError, TranscriberError
from transcriber.messages import Encoding
from transcriber.subtitles import Style

_INTERRUPTED = 128 + signal.SIGINT  # what shells report for a command that Ctrl-C ended
_NOTICE_SECS = 1.0  # an event loop that has not noticed a signal by then does not run
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)  # Ctrl-C, kill, and a terminal window that is closed


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the process's exit code."""
    try:
        options = _parser().parse_args(arguments)
        code: int = options.call(options)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return _INTERRUPTED
    except BrokenPipeError:  # the reader of our output is gone: `listen | head`
        _discard_output()
        return 0
    except TranscriberError as error:
        sys.stderr.write(f"transcriber: {error}\n")
        return _exit_code(error)
    except OSError as error:  # of our output; everything else that can fail so has an error of its own
        _discard_output()
        sys.stderr.write(f"transcriber: {error or type(error).__name__}\n")
        return 1
    return code


def _discard_output() -> None:
    """Let the interpreter flush what is left into nothing, or it would complain at its end."""
    with contextlib.suppress(io.UnsupportedOperation):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_code(error: TranscriberError) -> int:
    from transcriber.service import ExitCode

    match error:
        case SettingError() | RecordingError():
            return ExitCode.BAD_SETTINGS
        case CannotStart():
            return ExitCode.CANNOT_START
        case BrokerLost():
            return ExitCode.BROKER_LOST
        case _:
            return ExitCode.DEFECT


def _interruptible(work: Coroutine[Any, Any, None]) -> int:
    """Run until done; a first signal cancels the work, a second one also its cleaning up. Returns the exit code."""
    _log_to_stderr()
    caught: list[int] = []

    async def interrupted() -> None:
        loop, task = asyncio.get_running_loop(), asyncio.current_task()
        assert task is not None  # noqa: S101 - this is one
        stuck_from = math.inf

        def on_signal(number: int, _frame: FrameType | None) -> None:
            nonlocal stuck_from
            caught.append(number)
            logging.disable()  # what closing down brings about is no news
            if time.monotonic() > stuck_from:  # in a write, say, into a pager that waits for its user
                raise KeyboardInterrupt
            if len(caught) <= 2:  # noqa: PLR2004 - more of them find everything on its way out
                stuck_from = min(stuck_from, time.monotonic() + _NOTICE_SECS)
                loop.call_soon_threadsafe(cancel)

        def cancel() -> None:
            nonlocal stuck_from
            stuck_from = math.inf
            task.cancel()

        for number in _SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or a job in the background
                signal.signal(number, on_signal)
        await work

    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        asyncio.run(interrupted())
    except (asyncio.CancelledError, KeyboardInterrupt):
        if not caught:
            raise
    finally:
        for number, handler in before.items():  # once interrupted we are leaving: no signal may disturb that
            signal.signal(number, signal.SIG_IGN if caught else handler)
    return 128 + caught[0] if caught else 0


def _log_to_stderr() -> None:
    """Show warnings, and the same one in a row once: a connection is retried every half second."""
    last = ""

    def news(record: logging.LogRecord) -> bool:
        nonlocal last
        before, last = last, record.getMessage()
        return last != before

    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("transcriber: %(message)s"))
    handler.addFilter(news)
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def _run(_options: argparse.Namespace) -> NoReturn:
    from transcriber import settings
    from transcriber.service import ExitCode, Service
    from transcriber.telemetry import logs

    chosen = settings.load()
    logs.configure(chosen.log_level, chosen.log_format)

    async def live() -> int:
        try:
            return await Service(chosen).run()
        except CannotStart as error:
            logging.getLogger("transcriber").critical("cannot start: %s", error)
            return ExitCode.CANNOT_START

    _leave(asyncio.run(live()))


def _leave(code: int) -> NoReturn:
    """End the process where everything has been flushed but native threads may still run.

    The Whisper thread may be in a window beyond the grace period, an exporter's in a call that nobody answers; the
    interpreter, torn down under them, now and then aborts, and the exit code would be that of a crash.
    """
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _demo(options: argparse.Namespace) -> int:
    from transcriber import demo

    return _interruptible(demo.run(serve=options.serve))


def _publish(options: argparse.Namespace) -> int:
    from transcriber import commands, settings

    return _interruptible(commands.publish(options, settings.load().broker))


def _listen(options: argparse.Namespace) -> int:
    from transcriber import commands, settings

    _interruptible(commands.listen(options, settings.load().broker))
    return 0  # Ctrl-C is the normal way to end it


def _models(options: argparse.Namespace) -> int:
    from transcriber import commands

    commands.models(options)
    return 0


def _capacity(options: argparse.Namespace) -> NoReturn:
    from transcriber import commands, settings

    _leave(_interruptible(commands.capacity(options, settings.load())))


def _within(text: str, low: float, high: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from {low:g} to {high:g}")
    return number


def _number(low: float, high: float) -> Callable[[str], float]:
    return lambda text: _within(text, low, high)


def _whole(low: int, high: int) -> Callable[[str], int]:
    return lambda text: int(_within(text, low, high))


def _stream(text: str) -> str:
    if not wire.is_stream(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a stream id: [A-Za-z0-9_-]{{1,64}} is allowed")
    return text


def _stream_or_all(text: str) -> str:
    return text if text == "*" else _stream(text)


def _session(text: str) -> str:
    if wire.session_of({wire.SESSION: text}) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a session id: 1 to 128 printable ASCII characters are allowed"
        )
    return text


def _language(text: str) -> str:
    if wire.language_of({wire.LANGUAGE: text}) is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a language: an ISO 639-1 code such as en, or auto, is allowed"
        )
    return text


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transcriber",
        description="Speech on NATS in, text on NATS out.",
        epilog="Settings come from the environment: NATS_URL, AUDIO_SUBJECT, WHISPER_MODEL_PATH, ...; see the README.",
    )
    parser.add_argument("--version", action="version", version=f"transcriber {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, call: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(call=call)
        return command

    add("run", _run, "the daemon: speech from audio.<stream>, text to transcript.<stream>, until SIGTERM or Ctrl-C")
    show = add("demo", _demo, "the whole way on this machine, with the bundled model and recording")
    show.add_argument("--serve", action="store_true", help="stay up afterwards for your own audio")
    _add_publish(add("publish", _publish, "send a WAV, FLAC or OGG file, or standard input, as a producer would"))
    _add_listen(add("listen", _listen, "print results as they arrive, until Ctrl-C"))
    _add_models(add("models", _models, "list, pull and verify models"))
    _add_capacity(add("capacity", _capacity, "measure this machine: RTF, queue capacity, streams, workers"))
    return parser


def _add_publish(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="a recording, or - for standard input (a recording or raw PCM)")
    parser.add_argument("--stream", default="demo", type=_stream, help="publish to audio.STREAM [%(default)s]")
    parser.add_argument(
        "--speed", default=1.0, type=_number(0, 10_000), help="times real time; 0: as fast as it goes [%(default)g]"
    )
    parser.add_argument("--chunk-ms", default=100, type=_whole(1, 10_000), help="length of a chunk [%(default)s]")
    parser.add_argument("--session", type=_session, help="session id [a new one]")
    parser.add_argument("--language", type=_language, help="ISO 639-1 hint, or auto [the daemon's setting]")
    raw = parser.add_argument_group("raw PCM on standard input")
    codes = [encoding.value for encoding in Encoding]
    raw.add_argument("--encoding", default=codes[0], choices=codes, help="[%(default)s]")
    rates, counts = wire.RATES, wire.CHANNEL_COUNTS
    raw.add_argument("--rate", default=48_000, type=_whole(rates[0], rates[-1]), help="Hz [%(default)s]")
    raw.add_argument("--channels", default=1, type=_whole(counts[0], counts[-1]), help="[%(default)s]")


def _add_listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stream", default="*", type=_stream_or_all, help="one stream [all]")
    parser.add_argument(
        "--format",
        default=Style.TEXT.value,
        choices=[style.value for style in Style],
        help="[%(default)s]; json: one message a line; srt, vtt: one session, the first heard, and the end with it",
    )
    parser.add_argument("--until-end", action="store_true", help="stop after the first session that ends")


def _add_models(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    each = argparse.ArgumentParser(add_help=False)
    each.add_argument("--dir", type=Path, help="where models live [~/.cache/transcriber/models]")
    actions.add_parser("list", parents=[each], help="models known by name, and which are here")
    pull = actions.add_parser("pull", parents=[each], help="download an official model, resuming what is there")
    pull.add_argument("name", help="as in `models list`")
    verify = actions.add_parser("verify", parents=[each], help="check a model file")
    verify.add_argument("name", help="a name as in `models list`, or a path")
    verify.add_argument("--sha256", help="the expected digest [the published one]")


def _add_capacity(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--streams", default=10, type=_whole(1, 100_000), help="streams to carry [%(default)s]")
    parser.add_argument(
        "--utilisation", default=0.7, type=_number(0.01, 1), help="how busy a worker may be [%(default)g]"
    )
