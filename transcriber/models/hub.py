"""Downloads a file from the official host, and resumes an earlier download."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import requests

from transcriber.domain.errors import ModelError, Unavailable

TIMEOUT = (10.0, 30.0)  # seconds: to connect, and without data during the download
BLOCK_BYTES = 1 << 16  # written and reported at a time; a cut connection wastes no more

Progress = Callable[[int, int], None]  # bytes done (including resumed ones), bytes in all


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """The download of one file of `size` bytes into `part`, which will become `target`, the model `name`."""

    url: str
    name: str
    size: int
    target: Path
    part: Path
    progress: Progress

    def run(self) -> None:
        """Fetch until complete. A cut connection is resumed, as long as each try gets further than all before.

        Raises `Unavailable` (no connection, or the server refuses) and `ModelError` (the server has another file).
        """
        if (furthest := self._have()) > self.size:
            self.part.unlink()
            furthest = 0
        while self._have() != self.size:
            problem = self._fetch()
            if problem and self._have() <= furthest:
                raise self._unavailable(problem)
            furthest = self._have()

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _fetch(self) -> str | None:
        """Append the server's data to the part. Returns why it stopped early; None if it did not."""
        try:
            offset, response = self._open(self._have())
            with response, self.part.open("ab" if offset else "wb") as file:
                self.progress(offset, self.size)
                for block in response.iter_content(BLOCK_BYTES):
                    offset += len(block)
                    if offset > self.size:
                        raise self._wrong(f"the server sends more than the published {self.size} bytes")
                    file.write(block)
                    self.progress(offset, self.size)
        except requests.RequestException as error:
            return _cause(error)
        return None if offset == self.size else f"the server stopped after {offset} of {self.size} bytes"

    def _open(self, offset: int) -> tuple[int, requests.Response]:
        """Request the file from `offset` on. Returns the real offset, which is 0 if the server does not resume."""
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={offset}-"} if offset else {})
        response = requests.get(self.url, headers=headers, stream=True, timeout=TIMEOUT)
        status = response.status_code
        sent = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", ""))
        if status == HTTPStatus.PARTIAL_CONTENT and sent and int(sent[1]) == offset:
            total = int(sent[2])
        elif offset and status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            response.close()
            return self._open(0)
        elif status == HTTPStatus.OK:
            offset, total = 0, int(response.headers.get("Content-Length", self.size))
        else:
            response.close()
            raise self._unavailable(f"HTTP {status} {response.reason}")
        if total != self.size:
            response.close()
            raise self._wrong(f"the server's file has {total} bytes, the published one {self.size}")
        return offset, response

    def _unavailable(self, problem: str) -> Unavailable:
        return Unavailable(str(self.target), self.name, f"download {self.url} ({problem})")

    def _wrong(self, problem: str) -> ModelError:
        return ModelError(str(self.target), self._unavailable(problem).reason)


def _cause(error: BaseException) -> str:
    """Return the innermost reason: requests wraps urllib3, which wraps the real error."""
    for inner in (getattr(error, "reason", None), *error.args):
        if isinstance(inner, BaseException):
            return _cause(inner)
    return re.sub(r"^HTTPS?Connection(Pool)?\([^)]*\): ", "", str(error))
