"""The options of `python -m benchmarks`."""

from __future__ import annotations

import argparse
from pathlib import Path

from transcriber.cli.arguments import integer_between, number_between

_LONGEST = 86_400  # seconds: a day of measuring is a soak test
_SPEECH = "a folder with recordings and manifest.json, a list of what each of them is"
_RATES = (8000, 16_000, 24_000, 44_100, 48_000)  # Hz, which ten milliseconds divide into whole samples


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks and what they can be told."""
    kinds = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    file, model, server, chart = _file(), _model(), _server(), _chart()
    seconds = number_between(0.1, _LONGEST)

    engine = kinds.add_parser("engine", parents=[file, model], help="the daemon's way of using Whisper, and plain ones")
    _add_engine(engine)

    fidelity = kinds.add_parser("fidelity", parents=[file, _model(random=False)], help="word errors in real speech")
    _add_fidelity(fidelity)

    ingest = kinds.add_parser("ingest", parents=[file, server], help="streams per core without Whisper")
    ingest.add_argument("--seconds", default=30.0, type=seconds, help="of measuring, over all runs [%(default)g]")
    ingest.add_argument("--streams", default=10, type=integer_between(1, 10_000), help="at a time [%(default)s]")
    ingest.add_argument("--chunk-ms", default=[100, 20], type=integer_between(10, 1000), nargs="+", help="[100 20]")
    ingest.add_argument("--partials", action="store_true", help="with looks at open windows [without]")
    ingest.add_argument("--in-step", action="store_true", help="all streams at once [spread over a chunk's length]")

    latency = kinds.add_parser("latency", parents=[file, model, server, chart], help="end of speech to text")
    _add_loads(latency, seconds=40.0, loads=[0.3, 0.8])

    overload = kinds.add_parser("overload", parents=[file, model, server, chart], help="past the engine's capacity")
    _add_loads(overload, seconds=48.0, loads=[0.5, 0.8, 1.0, 1.2, 2.0, 5.0], chunk_ms=200)
    help_text = "L_max in seconds: short, so that a short load fills the queue [%(default)g]"
    overload.add_argument("--max-latency", default=2.0, type=number_between(0.1, 3600), help=help_text)
    help_text = "of the audio, in Hz: low, as what makes it and takes it in is not to be measured here [%(default)s]"
    overload.add_argument("--rate", default=16_000, type=int, choices=_RATES, help=help_text)

    _add_fairness(
        kinds.add_parser("fairness", parents=[file, model], help="what a stream that floods costs the others")
    )
    _add_recovery(
        kinds.add_parser("recovery", parents=[file, model], help="how soon the promise holds on a slower CPU")
    )

    durable = kinds.add_parser(
        "durable", parents=[file, model], help="JetStream against live, and a backlog's catch-up"
    )
    durable.add_argument("--seconds", default=120.0, type=seconds, help="of stored audio [%(default)g]")


def _add_fairness(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--seconds", default=60.0, type=number_between(0.1, _LONGEST), help="of measuring, over both runs [%(default)g]"
    )
    add("--streams", default=9, type=integer_between(1, 1000), help="ordinary ones [%(default)s]")
    add("--flood", default=20.0, type=number_between(1, 1000), help="times real time [%(default)g]")
    add("--max-latency", default=5.0, type=number_between(0.1, 3600), help="L_max in seconds [%(default)g]")


def _add_recovery(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", default=50.0, type=number_between(0.1, _LONGEST), help="of measuring [%(default)g]")
    add("--load", default=0.8, type=number_between(0.01, 100), help="share of the capacity [%(default)g]")
    add("--hogs", type=integer_between(1, 1000), help="processes that take the CPU [two a core]")
    add("--max-latency", default=5.0, type=number_between(0.1, 3600), help="L_max in seconds [%(default)g]")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    help_text = "of each recording; with --speech, of recordings before silence is added [30; 120]"
    add("--seconds", type=number_between(0.1, _LONGEST), help=help_text)
    add("--speech", type=Path, metavar="DIR", help=f"English speech to take, {_SPEECH} [the bundled recording]")
    help_text = "a CTranslate2 folder of the same model: faster-whisper is measured too"
    add("--ct2", type=Path, metavar="DIR", help=help_text)
    help_text = "whisper.cpp's own server, to measure too [with --speech whisper-server, where it is on PATH]"
    add("--whisper-server", metavar="FILE", help=help_text)


def _add_fidelity(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--speech", required=True, type=Path, metavar="DIR", help=_SPEECH)
    add("--kinds", type=lambda text: text.split(","), metavar="KIND,...", help="of recordings [all]")
    add(
        "--most",
        type=integer_between(1, 1_000_000),
        metavar="N",
        help="recordings of each kind, for a quick look [all]",
    )
    help_text = "what the engines are told of other languages: theirs, or auto [%(default)s]"
    add("--language", default="given", choices=("given", "auto"), help=help_text)
    help_text = "with the same model on whole recordings to compare with [yes]"
    add("--whole", default=True, action=argparse.BooleanOptionalAction, help=help_text)


def _add_loads(parser: argparse.ArgumentParser, seconds: float, loads: list[float], chunk_ms: int = 100) -> None:
    add = parser.add_argument
    add(
        "--seconds",
        default=seconds,
        type=number_between(0.1, _LONGEST),
        help="of measuring, over all loads [%(default)g]",
    )
    shown = " ".join(f"{load:g}" for load in loads)
    add(
        "--loads",
        default=loads,
        type=number_between(0.01, 100),
        nargs="+",
        help=f"shares of the engine's capacity [{shown}]",
    )
    add("--chunk-ms", default=chunk_ms, type=integer_between(10, 1000), help="[%(default)s]")


def _file() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", type=Path, metavar="FILE", help="write machine, settings and figures")
    return parent


def _model(*, random: bool = True) -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    which = parent.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME|PATH", help="as in `models list`, or a file [WHISPER_MODEL_PATH]")
    help_text = "a model of this official size that knows nothing, for its cost alone"
    if random:
        which.add_argument("--random-weights", choices=("tiny", "base", "small"), help=help_text)
    else:
        parent.set_defaults(random_weights=None)
    parent.add_argument("--threads", type=integer_between(1, 256), help="[one core less than the CPU quota]")
    return parent


def _server() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--url", help="a server that nobody else uses meanwhile [one of its own]")
    return parent


def _chart() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--chart", type=Path, metavar="FILE", help="draw an SVG of latency and drops against load")
    return parent
