"""Vosk's WebSocket protocol: every binary message is answered by exactly one text message. Pure.

Source: https://github.com/alphacep/vosk-server/blob/master/websocket/asr_server.py, whose own defaults these are.
Clients send and receive in lock step, so a reply that is missing stops them, and a reply too many shifts all others.
"""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.dialects.channel import Channel, words
from transcriber.gateway.dialects.dialect import Close, Command, Hearing, Send
from transcriber.gateway.dialects.prompts import prompt_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

PATH = "/"
_RATES = (8_000, 192_000)  # Hz, as the wire protocol allows (P-3)
_GONE, _UNSUPPORTED = 1000, 1003  # RFC 6455, section 7.4.1
_UNKNOWN = "[unk]"  # in a list of phrases: whatever is none of them
_WORD = "conf", "start", "end", "word"


@dataclass(frozen=True, slots=True)
class _Options:
    """What a client may configure."""

    rate: int = 8_000
    model: str | None = None
    prompt: str | None = None  # of the phrases that a recogniser of Vosk would be limited to
    words: bool = True
    alternatives: bool = False  # answer with a list of one text, as clients with `max_alternatives` expect it


class Vosk:
    """One connection of a Vosk client."""

    max_message = 2**20  # bytes: 32 s of its audio at 16 kHz, where clients send 0.2 s

    def __init__(self) -> None:
        self._options = _Options()
        self._channel: Channel | None = None
        self._partial = ""
        self._settled: deque[Mapping[str, Any]] = deque()  # finals and gaps that no reply has told yet
        self._resetting = False
        self._owed = 0  # replies to audio that came while a reset was under way
        self._leaving = False

    def opened(self) -> Iterable[Command]:
        return ()

    def received(self, message: str | bytes) -> Iterator[Command]:
        if self._leaving:
            return
        if isinstance(message, bytes):
            yield from self._hear(message)
            return
        match _parsed(message):
            case {"config": {} as config}:
                yield from self._configure(config)
            case {"eof": _}:
                yield from self._leave()
            case {"reset": _}:
                yield from self._reset()
            case _:
                yield Close(_UNSUPPORTED, "a text message is a JSON object with config, eof or reset")

    def passes(self, pcm: bytes) -> bool:  # noqa: ARG002 - every message has its answer
        return False

    def heard(self, channel: int, message: Mapping[str, Any]) -> Iterator[Command]:  # noqa: ARG002 - there is one
        match message["type"]:
            case "partial":
                self._partial = message["text"]
            case "final":
                self._partial = ""
                if message["text"]:
                    self._settled.append(message)
            case "gap":
                self._settled.append(message)
            case "flushed" if self._resetting:
                self._resetting = False
                yield self._rest()
                for _ in range(self._owed):
                    yield self._reply()
                self._owed = 0
            case "ended":
                yield from self._ended()
            case "rejected":
                yield Close(_UNSUPPORTED, message["detail"])

    def refused(self, channel: int, reason: str, start: float, end: float) -> Iterable[Command]:  # noqa: ARG002
        self._settled.append({"type": "gap", "reason": reason, "start": start, "end": end})
        return ()

    def tick(self, now: float) -> Iterable[Command]:  # noqa: ARG002 - nothing here depends on time
        return ()

    def _hear(self, data: bytes) -> Iterator[Command]:
        if self._channel is None:
            sound = AudioFormat(Encoding.S16LE, self._options.rate, 1)
            self._channel = Channel(Hearing(format=sound, model=self._options.model, prompt=self._options.prompt))
        yield from self._channel.audio(data)
        if self._resetting:
            self._owed += 1
        else:
            yield self._reply()

    def _configure(self, config: Mapping[str, Any]) -> Iterator[Command]:
        known, model, phrases = self._options, config.get("model"), config.get("phrase_list")
        try:
            wanted = replace(
                known,
                rate=round(float(config.get("sample_rate", known.rate))),
                model=model if isinstance(model, str) else known.model,
                prompt=_prompt(phrases) if isinstance(phrases, list) else known.prompt,
                words=bool(config.get("words", known.words)),
                alternatives=bool(int(config.get("max_alternatives", known.alternatives))),
            )
        except (TypeError, ValueError, OverflowError):
            yield Close(_UNSUPPORTED, "config: sample_rate and max_alternatives are numbers")
            return
        low, high = _RATES
        if not low <= wanted.rate <= high:
            yield Close(_UNSUPPORTED, f"config: sample_rate={wanted.rate}; allowed: {low} to {high}")
        elif self._channel is not None and wanted.rate != known.rate:
            yield Close(_UNSUPPORTED, f"config: sample_rate is {known.rate} since the first audio, and stays so")
        self._options = wanted

    def _leave(self) -> Iterator[Command]:
        """Answer `eof`: with the rest of the text, once everything is settled."""
        self._leaving = True
        if self._channel is not None and self._channel.open:
            yield from self._channel.end()
        else:
            yield from self._ended()

    def _reset(self) -> Iterator[Command]:
        """Answer `reset` like `eof`, but go on."""
        if self._channel is not None and self._channel.open and not self._resetting:
            self._resetting = True
            yield from self._channel.flush()
        elif self._resetting:
            self._owed += 1
        else:
            yield self._rest()

    def _ended(self) -> Iterator[Command]:
        if self._channel is not None:
            self._channel.ended()
        if self._resetting:
            yield from self.heard(0, {"type": "flushed"})
        if self._leaving:
            yield self._rest()
            yield Close(_GONE)

    def _reply(self) -> Send:
        """Tell the oldest settled text that is still untold, or else what is known of the open window."""
        if self._settled:
            return self._result(self._settled.popleft())
        return Send(json.dumps({"partial": self._partial}, ensure_ascii=False))

    def _rest(self) -> Send:
        """Tell everything that is still untold at once."""
        settled = tuple(self._settled)
        self._settled.clear()
        self._partial = ""
        return self._result(*settled)

    def _result(self, *settled: Mapping[str, Any]) -> Send:
        finals = [message for message in settled if message["type"] == "final"]
        text: dict[str, Any] = {"text": " ".join(final["text"] for final in finals)}
        spoken = [word for final in finals for word in words(final)] if self._options.words else []
        if spoken:
            text["result"] = [self._word(word) for word in spoken]
        if self._options.alternatives:
            confidence = min((final["confidence"] for final in finals), default=0.0)
            text = {"alternatives": [text | {"confidence": confidence}]}
        lost = [self._gap(message) for message in settled if message["type"] == "gap"]
        return Send(json.dumps(text | ({"gaps": lost} if lost else {}), ensure_ascii=False))

    def _word(self, word: Mapping[str, Any]) -> dict[str, Any]:
        values = word["confidence"], self._at(word["start"]), self._at(word["end"]), word["word"]
        return dict(zip(_WORD, values, strict=True))

    def _gap(self, gap: Mapping[str, Any]) -> dict[str, Any]:
        return {"start": self._at(gap["start"]), "end": self._at(gap["end"]), "reason": gap["reason"]}

    def _at(self, seconds: float) -> float:
        return self._channel.at(seconds) if self._channel is not None else seconds


def _prompt(phrases: list[object]) -> str | None:
    return prompt_of(phrase for phrase in phrases if phrase != _UNKNOWN)


def _parsed(message: str) -> object:
    try:
        return json.loads(message)
    except (ValueError, RecursionError):
        return None
