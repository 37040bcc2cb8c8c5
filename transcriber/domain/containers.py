"""Recognises files and text that are sent as PCM, by their first bytes. Pure."""

from __future__ import annotations

import base64
import binascii
import re

from transcriber.domain.errors import Rejection

REASON = "container"  # of a rejection

# By the first four bytes. Raw PCM begins with one of these once in hundreds of millions of chunks, and what must follow
# makes that never.
_BEGINNINGS: dict[bytes, tuple[str, re.Pattern[bytes]]] = {
    b"RIFF": ("WAV", re.compile(rb"RIFF....WAVE", re.DOTALL)),
    b"RF64": ("WAV", re.compile(rb"RF64....WAVE", re.DOTALL)),
    b"fLaC": ("FLAC", re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")),
    b"OggS": ("Ogg", re.compile(rb"OggS\x00[\x00-\x07]")),
    b"\x1aE\xdf\xa3": ("WebM", re.compile(rb"\x1aE\xdf\xa3.{0,60}(webm|matroska)", re.DOTALL)),
    b"FORM": ("AIFF", re.compile(rb"FORM....AIF[FC]", re.DOTALL)),
    b"#!AM": ("AMR", re.compile(rb"#!AMR")),
    b"caff": ("CAF", re.compile(rb"caff\x00\x01")),
    b".snd": ("AU", re.compile(rb"\.snd\x00\x00..", re.DOTALL)),
}
FIRST_BYTES = frozenset(signature[0] for signature in _BEGINNINGS)
SIGNATURES = frozenset(_BEGINNINGS)
DECODABLE = frozenset({"WAV", "FLAC", "Ogg", "AIFF", "MP3", "CAF", "AU"})  # by libsndfile
HEAD_BYTES = 72  # tell everything but MPEG audio without a tag: the longest signature is WebM's
FRAMES_BYTES = 2 * 8191 + 7  # tell that, too: two of the longest frames of ADTS, and a header

_MP4 = re.compile(rb"\x00\x00..(ftyp|styp|moof)", re.DOTALL)
_ID3 = re.compile(rb"ID3[\x02-\x04][^\xff][\x00-\xff][\x00-\x7f]{4}")
_JSON = re.compile(rb'\s*(\{\s*("|\})|\[\s*["\[{0-9\]-])')
_BASE64 = re.compile(rb"(data:[a-z0-9/+.;= -]*;base64,)?([A-Za-z0-9+/]{16,}|[A-Za-z0-9_-]{16,})")
# As 16-bit samples, so many printable bytes of so many kinds would all be above a quarter of full scale.
_TEXT_BYTES, _TEXT_KINDS = 64, 12
_JSON_BYTES, _JSON_KINDS = 8, 4
_LOOKED_AT = 4096  # bytes of base64: the beginning of an ID3 tag and an MP3 frame
_PRINTABLE = re.compile(rb"[\t\r\n\x20-\x7e]+")

# Headers of MPEG audio at the distances that they state: 33 bits must match. Fewer do if the data ends with a frame.
_FRAMES = 3
_SYNC_BYTES = 4
_ADTS_BYTES = 7
# Kilobits a second by index, of MPEG 1 and MPEG 2 layer III, as in ISO 11172-3 and 13818-3; 0: not allowed here.
_KBITS = {
    True: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 0),
    False: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 0),
}
_RATES = {3: (44_100, 48_000, 32_000), 2: (22_050, 24_000, 16_000), 0: (11_025, 12_000, 8000)}


def rejection(name: str) -> Rejection:
    """The rejection of a chunk that is not PCM but `name`."""
    return Rejection(
        REASON,
        f"the payload is {name}; allowed: raw PCM, or WAV of the same encodings. Send recordings to transcribe.<name>",
    )


def known(data: bytes) -> str | None:
    """Return the container's name by its signature; None if the bytes may be raw PCM."""
    found = _BEGINNINGS.get(data[:4])
    return found[0] if found is not None and found[1].match(data) else None


