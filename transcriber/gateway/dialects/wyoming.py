"""Wyoming's protocol for speech to text, as Home Assistant speaks it. Pure.

Source: https://github.com/OHF-Voice/wyoming. An utterance is `transcribe`, `audio-start`, `audio-chunk`s, `audio-stop`.
Its `transcript` always comes, at worst empty: Home Assistant waits for it without a limit, and ignores `error`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from transcriber.domain import languages
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.languages import WHISPER_ORDER
from transcriber.gateway.dialects.channel import Channel
from transcriber.gateway.dialects.dialect import Close, Command, Hearing, Send
from transcriber.gateway.dialects.prompts import prompt_of
from transcriber.gateway.dialects.wyoming_events import Event, EventError, Events, encode

_WIDTH = 2  # bytes a sample: 16 bits, which is all that its clients send
_RATES, _CHANNELS = (8_000, 192_000), (1, 8)  # as the wire protocol allows (P-3)
_MALFORMED = 1002  # RFC 6455, section 7.4.1; TCP has no such codes, and only closes
_ENGLISH = ("en",)
_ANY_MODEL = "default"
_USUAL = AudioFormat(Encoding.S16LE, 16_000, 1)  # what Home Assistant sends


@dataclass(frozen=True, slots=True)
class Program:
    """What `describe` is answered with: our version, and for each model at work whether it knows all languages."""

    version: str
    models: Mapping[str, bool] = field(default_factory=dict)


class Wyoming:
    """One connection over TCP: `received` takes bytes as they come, cut anywhere."""

    max_message = 2**20  # bytes of one event, as in the other dialects

    def __init__(self, program: Callable[[], Program]) -> None:
        self._program = program
        self._events = Events(self.max_message)
        self._asked: Mapping[str, Any] = {}  # the data of the last `transcribe`
        self._utterances: deque[_Utterance] = deque()  # audio belongs to the last, what the daemon says to the first

    def opened(self) -> Iterable[Command]:
        return ()

    def received(self, message: str | bytes) -> Iterator[Command]:
        try:
            for event in self._events.add(message if isinstance(message, bytes) else message.encode()):
                yield from self._take(event)
        except EventError as error:
            yield _send("error", {"text": str(error), "code": "malformed"})
            yield Close(_MALFORMED, str(error))

    def passes(self, pcm: bytes) -> bool:  # noqa: ARG002 - audio comes in events
        return False

    def heard(self, channel: int, message: Mapping[str, Any]) -> Iterator[Command]:  # noqa: ARG002 - there is one
        if not self._utterances:
            return
        utterance = self._utterances[0]
        match message["type"]:
            case "partial":
                yield from utterance.grow(message["stable"])
            case "final":
                yield from utterance.settle(message)
            case "gap":
                utterance.lose(message["reason"], message["start"], message["end"])
            case "rejected":
                yield from utterance.fail(message["reason"], message["detail"])
            case "ended":
                utterance.channel.ended()
                yield from self._answer()

    def refused(self, channel: int, reason: str, start: float, end: float) -> Iterable[Command]:  # noqa: ARG002
        if self._utterances:
            self._utterances[0].lose(reason, start, end)
        return ()

    def tick(self, now: float) -> Iterable[Command]:  # noqa: ARG002 - nothing here depends on time
        return ()

    def last_words(self, reason: str) -> bytes:
        """The connection is about to be closed: the answers to the utterances that are over, with what is known."""
        waiting = [utterance for utterance in self._utterances if utterance.over and utterance.wanted]
        self._utterances.clear()
        return b"".join(
            cast("bytes", command.message)
            for utterance in waiting
            for command in (*utterance.fail("closed", reason), *utterance.answer())
            if isinstance(command, Send)
        )

    @staticmethod
    def refusal(reason: str) -> bytes:
        """What a client is told that does not get in."""
        return encode(Event("error", {"text": reason, "code": "too_many_connections"}))

    def _take(self, event: Event) -> Iterator[Command]:
        match event.type:
            case "describe":
                yield _send("info", info(self._program()))
            case "ping":
                yield _send("pong", {"text": event.data.get("text")})
            case "transcribe":
                self._asked = event.data
            case "audio-start":
                yield from self._begin(event)
            case "audio-chunk":
                yield from self._hear(event)
            case "audio-stop":
                yield from self._stop()
            case _:
                pass  # as Wyoming's own servers do

    def _begin(self, event: Event) -> Iterator[Command]:
        if self._utterances and not self._utterances[-1].over:  # no audio-stop: nobody waits for its transcript
            yield from self._utterances[-1].leave(wanted=False)
            yield from self._answer()
        sound, problem = _sound(event.data)
        language = languages.code(str(self._asked.get("language") or ""))
        name = self._asked.get("name")
        model = name if isinstance(name, str) and name != _ANY_MODEL else None
        utterance = _Utterance(Hearing(format=sound, model=model, language=language, prompt=_prompt(self._asked)))
        self._utterances.append(utterance)
        if problem:
            yield from utterance.fail("format", problem)

    def _hear(self, event: Event) -> Iterator[Command]:
        if not self._utterances or self._utterances[-1].over:
            yield from self._begin(event)
        utterance = self._utterances[-1]
        if utterance.failed:
            return
        sound, problem = _sound(event.data)
        if not problem and sound != utterance.channel.hearing.format:
            problem = "the format of audio-chunk differs from that of audio-start"
        if problem:
            yield from utterance.fail("format", problem)
        else:
            yield from utterance.channel.audio(event.payload)

    def _stop(self) -> Iterator[Command]:
        if not self._utterances or self._utterances[-1].over:
            self._utterances.append(_Utterance(Hearing(format=_USUAL)))
        yield from self._utterances[-1].leave(wanted=True)
        yield from self._answer()

    def _answer(self) -> Iterator[Command]:
        """Answer the utterances that are over and settled, in their order."""
        while self._utterances and self._utterances[0].over and not self._utterances[0].channel.open:
            utterance = self._utterances.popleft()
            if utterance.wanted:
                yield from utterance.answer()


class _Utterance:
    """From `audio-start` to `transcript`."""

    def __init__(self, hearing: Hearing) -> None:
        self.channel = Channel(hearing)
        self.over = False  # its audio has ended
        self.wanted = True  # the client waits for its transcript
        self.failed = False
        self._language = hearing.language
        self._begun = False
        self._texts: list[str] = []
        self._told = ""  # of the open window, in chunks
        self._gaps: list[dict[str, Any]] = []

    def leave(self, *, wanted: bool) -> Iterator[Command]:
        self.over, self.wanted = True, wanted
        yield from self.channel.end()

    def grow(self, text: str) -> Iterator[Command]:
        """Tell what is new at the end of the open window's text. What was told cannot be taken back."""
        if text.startswith(self._told) and text != self._told and self.wanted:
            more = text[len(self._told) :]
            space = " " if self._texts and not self._told else ""
            self._told = text
            yield from self._begin()
            yield _send("transcript-chunk", {"text": space + more})

    def settle(self, final: Mapping[str, Any]) -> Iterator[Command]:
        """Take the text of a closed window."""
        yield from self.grow(final["text"])
        if final["text"]:
            self._texts.append(final["text"])
            self._language = final["language"]
        self._told = ""

    def lose(self, reason: str, start: float, end: float) -> None:
        at = self.channel.at
        self._gaps.append({"start": at(start), "end": at(end), "reason": reason})

    def fail(self, code: str, text: str) -> Iterator[Command]:
        """Tell what is wrong with the audio, once; the transcript will say what came before."""
        if not self.failed:
            self.failed = True
            yield _send("error", {"text": text, "code": code})

    def answer(self) -> Iterator[Command]:
        text = " ".join(self._texts)
        if self._gaps and not text:
            reasons = ", ".join(sorted({gap["reason"] for gap in self._gaps}))
            yield from self.fail(self._gaps[0]["reason"], f"the audio was not transcribed: {reasons}")
        gaps = {"gaps": self._gaps} if self._gaps else {}
        yield from self._begin()
        yield _send("transcript", {"text": text, **self._named(), **gaps})
        yield _send("transcript-stop", {})

    def _begin(self) -> Iterator[Command]:
        if not self._begun:
            self._begun = True
            yield _send("transcript-start", self._named())

    def _named(self) -> dict[str, str]:
        return {} if self._language is None else {"language": self._language}


