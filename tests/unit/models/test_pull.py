"""Downloading a model from a mirror that fails in every way a network can."""

from __future__ import annotations

import hashlib
import itertools
import re
import shutil
import socket
import threading
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from transcriber.domain.errors import ModelError
from transcriber.models.store import Published, bundled_model_path, pull

if TYPE_CHECKING:
    from collections.abc import Iterator

BODY = bundled_model_path().read_bytes()
PROBE = Published("probe", len(BODY), hashlib.sha256(BODY).hexdigest())
KNOWN = {"probe": PROBE}


@dataclass
class Mirror:
    """A file server and how it misbehaves."""

    url: str = ""
    body: bytes = BODY
    status: int | None = None  # answer this and nothing else
    ranges: bool = True  # honours Range
    lengths: bool = True  # says Content-Length
    shift: int = 0  # added to where a range is said to start
    cuts: Iterator[int] = field(default_factory=lambda: itertools.repeat(1 << 40))  # bytes until each connection dies
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request


class Handler(BaseHTTPRequestHandler):
    server: ThreadingHTTPServer

    def do_GET(self):
        mirror: Mirror = self.server.mirror
        wanted = self.headers.get("Range")
        mirror.asked.append(wanted)
        if mirror.status or self.path != "/ggml-probe.bin":
            self.send_error(mirror.status or 404)
            return
        start = int(re.fullmatch(r"bytes=(\d+)-", wanted)[1]) if wanted and mirror.ranges else 0
        if start >= len(mirror.body):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        if start:
            first = start + mirror.shift
            self.send_header("Content-Range", f"bytes {first}-{len(mirror.body) - 1}/{len(mirror.body)}")
        if mirror.lengths:
            self.send_header("Content-Length", str(len(mirror.body) - start))
        self.end_headers()
        try:
            self.wfile.write(mirror.body[start:][: next(mirror.cuts)])
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True  # the client has seen enough

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def mirror(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.mirror = Mirror(url=f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.mirror
        server.shutdown()
        thread.join()


def fetch(mirror: Mirror, directory: Path, model: Published = PROBE) -> tuple[Path, list[tuple[int, int]]]:
    """Pull `model` as "probe". Returns the file and every report of progress."""
    reports: list[tuple[int, int]] = []
    pulled = pull(
        "probe", directory, lambda *report: reports.append(report), base_url=mirror.url, models={"probe": model}
    )
    assert pulled.origin in {"from 127.0.0.1, as published", "was here already"}
    return pulled.path, reports


def failure(mirror: Mirror, directory: Path, model: Published = PROBE) -> ModelError:
    with pytest.raises(ModelError) as caught:
        fetch(mirror, directory, model)
    assert not (directory / "ggml-probe.bin").exists()
    return caught.value


def test_pull_downloads_a_whole_model(mirror, tmp_path):
    """One request, progress from nothing to all, the file in place, and no part left."""
    directory = tmp_path / "new" / "models"
    path, reports = fetch(mirror, directory)
    assert path == directory / "ggml-probe.bin"
    assert path.read_bytes() == BODY
    assert mirror.asked == [None]
    assert (reports[0], reports[-1]) == ((0, len(BODY)), (len(BODY), len(BODY)))
    assert reports == sorted(reports)
    assert list(directory.iterdir()) == [path]


def test_pull_takes_up_a_cut_connection(mirror, tmp_path):
    """Two connections die on the way. Each new one asks for the missing bytes only."""
    mirror.cuts = iter([5_000_000, 6_000_000, 1 << 40])
    path, _ = fetch(mirror, tmp_path)
    assert path.read_bytes() == BODY
    starts = [int(re.sub(r"\D", "", wanted or "0")) for wanted in mirror.asked]
    assert len(starts) == 3
    assert 4_900_000 < starts[1] <= 5_000_000
    assert 10_800_000 < starts[2] <= 11_000_000


def test_pull_resumes_what_an_earlier_call_left(mirror, tmp_path):
    """A part on disk is kept: the first report of progress starts where it ends."""
    (tmp_path / "ggml-probe.bin.part").write_bytes(BODY[:10_000_000])
    path, reports = fetch(mirror, tmp_path)
    assert path.read_bytes() == BODY
    assert mirror.asked == ["bytes=10000000-"]
    assert reports[0] == (10_000_000, len(BODY))


def test_pull_finishes_a_part_that_is_complete(mirror, tmp_path):
    """The earlier call stopped between the last byte and the check. Nothing is asked of the server."""
    (tmp_path / "ggml-probe.bin.part").write_bytes(BODY)
    assert fetch(mirror, tmp_path)[0].read_bytes() == BODY
    assert mirror.asked == []


@pytest.mark.parametrize(
    ("part", "misbehaviour", "requests"),
    [
        (b"stale" * 1000, {"ranges": False}, 1),
        (b"stale" * 1000, {"shift": 7}, 2),
        (BODY + b"too long", {}, 1),
    ],
    ids=["server ignores Range", "server sends another range", "part longer than the model"],
)
def test_pull_starts_over_when_it_cannot_resume(mirror, tmp_path, part, misbehaviour, requests):
    """Bytes on disk are dropped, and never joined to bytes that do not follow them."""
    (tmp_path / "ggml-probe.bin.part").write_bytes(part)
    for name, value in misbehaviour.items():
        setattr(mirror, name, value)
    assert fetch(mirror, tmp_path)[0].read_bytes() == BODY
    assert len(mirror.asked) == requests


def test_pull_gives_up_when_it_gets_no_further(mirror, tmp_path):
    """A server that never resumes and always stops at the same byte is not asked for ever."""
    mirror.ranges = False
    mirror.cuts = itertools.repeat(5_000_000)
    assert "IncompleteRead" in failure(mirror, tmp_path).reason
    assert len(mirror.asked) == 2


def test_pull_notices_an_end_without_a_length(mirror, tmp_path):
    """Without Content-Length a broken connection looks like an end. The published size tells them apart."""
    mirror.lengths = mirror.ranges = False
    mirror.cuts = itertools.repeat(5_000_000)
    assert f"the server stopped after 5000000 of {len(BODY)} bytes" in failure(mirror, tmp_path).reason


def test_pull_refuses_and_deletes_what_has_the_wrong_checksum(mirror, tmp_path):
    """The error has both checksums. Nothing is left that a later call would resume."""
    reason = failure(mirror, tmp_path, replace(PROBE, sha256="0" * 64)).reason
    assert reason == (f"the download's sha256 is {PROBE.sha256}, published is {'0' * 64}; it was deleted, pull again")
    assert list(tmp_path.iterdir()) == []


def test_pull_checks_the_format_even_when_the_checksum_is_right(mirror, tmp_path):
    """A published file that whisper.cpp could not take never gets the model's name."""
    mirror.body = b"no model" * 1000
    noise = Published("probe", 8000, hashlib.sha256(mirror.body).hexdigest())
    assert "is not a ggml Whisper file" in failure(mirror, tmp_path, noise).reason


@pytest.mark.parametrize(("part", "requests"), [(0, 1), (5_000_000, 1), (len(BODY) + 5, 2)])
def test_pull_refuses_a_file_of_another_size_at_once(mirror, tmp_path, part, requests):
    """The first answer shows the size, before gigabytes come, even where the range is past its end."""
    (tmp_path / "ggml-probe.bin.part").write_bytes(bytes(part))
    reason = failure(mirror, tmp_path, replace(PROBE, size=len(BODY) + 10)).reason
    assert f"the server's file has {len(BODY)} bytes, the published one {len(BODY) + 10}" in reason
    assert len(mirror.asked) == requests


def test_pull_stops_a_server_that_sends_too_much(mirror, tmp_path):
    """A stream without a length cannot fill the disk."""
    mirror.lengths = False
    assert "sends more than the published 1000 bytes" in failure(mirror, tmp_path, replace(PROBE, size=1000)).reason
    assert (tmp_path / "ggml-probe.bin.part").stat().st_size <= 1000


@pytest.mark.parametrize(("status", "answer"), [(404, "HTTP 404 Not Found"), (503, "HTTP 503 Service Unavailable")])
def test_pull_says_what_the_server_answered(mirror, tmp_path, status, answer):
    """The error has the refusal and the address that refused."""
    mirror.status = status
    assert f"cannot download {mirror.url}/ggml-probe.bin ({answer})" in str(failure(mirror, tmp_path))


def test_pull_without_a_network_says_where_to_put_the_file(tmp_path, monkeypatch):
    """The error has the address, the exact place for the file, and the command to run after."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with socket.socket() as bound:  # bound but not listening: connections are refused, and no one else gets the port
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        error = failure(Mirror(url=url), tmp_path)
    assert error.path == str(tmp_path / "ggml-probe.bin")
    assert error.reason == (
        f"cannot download {url}/ggml-probe.bin (Failed to establish a new connection: [Errno 111] Connection refused); "
        f"to do it by hand, place it at {tmp_path}/ggml-probe.bin, then run: transcriber models verify probe"
    )


def test_pull_keeps_the_part_for_the_next_call(mirror, tmp_path):
    """Bytes from before the network went away are not lost."""
    mirror.cuts = iter([5_000_000, 0])
    failure(mirror, tmp_path)
    assert 4_900_000 < (tmp_path / "ggml-probe.bin.part").stat().st_size <= 5_000_000
    mirror.cuts = itertools.repeat(1 << 40)
    assert fetch(mirror, tmp_path)[0].read_bytes() == BODY


def test_pull_of_what_is_there_asks_nothing(mirror, tmp_path):
    """A model in place is verified instead. The bundled one is never pulled."""
    shutil.copy(bundled_model_path(), tmp_path / "ggml-probe.bin")
    assert fetch(mirror, tmp_path)[0] == tmp_path / "ggml-probe.bin"
    assert pull("dispatch-mini", tmp_path, base_url=mirror.url).path == bundled_model_path()
    assert mirror.asked == []


def test_pull_replaces_a_damaged_file(mirror, tmp_path):
    """A file in the right place with the wrong bytes gives way to the right ones."""
    (tmp_path / "ggml-probe.bin").write_bytes(BODY[:1000])
    assert fetch(mirror, tmp_path)[0].read_bytes() == BODY


def test_pull_says_when_it_cannot_write(mirror, tmp_path):
    """A place that cannot hold the file is an error about the model, with the system's reason."""
    (tmp_path / "file").touch()
    assert failure(mirror, tmp_path / "file" / "below").reason == "cannot be written: Not a directory"


def test_pull_knows_only_the_names_of_the_table(mirror, tmp_path):
    """An unknown name is answered with the known ones."""
    with pytest.raises(ModelError, match=r"^model huge: neither a file nor a known name; known are probe$"):
        pull("huge", tmp_path, base_url=mirror.url, models=KNOWN)
