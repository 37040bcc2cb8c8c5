"""The options of `python -m benchmarks`."""

from __future__ import annotations

import argparse
from pathlib import Path

from transcriber.cli.arguments import integer_between, number_between

_LONGEST = 86_400  # seconds: a day of measuring is a soak test
_SPEECH = "a folder with recordings, and manifest.json that describes each of them"
_RATES = (8000, 16_000, 24_000, 44_100, 48_000)  # Hz; ten milliseconds are a whole number of samples


def add_to(parser: argparse.ArgumentParser) -> None:
    """Add the benchmarks and their options."""
    kinds = parser.add_subparsers(dest="benchmark", required=True, metavar="BENCHMARK")
    file, model, server, chart = _file(), _model(), _server(), _chart()
    _add_engine(
        kinds.add_parser(
            "engine", parents=[file, model], help="cost of the daemon's way to use Whisper, and of plain ones"
        )
    )
    _add_fidelity(kinds.add_parser("fidelity", parents=[file, _model(random=False)], help="word errors on real speech"))
    _add_ingest(kinds.add_parser("ingest", parents=[file, server], help="streams per core without Whisper"))

    latency = kinds.add_parser(
        "latency", parents=[file, model, server, chart], help="seconds from the end of speech to text"
    )
    _add_loads(latency, seconds=40.0, loads=[0.3, 0.8])

    overload = kinds.add_parser(
        "overload", parents=[file, model, server, chart], help="drops and latency beyond the engine's capacity"
    )
    _add_loads(overload, seconds=48.0, loads=[0.5, 0.8, 1.0, 1.2, 2.0, 5.0], chunk_ms=200)
    _add_limits(overload)

    _add_fairness(
        kinds.add_parser(
            "fairness", parents=[file, model], help="what a stream that floods the daemon costs the others"
        )
    )
    recovery = "how soon latency is bounded again when others take the CPU"
    _add_recovery(kinds.add_parser("recovery", parents=[file, model], help=recovery))
    durable = "a backlog in JetStream against live audio, and a restart"
    _add_durable(kinds.add_parser("durable", parents=[file, model], help=durable))
    _add_gateway(kinds.add_parser("gateway", parents=[file], help="idle, live and returning clients of a gateway"))
    _add_fleet(kinds.add_parser("fleet", parents=[file], help="a simulated fleet: time without owner, moves, evenness"))
    _add_requests(kinds.add_parser("requests", parents=[file], help="requests a second through the gateway, with wrk"))


def _add_durable(parser: argparse.ArgumentParser) -> None:
    help_text = "seconds of stored audio [%(default)g]"
    parser.add_argument("--seconds", default=120.0, type=number_between(0.1, _LONGEST), help=help_text)


