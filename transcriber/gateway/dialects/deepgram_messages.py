"""The messages of Deepgram's live endpoint, as JSON. Pure.

Source: deepgram-sdk 7.17.0, `deepgram/listen/v1/types`. The SDK keeps fields that it does not know.
"""

from __future__ import annotations

import re
import uuid
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from transcriber.gateway.dialects.channel import words
from transcriber.gateway.native import json_dumps

if TYPE_CHECKING:
    from collections.abc import Mapping

_DIGITS = 6  # of seconds: more than a sample's length has, less than the noise of a subtraction
_EDGES = re.compile(r"^\W+|\W+$")  # punctuation around a word


@dataclass(frozen=True, slots=True)
class _Kind:
    """What a result says of itself. `gap`: why its audio was lost."""

    is_final: bool = True
    speech_final: bool = False
    from_finalize: bool = False
    gap: str = ""


_INTERIM = _Kind(is_final=False)


@dataclass(slots=True)
class Writer:
    """Writes the messages of one connection. `channels`: how many are heard on their own."""

    request_id: str
    created: str  # ISO 8601
    model: str
    channels: int = 1

    def interim(self, channel: int, partial: Mapping[str, Any]) -> str:
        """The text of a window that is still open."""
        return self._said(channel, partial, _INTERIM)

    def final(
        self, channel: int, final: Mapping[str, Any], *, speech_final: bool = False, from_finalize: bool = False
    ) -> str:
        """The text of a window."""
        return self._said(channel, final, _Kind(speech_final=speech_final, from_finalize=from_finalize))

    def nothing(self, channel: int, start: float, end: float, *, gap: str = "", from_finalize: bool = False) -> str:
        """A final result without text: of audio that was lost for the reason `gap`, or an answer to Finalize."""
        empty = {"transcript": "", "confidence": 0.0, "words": []}
        return self._result(channel, (start, end), empty, _Kind(from_finalize=from_finalize, gap=gap))

    def _said(self, channel: int, said: Mapping[str, Any], kind: _Kind) -> str:
        self.model = said.get("model") or self.model
        alternative = {
            "transcript": said["text"],
            "confidence": said["confidence"],
            "words": [_word(word) for word in words(said)],
        }
        return self._result(channel, (said["start"], said["end"]), alternative, kind)

    def _result(self, channel: int, bounds: tuple[float, float], alternative: Mapping[str, Any], kind: _Kind) -> str:
        start, end = bounds
        metadata: dict[str, Any] = {"request_id": self.request_id, **_about(self.model)}
        if kind.gap:
            metadata["gap"] = kind.gap
        return _json(
            type="Results",
            channel_index=[channel, self.channels],
            duration=round(end - start, _DIGITS),
            start=round(start, _DIGITS),
            is_final=kind.is_final,
            speech_final=kind.speech_final,
            from_finalize=kind.from_finalize,
            channel={"alternatives": [alternative]},
            metadata=metadata,
        )

    def speech_started(self, channel: int, at: float) -> str:
        return _json(type="SpeechStarted", channel=[channel, self.channels], timestamp=round(at, _DIGITS))

    def utterance_end(self, channel: int, last_word_end: float) -> str:
        index = [channel, self.channels]
        return _json(type="UtteranceEnd", channel=index, last_word_end=round(last_word_end, _DIGITS))

    def metadata(self, sha256: str, duration: float) -> str:
        """The last message. `sha256`: of all audio as it came; `duration`: its seconds."""
        return _json(
            type="Metadata",
            transaction_key="deprecated",
            request_id=self.request_id,
            sha256=sha256,
            created=self.created,
            duration=round(duration, _DIGITS),
            channels=self.channels,
        )

    def not_configured(self, *, keyterms: bool) -> str:
        """The answer to Configure: key terms and features are chosen with the query, once."""
        code = "CONFIGURE_KEYTERMS_NOT_SUPPORTED" if keyterms else "CONFIGURE_INTERNAL_ERROR"
        what = "keyterms" if keyterms else "features"
        description = f"{what} cannot change while a connection is open; name them in the query"
        return _json(type="ConfigureFailure", request_id=self.request_id, code=code, description=description)


def error(variant: str, description: str, message: str | None = None) -> str:
    """What is wrong with the client's input. `message`: the text that could not be read."""
    told = {} if message is None else {"message": message}
    return _json(type="Error", variant=variant, description=description, **told)


def _word(word: Mapping[str, Any]) -> dict[str, Any]:
    text = word["word"]
    return {
        "word": _EDGES.sub("", text).lower() or text,
        "start": round(word["start"], _DIGITS),
        "end": round(word["end"], _DIGITS),
        "confidence": word["confidence"],
        "punctuated_word": text,
    }


@lru_cache(maxsize=64)
def _about(model: str) -> Mapping[str, Any]:
    """The model as Deepgram describes one. Its id is made of its name, so that all gateways tell the same."""
    info = {"name": model, "version": "", "arch": "whisper"}
    return {"model_info": info, "model_uuid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"transcriber:{model}"))}


def _json(**fields: object) -> str:
    return json_dumps(fields)
