"""Runs one benchmark, from its options to its table, JSON and chart."""

from __future__ import annotations

import argparse
import sys
import tempfile
from importlib import import_module
from pathlib import Path

from benchmarks import chart
from benchmarks.rig import environ_for
from transcriber import settings
from transcriber.domain.errors import CannotStart
from transcriber.models import store
from transcriber.worker import scheduling


async def run(options: argparse.Namespace) -> None:
    """Measure, print and write. Raises `CannotStart` if anything is missing, before the measurement."""
    drawn: Path | None = getattr(options, "chart", None)
    for file in (options.json, drawn):
        if file and not file.parent.is_dir():
            raise CannotStart(f"{file}: there is no such folder")
    if drawn:
        chart.check()
    with tempfile.TemporaryDirectory(prefix="transcriber-benchmarks-") as folder:
        if options.benchmark not in {"ingest", "fleet", "gateway", "requests"}:
            options.whisper = _whisper(options, Path(folder))
        benchmark = import_module(f"benchmarks.{options.benchmark}")
        report = await benchmark.run(options)
    if getattr(options, "random_weights", None):
        note = (
            f"the model has random weights in the size of {options.random_weights}: it shows cost, its words are none"
        )
        report.notes.insert(0, note)
    sys.stdout.write(report.text() + "\n")
    try:
        if options.json:
            report.write(options.json)
        if drawn:
            chart.draw(report, drawn)
    except OSError as error:
        raise CannotStart(f"{error.filename}: {error.strerror}") from error


def _whisper(options: argparse.Namespace, folder: Path) -> dict[str, str]:
    """The daemon's settings for the chosen model and threads. The model is verified."""
    # One thread less than there are cores: the load generator, the server and the daemon's loop need one.
    chosen = {"WHISPER_THREADS": str(options.threads or max(1, scheduling.cpu_quota() - 1))}
    if options.random_weights:
        from benchmarks import weights  # noqa: PLC0415 - takes its time

        path = folder / f"random-weights-{options.random_weights}.bin"
        weights.write_random(path, options.random_weights)
        chosen |= {"WHISPER_MODEL_PATH": str(path), "WHISPER_MODEL_SHA256": ""}
    elif options.model:
        path = store.resolve(options.model, _models_dir())
        chosen |= {"WHISPER_MODEL_PATH": str(path), "WHISPER_MODEL_SHA256": ""}
    loaded = settings.load(environ_for(None, **chosen))
    store.verify(loaded.whisper.path, loaded.model_sha256)
    return chosen


def _models_dir() -> Path:
    try:
        return store.models_dir()
    except RuntimeError:  # a user without a home has no models known by name
        return Path()