def _add_requests(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", default=10, type=integer_between(1, _LONGEST), help="for each load [%(default)s]")
    add("--connections", default=[50, 400], type=integer_between(1, 10_000), nargs="+", help="at a time [50 400]")
    add("--audio-ms", default=100, type=integer_between(10, 30_000), help="length of a recording [%(default)s]")


def _add_gateway(parser: argparse.ArgumentParser) -> None:
    add, number = parser.add_argument, integer_between(1, 100_000)
    add("--idle", default=2000, type=number, help="clients that are connected and silent [%(default)s]")
    add("--live", default=200, type=number, help="clients that speak [%(default)s]")
    add("--seconds", default=10.0, type=number_between(0.1, _LONGEST), help="of live speech [%(default)g]")
    add("--chunk-ms", default=100, type=integer_between(10, 1000), help="length of a chunk [%(default)s]")
    add("--reconnects", default=1000, type=number, help="clients that come at once [%(default)s]")


def _add_fleet(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--daemons", default=100, type=integer_between(1, 1000), help="[%(default)s]")
    add("--streams", default=10_000, type=integer_between(1, 1_000_000), help="at a time [%(default)s]")
    add("--partitions", default=1024, type=integer_between(1, 4096), help="FLEET_PARTITIONS [%(default)s]")
    add("--minutes", default=10.0, type=number_between(0.1, 1440), help="virtual time [%(default)g]")
    add("--dying", default=0.01, type=number_between(0, 1), help="share of the daemons each minute [%(default)g]")
    add("--seed", default=1, type=integer_between(0, 2**31), help="of the random numbers [%(default)s]")


def _add_ingest(ingest: argparse.ArgumentParser) -> None:
    seconds = number_between(0.1, _LONGEST)
    ingest.add_argument("--seconds", default=30.0, type=seconds, help="seconds in all [%(default)g]")
    ingest.add_argument("--streams", default=10, type=integer_between(1, 10_000), help="at a time [%(default)s]")
    ingest.add_argument(
        "--chunk-ms", default=[100, 20], type=integer_between(10, 1000), nargs="+", help="lengths of a chunk [100 20]"
    )
    ingest.add_argument("--partials", action="store_true", help="with partials [without]")
    ingest.add_argument("--in-step", action="store_true", help="all streams at once [spread over a chunk's length]")


def _add_limits(overload: argparse.ArgumentParser) -> None:
    help_text = "L_max in seconds; short, so that a short load fills the queue [%(default)g]"
    overload.add_argument("--max-latency", default=2.0, type=number_between(0.1, 3600), help=help_text)
    help_text = "of the audio, in Hz; low, so that its making and its ingestion cost little [%(default)s]"
    overload.add_argument("--rate", default=16_000, type=int, choices=_RATES, help=help_text)


def _add_fairness(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "--seconds",
        default=60.0,
        type=number_between(0.1, _LONGEST),
        help="seconds to measure, over both runs [%(default)g]",
    )
    add("--streams", default=9, type=integer_between(1, 1000), help="ordinary streams [%(default)s]")
    add(
        "--flood",
        default=20.0,
        type=number_between(1, 1000),
        help="speed of the flood, in times real time [%(default)g]",
    )
    add("--max-latency", default=5.0, type=number_between(0.1, 3600), help="L_max in seconds [%(default)g]")


def _add_recovery(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--seconds", default=50.0, type=number_between(0.1, _LONGEST), help="seconds to measure [%(default)g]")
    add("--load", default=0.8, type=number_between(0.01, 100), help="share of the engine's capacity [%(default)g]")
    add("--hogs", type=integer_between(1, 1000), help="processes that take the CPU [two per core]")
    add("--max-latency", default=5.0, type=number_between(0.1, 3600), help="L_max in seconds [%(default)g]")


def _add_engine(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    help_text = "seconds of recording, before silence is added [30; with --speech 120]"
    add("--seconds", type=number_between(0.1, _LONGEST), help=help_text)
    add("--speech", type=Path, metavar="DIR", help=f"English speech to use, {_SPEECH} [the bundled recording]")
    help_text = "the same model for CTranslate2: measures that engine, and faster-whisper if installed"
    add("--ct2", type=Path, metavar="DIR", help=help_text)
    help_text = "whisper.cpp's own server, to measure it too [with --speech: whisper-server, if on PATH]"
    add("--whisper-server", metavar="FILE", help=help_text)


def _add_fidelity(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--speech", required=True, type=Path, metavar="DIR", help=_SPEECH)
    add("--kinds", type=lambda text: text.split(","), metavar="KIND,...", help="kinds of recordings [all]")
    add(
        "--most",
        type=integer_between(1, 1_000_000),
        metavar="N",
        help="most recordings of each kind, for a quick look [all]",
    )
    help_text = "language that the engines get for other languages: the given one, or auto [%(default)s]"
    add("--language", default="given", choices=("given", "auto"), help=help_text)
    help_text = "compare with the same model on whole recordings [yes]"
    add("--whole", default=True, action=argparse.BooleanOptionalAction, help=help_text)


def _add_loads(parser: argparse.ArgumentParser, seconds: float, loads: list[float], chunk_ms: int = 100) -> None:
    add = parser.add_argument
    add(
        "--seconds",
        default=seconds,
        type=number_between(0.1, _LONGEST),
        help="seconds to measure, over all loads [%(default)g]",
    )
    shown = " ".join(f"{load:g}" for load in loads)
    add(
        "--loads",
        default=loads,
        type=number_between(0.01, 100),
        nargs="+",
        help=f"shares of the engine's capacity [{shown}]",
    )
    add("--chunk-ms", default=chunk_ms, type=integer_between(10, 1000), help="length of a chunk [%(default)s]")


def _file() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--json", type=Path, metavar="FILE", help="write machine, settings and figures")
    return parent


def _model(*, random: bool = True) -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    which = parent.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME|PATH", help="as in `models list`, or a file [WHISPER_MODEL_PATH]")
    help_text = "a model of this official size with random weights, to measure its cost only"
    if random:
        which.add_argument("--random-weights", choices=("tiny", "base", "small"), help=help_text)
    else:
        parent.set_defaults(random_weights=None)
    parent.add_argument(
        "--threads", type=integer_between(1, 256), help="threads of the engine [one less than the CPU quota]"
    )
    return parent


def _server() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--url", help="a NATS server that nothing else uses meanwhile [one of its own]")
    return parent


def _chart() -> argparse.ArgumentParser:
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument("--chart", type=Path, metavar="FILE", help="draw an SVG of latency and drops against load")
    return parent
