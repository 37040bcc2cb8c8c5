"""Runs the same model in other programs: faster-whisper, and whisper.cpp's own server."""

from __future__ import annotations

import argparse
import asyncio
import io
import shutil
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import requests
import soundfile

from benchmarks import machine
from benchmarks.ways import Calls, Piece, Samples, Way
from transcriber.cli.programs import run_program, unless_ended, until_ready
from transcriber.domain.errors import CannotStart
from transcriber.domain.timeline import SAMPLE_RATE

if TYPE_CHECKING:
    from transcriber.worker.engine import WhisperOptions

_BEAMS = (5, 1)  # the default of faster-whisper and of the daemon with CTranslate2; the daemon's with whisper.cpp
_LOOK_SECS = 0.1  # between two checks whether a server is ready
_PATIENCE = 600.0  # seconds for one reply of a large model on a slow machine

MEASURED = {
    "faster_whisper": "int8, the daemon's threads, beams of 5 (its default) and of 1; whole recordings, and the "
    "daemon's windows; CPU of this process",
    "whisper_server": "whisper.cpp's server with the daemon's threads and its own defaults; a request for every five "
    "seconds; CPU of the server's process",
}


def missing(options: argparse.Namespace) -> list[str]:
    """Notes on programs that are left out, and how to get them. Raises `CannotStart` for a missing requested one."""
    notes = []
    if options.ct2 is None:
        notes.append("left out: CTranslate2 and faster-whisper; give --ct2 DIR the same model's folder")
    elif not (options.ct2 / "model.bin").is_file():
        raise CannotStart(f"--ct2 {options.ct2}: no CTranslate2 model there: a folder with model.bin is expected")
    elif not has_faster_whisper():
        notes.append("left out: faster-whisper; pip install faster-whisper brings it")
    if server(options) is None:
        notes.append("left out: whisper-server; build it from whisper.cpp's source, and give --whisper-server FILE")
    return notes


def has_faster_whisper() -> bool:
    """Whether it is installed."""
    return find_spec("faster_whisper") is not None


def server(options: argparse.Namespace) -> Path | None:
    """The server's program: the requested one, or with --speech the one on PATH. Raises `CannotStart`."""
    if options.whisper_server is None and not options.speech:
        return None
    found = shutil.which(options.whisper_server or "whisper-server")
    if found is None and options.whisper_server is not None:
        raise CannotStart(f"--whisper-server {options.whisper_server}: there is no such program")
    return Path(found).absolute() if found else None


def load_faster_whisper(folder: Path, threads: int) -> Callable[[int, str | None, Samples], str]:
    """Load a CTranslate2 folder in int8. Returns a function of beam, language (None: detected) and samples.

    Raises `CannotStart`.
    """
    try:
        model = import_module("faster_whisper").WhisperModel(
            str(folder), device="cpu", compute_type="int8", cpu_threads=threads, local_files_only=True
        )
    except ImportError as error:
        raise CannotStart(f"{error}: pip install faster-whisper brings it") from None
    except (RuntimeError, ValueError) as error:
        raise CannotStart(f"faster-whisper, {folder}: {error}") from error

    def text(beam: int, language: str | None, samples: Samples) -> str:
        segments, _ = model.transcribe(samples, language=language, beam_size=beam)
        return " ".join(segment.text for segment in segments)

    return text


def faster_whisper(folder: Path, threads: int) -> dict[str, Way]:
    """The ways to use faster-whisper, by name. Raises `CannotStart`."""
    text = load_faster_whisper(folder, threads)
    return {
        f"faster_whisper_{name}_beam_{beam}": Calls(partial(text, beam, "en"), parts)
        for name, parts in (("whole", Piece.whole), ("windows", Piece.spoken))
        for beam in _BEAMS
    }


@asynccontextmanager
async def whisper_server(program: Path, options: WhisperOptions) -> AsyncIterator[dict[str, Way]]:
    """Run the server. Yields the way to use it, by name. Raises `CannotStart` if it does not start."""
    address = f"127.0.0.1:{(port := machine.free_port())}"
    command = [str(program), "--model", str(options.path), "--threads", str(options.threads), "--language", "en"]
    command += ["--host", "127.0.0.1", "--port", str(port), *([] if options.use_gpu else ["--no-gpu"])]
    async with run_program("whisper-server", *command) as running:
        await unless_ended(until_ready(_listening(address), running), running)
        yield {
            "whisper_server_cuts": Calls(
                partial(_ask, f"http://{address}/inference"), Piece.cuts, partial(machine.cpu_seconds, running.pid)
            )
        }


async def _listening(address: str) -> None:
    """Wait until the model is loaded. Until then the server accepts no connection, or answers 503."""
    while True:
        try:
            answer = await asyncio.to_thread(requests.get, f"http://{address}/health", timeout=_PATIENCE)
        except requests.ConnectionError:
            await asyncio.sleep(_LOOK_SECS)
            continue
        if answer.status_code != requests.codes.unavailable:
            return
        await asyncio.sleep(_LOOK_SECS)


def _ask(url: str, samples: Samples) -> str:
    """Send samples as a WAV file. Returns the text. Raises `CannotStart`."""
    wav = io.BytesIO()
    soundfile.write(wav, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    try:
        file = ("part.wav", wav.getvalue(), "audio/wav")
        answer = requests.post(url, files={"file": file}, data={"response_format": "json"}, timeout=_PATIENCE)
        answer.raise_for_status()
        body: Mapping[str, Any] = answer.json()
        return str(body["text"])
    except (requests.RequestException, ValueError, KeyError) as error:
        raise CannotStart(f"whisper-server: {error or type(error).__name__}") from error
