"""Chooses the demonstration's model and recording: the user's own, or ours."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from transcriber.cli.progress import bar
from transcriber.cli.spoken import words
from transcriber.client.producer import check_range
from transcriber.domain.errors import ModelError, RecordingError, SettingError
from transcriber.models import catalogue, store
from transcriber.models.to_ctranslate2 import CONVERTIBLE
from transcriber.recording import Recording
from transcriber.worker.engine import EngineName
from transcriber.worker.engines import loading

MODEL = "tiny.en"  # the smallest model for everyday English; one core keeps up with it
_ANY_WORDS, _DISPATCH_WORDS = "talk", "demo"  # our recordings: for any model, and for the bundled one

Say = Callable[[str], object]


@dataclass(frozen=True, slots=True)
class Choice:
    """`environ` is the daemon's, its model included. `spoken`: the recording's words, None for a user's own."""

    environ: Mapping[str, str]
    recording: Path
    spoken: tuple[str, ...] | None


def choose(model: str | None, recording: str | None, environ: Mapping[str, str], say: Say) -> Choice:
    """Find the model, downloading it if needed, and the recording that fits it. `say` prints a line at once.

    Raises `RecordingError`, and `ModelError` or `SettingError` when the requested model is not available.
    """
    if recording is not None:
        _check(Path(recording))
    configured = environ.get("WHISPER_MODEL_PATH")
    if model is None and configured:
        say(f"{configured}, from WHISPER_MODEL_PATH")
        chosen, others = Path(configured), dict(environ)
    else:
        converted = environ.get("WHISPER_ENGINE") != EngineName.WHISPER_CPP and loading.installed(
            EngineName.CTRANSLATE2
        )
        chosen = _default(say, converted=converted) if model is None else _requested(model, say, converted=converted)
        # The environment's checksum belongs to the environment's model.
        others = {name: value for name, value in environ.items() if name != "WHISPER_MODEL_SHA256"}
    path = Path(recording) if recording is not None else _ours(_recording_for(chosen))
    return Choice(others | {"WHISPER_MODEL_PATH": str(chosen)}, path, _spoken(path))


def _default(say: Say, *, converted: bool) -> Path:
    """Return the model for everyday English. If it is not available, say why and return the bundled one."""
    try:
        return _pulled(MODEL, say, converted=converted)
    except SettingError as error:
        reason = _short(error.allowed)
    except ModelError as error:
        reason = _short(error.reason)
    say(f"no {MODEL}: {reason}; the bundled model takes its place")
    return store.bundled_model_path()


def _requested(name: str, say: Say, *, converted: bool) -> Path:
    """Return the model that `--model` names: an existing one first, then a known name, pulled if missing."""
    known = catalogue.MODELS.get(name)
    if known is None or Path(name).exists():
        path = store.resolve(name, Path())
        store.check(path)
        return path.absolute()
    return store.bundled_model_path() if known.bundled else _pulled(name, say, converted=converted)


def _pulled(name: str, say: Say, *, converted: bool) -> Path:
    """Pull a model if it is missing; return its verified file, or the folder made of it if `converted`.

    A quantised file is never converted. Raises `ModelError`, and `SettingError` without a home.
    """
    model = catalogue.MODELS[name]
    try:
        directory = store.models_dir()
    except RuntimeError:
        raise SettingError("HOME", "", "there is no home directory to keep models in; --model takes a file") from None
    path = directory / model.filename
    try:
        if not path.is_file():
            say(f"getting {name}, {model.size / 1e6:.0f} MB, once, into {directory}")
        with bar(name) as progress:
            pulled = store.pull(name, directory, progress)
        if converted and store.check(path).weights in CONVERTIBLE:
            if not (directory / model.folder).is_dir():
                say(f"converting {name} for CTranslate2, once, into {directory / model.folder}")
            return store.pull_folder(name, directory, pulled).path
    except OSError as error:  # the folder cannot be read
        raise ModelError(str(path), (error.strerror or str(error)).lower()) from error
    return path


def _short(reason: str) -> str:
    """Shorten a reason: without the advice after it, and with hosts in place of long addresses."""
    return re.sub(r"https?://([^/\s]+)\S*", r"from \1", reason.partition("; ")[0])


def _recording_for(model: Path) -> str:
    bundled = store.bundled_model_path()
    return _DISPATCH_WORDS if model.exists() and model.samefile(bundled) else _ANY_WORDS


def _ours(name: str) -> Path:
    return store.bundled(f"{name}.flac")


def _spoken(path: Path) -> tuple[str, ...] | None:
    for name in (_ANY_WORDS, _DISPATCH_WORDS):
        if path.samefile(_ours(name)):
            rows = json.loads(store.bundled(f"{name}.json").read_text())
            return tuple(word for row in rows for word in words(row["words"]))
    return None


def _check(path: Path) -> None:
    recording = Recording(path)
    check_range(str(path), recording.rate, recording.channels)
    if not recording.frames:
        raise RecordingError(str(path), "holds no audio")
