"""One benchmark from its options to its table, JSON and chart."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from transcriber import modelstore
from transcriber.bench import chart
from transcriber.errors import CannotStart
from transcriber.settings import cpu_quota


async def run(options: argparse.Namespace) -> None:
    """Measure, print, write. Raises `CannotStart` for what is missing, before anything is measured."""
    if getattr(options, "chart", None):
        chart.check()
    with tempfile.TemporaryDirectory(prefix="transcriber-bench-") as folder:
        if options.benchmark != "ingest":
            options.whisper = _whisper(options, Path(folder))
        benchmark = import_module(f"transcriber.bench.{options.benchmark}")
        report = await benchmark.run(options)
    sys.stdout.write(report.text() + "\n")
    try:
        if options.json:
            report.write(options.json)
        if getattr(options, "chart", None):
            chart.draw(report, options.chart)
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}") from error


def _whisper(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """The daemon's settings for the model and the threads that were asked for."""
    # One core less than there are: the load generator, the server and the daemon's own loop need it.
    threads = options.threads or max(1, cpu_quota() - 1)
    chosen = {"WHISPER_THREADS": str(threads)}
    if options.random_weights:
        from transcriber.bench import weights  # noqa: PLC0415 - takes its time

        path = folder / f"random-weights-{options.random_weights}.bin"
        weights.write_random(path, options.random_weights)
        return chosen | {"WHISPER_MODEL_PATH": str(path)}
    if options.model:
        path = modelstore.resolve(options.model, modelstore.models_dir())
        modelstore.verify(path)
        return chosen | {"WHISPER_MODEL_PATH": str(path)}
    return chosen
