"""Deepgram's live endpoint, `/v1/listen`. Pure.

Source: https://developers.deepgram.com/reference/speech-to-text/listen-streaming and deepgram-sdk 7.17.0. Unlike
there, every Finalize is answered by exactly one result with `from_finalize`, for each channel.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from transcriber.domain.chunks import AudioFormat
from transcriber.domain.containers import name_of
from transcriber.domain.wav import wav_head
from transcriber.gateway.dialects import deepgram_messages as messages
from transcriber.gateway.dialects.channel import Channel, words
from transcriber.gateway.dialects.deepgram_line import Line, Utterance
from transcriber.gateway.dialects.deepgram_query import ENCODINGS, RATES, most_channels
from transcriber.gateway.dialects.dialect import Close, Command, Keepalive, Send
from transcriber.gateway.native import json_loads

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from transcriber.gateway.dialects.deepgram_query import Listening

_IDLE = 10.0  # seconds without a message after which Deepgram closes
_HEAD = 65_536  # bytes: a longer head of a WAV file holds no audio, but pictures
_WAV = b"RIFF"
_DONE, _BAD_DATA, _GIVEN_UP, _TRY_AGAIN = 1000, 1008, 1011, 1013  # RFC 6455, section 7.4.1, and its registry
_SHOWN = 200  # characters of a message that could not be read
_TYPES = "CloseStream, Configure, Finalize, KeepAlive"


class Deepgram:
    """One connection. `created`: when it was opened, in ISO 8601."""

    max_message = 2**20  # bytes: 32 s of 16 kHz audio, where clients send a tenth of a second

    def __init__(self, asked: Listening, request_id: str, created: str) -> None:
        self._asked = asked
        self._writer = messages.Writer(request_id, created, asked.model or "")
        self._lines: list[Line] = []  # none before the first audio
        self._head = b""  # bytes that may be the beginning of a WAV head
        self._frame_bytes = 0  # of a frame of all channels
        self._rest = b""  # of a frame that is not whole yet, when channels are split
        self._sha256 = hashlib.sha256()
        self._leaving = False
        self._stirred = True  # there was a message since the last tick
        self._since = 0.0  # the tick after the last message

    def opened(self) -> Iterable[Command]:
        return ()

    def received(self, message: str | bytes) -> Iterator[Command]:
        if self._leaving:
            return
        self._stirred = True
        if isinstance(message, bytes):
            yield from self._hear(message)
            return
        match _parsed(message):
            case {"type": "KeepAlive"}:
                yield from (Keepalive(number) for number, line in enumerate(self._lines) if line.channel.open)
            case {"type": "Finalize", **rest}:
                yield from self._finalize(rest.get("channel"))
            case {"type": "CloseStream"}:
                self._leaving = True
                for line in self._lines:
                    yield from line.channel.end()
                yield from self._left()
            case {"type": "Configure", **rest}:
                yield Send(self._writer.not_configured(keyterms=rest.get("keyterms") is not None))
            case _:
                description = f"a text message is a JSON object with one of these types: {_TYPES}"
                yield Send(messages.error("SchemaError", description, message[:_SHOWN]))

    def passes(self, pcm: bytes) -> bool:
        if self._leaving or len(self._lines) != 1 or self._lines[0].utterance is not None:
            return False
        if not self._lines[0].channel.passes(pcm):
            return False
        self._stirred = True
        self._sha256.update(pcm)
        return True

    def heard(self, channel: int, message: Mapping[str, Any]) -> Iterator[Command]:
        line = self._lines[channel]
        match message["type"]:
            case "partial" if self._asked.interim:
                yield Send(self._writer.interim(channel, self._timed(line, message)), optional=True)
            case "final":
                yield from self._final(channel, line, self._timed(line, message))
            case "gap":
                yield from self._gap(channel, line, self._timed(line, message), message["reason"])
            case "speech" if message.get("end") is None:
                yield from self._speech(channel, line, line.channel.at(message["start"]))
            case "flushed":
                yield from self._settled(channel, line, line.channel.at(message["end"]), [line.settle_flush()])
            case "ended":
                line.channel.ended()
                lacking = [line.settle_flush() for _ in range(line.owed)]
                yield from self._settled(channel, line, line.channel.heard, lacking)
                yield from self._left()
            case "rejected":
                yield from self._rejected(message["reason"], message["detail"])

    def refused(self, channel: int, reason: str, start: float, end: float) -> Iterator[Command]:
        line = self._lines[channel]
        yield from self._gap(channel, line, {"start": line.channel.at(start), "end": line.channel.at(end)}, reason)

    def tick(self, now: float) -> Iterator[Command]:
        if self._stirred:
            self._stirred, self._since = False, now
        for number, line in enumerate(self._lines):
            certain = line.pace.tick(now, line.channel.heard)
            yield from self._utterance_end(number, line.utterance_over(certain))
        if now - self._since >= _IDLE and not self._leaving:
            yield Close(_GIVEN_UP, f"NET-0001: neither audio nor KeepAlive for {_IDLE:g} s")

    def _hear(self, data: bytes) -> Iterator[Command]:
        self._sha256.update(data)
        if not self._lines:
            found = self._begin(self._head + data)
            if isinstance(found, str):
                yield from self._undecodable(found)
            if not isinstance(found, bytes):
                return
            data, self._head = found, b""
        for number, (line, part) in enumerate(zip(self._lines, self._parts(data), strict=True)):
            yield from line.channel.audio(part)
            yield from self._utterance_end(number, line.utterance_over())

    def _begin(self, data: bytes) -> bytes | str | None:
        """Learn the format. Returns the first samples, what is wrong with them, or None if more bytes are needed."""
        audio_format = self._asked.format
        if data and data[: len(_WAV)] == _WAV[: len(data)]:
            head = wav_head(data)
            if head is None and len(data) < _HEAD:
                self._head = data
                return None
            if head is not None and head.start:
                if head.format is None:
                    return f"the WAV file's samples have an encoding that is not one of {', '.join(ENCODINGS)}"
                audio_format, data = head.format, data[head.start :]
        if audio_format is None:
            name = name_of(data) or "not WAV, and the query names no encoding"
            return f"the audio is {name}; allowed: raw PCM with encoding and sample_rate in the query, or WAV"
        (low, high), most = RATES, most_channels(split=self._asked.split)
        rate, channels = audio_format.rate, audio_format.channels
        if not low <= rate <= high or not 1 <= channels <= most:
            return (
                f"the WAV head says {rate} Hz, {channels} channels; allowed: {low} to {high} Hz, 1 to {most} channels"
            )
        self._open(audio_format)
        return data

    def _open(self, audio_format: AudioFormat) -> None:
        self._frame_bytes = audio_format.frame_bytes
        count = audio_format.channels if self._asked.split else 1
        each = AudioFormat(audio_format.encoding, audio_format.rate, audio_format.channels // count)
        pause = self._asked.utterance_end
        self._writer.channels = count
        for number in range(count):
            channel = Channel(self._asked.hearing(each), number)
            self._lines.append(Line(channel, None if pause is None else Utterance(pause)))

    def _parts(self, data: bytes) -> list[bytes]:
        """The samples of each channel."""
        count = len(self._lines)
        if count == 1:
            return [data]
        data = self._rest + data
        whole = len(data) - len(data) % self._frame_bytes
        self._rest = data[whole:]
        view, size = memoryview(data)[:whole], self._frame_bytes // count
        samples = view if size == 1 else view.cast("H") if size == 2 else view.cast("I")  # noqa: PLR2004 - bytes
        return [samples[number::count].tobytes() for number in range(count)]

    def _finalize(self, only: object) -> Iterator[Command]:
        count = max(1, len(self._lines))
        if only is not None and (not isinstance(only, int) or not 0 <= only < count):
            description = f"Finalize: channel={only!r:.80} is not allowed: 0 to {count - 1}, or none for all"
            yield Send(messages.error("SchemaError", description))
            return
        for number in range(count) if only is None else (only,):
            line = self._lines[number] if self._lines else None
            if line is not None and line.channel.open:
                line.owed += 1
                yield from line.channel.flush()
            else:
                at = line.channel.heard if line is not None else 0.0
                yield Send(self._writer.nothing(number, at, at, from_finalize=True))

    def _final(self, channel: int, line: Line, final: Mapping[str, Any]) -> Iterator[Command]:
        closed = final.get("closed")
        yield Send(
            self._writer.final(
                channel,
                final,
                speech_final=closed == "pause" and self._asked.speech_final,
                from_finalize=closed == "flush" and line.take_answer(),
            )
        )
        if line.utterance is not None:
            said = words(final)
            word = said[-1]["end"] if said else (final["end"] if final["text"] else None)
            line.utterance.settled(final["end"], word)
            yield from self._utterance_end(channel, line.utterance_over())

    def _gap(self, channel: int, line: Line, bounds: Mapping[str, Any], reason: str) -> Iterator[Command]:
        yield Send(self._writer.nothing(channel, bounds["start"], bounds["end"], gap=reason))
        if line.utterance is not None:
            line.utterance.lost(bounds["start"], bounds["end"])
            yield from self._utterance_end(channel, line.utterance_over())

    def _speech(self, channel: int, line: Line, start: float) -> Iterator[Command]:
        if line.utterance is not None:
            line.utterance.opened(start)
            yield from self._utterance_end(channel, line.utterance_over())
        if self._asked.vad_events:
            yield Send(self._writer.speech_started(channel, start))

    def _settled(self, channel: int, line: Line, end: float, lacking: list[bool]) -> Iterator[Command]:
        """Everything before `end` is settled. `lacking`: for each Finalize, whether it still lacks its answer."""
        for _ in filter(None, lacking):
            yield Send(self._writer.nothing(channel, end, end, from_finalize=True))
        if line.utterance is not None:
            line.utterance.settled(end)
            yield from self._utterance_end(channel, line.utterance_over(end))

    def _utterance_end(self, channel: int, last_word_end: float | None) -> Iterator[Command]:
        if last_word_end is not None:
            yield Send(self._writer.utterance_end(channel, last_word_end))

    def _left(self) -> Iterator[Command]:
        """Say goodbye after CloseStream, when every session has ended."""
        if not self._leaving or any(line.channel.open for line in self._lines):
            return
        duration = self._lines[0].channel.heard if self._lines else 0.0
        yield Send(self._writer.metadata(self._sha256.hexdigest(), duration))
        yield Close(_DONE)

    def _rejected(self, reason: str, detail: str) -> Iterator[Command]:
        if reason == "streams":
            yield Close(_TRY_AGAIN, "no worker takes another stream")
        else:
            yield from self._undecodable(detail)

    def _undecodable(self, detail: str) -> Iterator[Command]:
        self._leaving = True
        yield Send(messages.error("DATA-0000", detail))
        yield Close(_BAD_DATA, "DATA-0000: the audio cannot be decoded")

    def _timed(self, line: Line, message: Mapping[str, Any]) -> Mapping[str, Any]:
        """The message with times on the client's clock."""
        base = line.channel.base
        if not base:
            return message
        return _shifted(message, base)


def _shifted(message: Mapping[str, Any], by: float) -> dict[str, Any]:
    moved = {**message, "start": message["start"] + by, "end": message["end"] + by}
    for inner in ("segments", "words"):
        if inner in message:
            moved[inner] = [_shifted(part, by) for part in message[inner]]
    return moved


def _parsed(message: str) -> object:
    try:
        return json_loads(message)
    except (ValueError, RecursionError):
        return None
