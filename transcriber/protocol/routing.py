"""The subjects of requests: for any model, or for one that only some workers have. Pure."""

from __future__ import annotations

import re

from transcriber.protocol.incoming import TRANSCRIBE, stream_of

_FORMATS = re.compile(r"^(ggml|ct2)-")  # how names of files and folders begin
_NOT_ALLOWED = re.compile(r"[^a-z0-9_-]")  # in a token of a subject
_LONGEST = 64  # characters of a token, as for streams


def model_subject(model: str) -> str | None:
    """The subject of requests for a model, up to their name: `transcribe.base-en` of `ggml-base.en` and of `base.en`.

    A model is known by its file or folder, so both formats share it. None if nothing is left of the name.
    """
    token = _NOT_ALLOWED.sub("-", _FORMATS.sub("", model.lower()))[:_LONGEST]
    return f"{TRANSCRIBE}.{token}" if token.strip("-") else None


def request_name(subject: str) -> str:
    """Return the name in a request's subject. Raises `Rejection` with the reason `stream`."""
    return stream_of(f"{TRANSCRIBE}.{subject.rpartition('.')[2]}")