def name_of(data: bytes, *, wide: bool = True) -> str | None:
    """Return which kind of file or text begins here; None if it may be raw PCM. Takes microseconds.

    `wide`: as PCM, the samples have more than one byte. In A-law and mu-law, a quiet sound with a DC offset may be
    printable, so text is not looked for there.
    """
    if (name := known(data)) is not None:
        return name
    if _MP4.match(data):
        return "MP4"
    if _ID3.match(data) or _mpeg(data):
        return "MP3"
    if _adts(data):
        return "AAC"
    return _text(data, wide=wide)


def may_be_frames(head: bytes) -> bool:
    """Whether MPEG audio may begin here, which takes `FRAMES_BYTES` to tell."""
    return len(head) >= _ADTS_BYTES and (_mpeg_frame(head, 0) is not None or _adts(head[:_ADTS_BYTES], frames=1))


def _text(data: bytes, *, wide: bool) -> str | None:
    head = data[:_TEXT_BYTES]
    if not _PRINTABLE.fullmatch(head):
        return None
    if _JSON.match(head) and len(head) >= _JSON_BYTES and len(set(head)) >= _JSON_KINDS:
        return "JSON"
    if not wide or len(head) < _TEXT_BYTES:
        return None
    found = _BASE64.match(data[:_LOOKED_AT])
    coded = found is not None and (found[1] is not None or found.end() >= _TEXT_BYTES)
    if found is not None and coded and (name := _inside(found[2])) is not None:
        return f"base64 of {name}"
    if len(set(head)) < _TEXT_KINDS:
        return None
    return "base64" if coded else "text"


def _inside(text: bytes) -> str | None:
    """Return which file is encoded in base64 text, whose end may be missing."""
    try:
        data = base64.b64decode(text[: len(text) // 4 * 4], altchars=b"-_" if b"-" in text or b"_" in text else None)
    except (binascii.Error, ValueError):
        return None
    return name_of(data, wide=False)


def _mpeg(data: bytes) -> bool:
    """Whether consecutive frames of MPEG audio, layer III, begin at the first byte."""
    at, kind, count = 0, None, 0
    while count < _FRAMES and at + _SYNC_BYTES <= len(data):
        frame = _mpeg_frame(data, at)
        if frame is None or kind not in {None, frame[0]}:
            return False
        kind, count, at = frame[0], count + 1, at + frame[1]
    return count == _FRAMES or (count > 0 and at == len(data))


def _mpeg_frame(data: bytes, at: int) -> tuple[tuple[int, int], int] | None:
    """Return version and rate index, and the frame's size in bytes; None if this is no header."""
    first, second, third = data[at : at + 3]
    version, layer, rate = second >> 3 & 3, second >> 1 & 3, third >> 2 & 3
    if first != 0xFF or second < 0xE0 or version == 1 or layer != 1 or rate == 3:  # noqa: PLR2004 - of the standard
        return None
    newest = version == 3  # noqa: PLR2004 - MPEG 1
    kbits = _KBITS[newest][third >> 4]
    size = (144 if newest else 72) * kbits * 1000 // _RATES[version][rate] + (third >> 1 & 1)
    return ((version, rate), size) if kbits else None


def _adts(data: bytes, frames: int = _FRAMES) -> bool:
    """Whether consecutive frames of AAC in ADTS begin at the first byte."""
    at = count = 0
    while count < frames and at + _ADTS_BYTES <= len(data):
        size = (data[at + 3] & 3) << 11 | data[at + 4] << 3 | data[at + 5] >> 5
        if data[at] != 0xFF or data[at + 1] & 0xF6 != 0xF0 or size < _ADTS_BYTES:  # noqa: PLR2004 - of the standard
            return False
        at, count = at + size, count + 1
    return count == frames or (count > 0 and at == len(data))