def info(program: Program) -> dict[str, Any]:
    """The data of `info`. Without workers, one model stands for all: Home Assistant asks once, when it is set up."""
    maker = {"attribution": {"name": "transcriber", "url": ""}, "installed": True, "version": program.version}
    models = [
        {"name": name, "description": name, "languages": list(WHISPER_ORDER if multilingual else _ENGLISH), **maker}
        for name, multilingual in (program.models or {_ANY_MODEL: True}).items()
    ]
    service = {
        "name": "transcriber",
        "description": "Speech to text over NATS",
        "models": models,
        "supports_transcript_streaming": True,
        "requires_external_vad": True,  # the client says when a command ends
        **maker,
    }
    return {"asr": [service]}


def _prompt(asked: Mapping[str, Any]) -> str | None:
    """Names come first: Wyoming says that they count for more than terms."""
    listed = [asked.get(key) for key in ("transcript_names", "transcript_terms")]
    return prompt_of(term for entry in listed if isinstance(entry, list) for term in entry)


def _sound(data: Mapping[str, Any]) -> tuple[AudioFormat, str]:
    """Read the format of audio, and say what is wrong with it, if anything."""
    allowed = {"rate": _RATES, "width": (_WIDTH, _WIDTH), "channels": _CHANNELS}
    for name, (low, high) in allowed.items():
        value = data.get(name)
        if type(value) is not int or not low <= value <= high:
            return _USUAL, f"{name}={value!r}; allowed: {low} to {high}"
    return AudioFormat(Encoding.S16LE, data["rate"], data["channels"]), ""


def _send(kind: str, data: Mapping[str, Any]) -> Send:
    return Send(encode(Event(kind, data)))
