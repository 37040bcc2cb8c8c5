"""Opens an upload as audio, whatever it is called: by libsndfile, or by FFmpeg's libraries where they are installed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.containers import DECODABLE, name_of
from transcriber.domain.errors import RecordingError
from transcriber.domain.wav import wav_head
from transcriber.gateway.problems import Problem
from transcriber.protocol import incoming
from transcriber.recording import Recording

if TYPE_CHECKING:
    from collections.abc import Iterator

    from transcriber.gateway.rest.upload import Upload

# By their beginnings; FFmpeg's name for each. To name it keeps FFmpeg from taking text for a list of addresses to open.
_FOREIGN = {"WebM": "matroska", "MP4": "mov", "AAC": "aac", "AMR": "amr"}
_HEAD = 4096  # bytes by which a file is recognised: three frames of any MPEG audio
_BLOCK = 65_536  # sample frames: 1.4 s of 48 kHz, and 2 MiB with eight channels
_EXTRA = "pip install 'transcriber[media]'"


class Media(Protocol):
    """Open audio. `blocks` yields whole sample frames in `format`; it raises `RecordingError` for damage."""

    format: AudioFormat

    def blocks(self) -> Iterator[bytes]: ...


def open_media(upload: Upload, raw: AudioFormat | None = None) -> Media:
    """Open an upload; may wait for the disk. `raw`: the format of bytes that are no file.

    Raises `Problem`: 400 for what cannot be decoded or is out of range, 415 for what needs the extra.
    """
    if not upload.size:
        raise Problem(400, "the audio is empty: 0 bytes", code="invalid_audio", param="file")
    head = upload.file().read(_HEAD)
    kind = name_of(head)
    endless = wav_head(head) if kind == "WAV" else None
    try:
        if endless is not None and endless.format is not None and endless.size is None:
            media: Media = Raw(upload, endless.format, endless.start)  # libsndfile takes an unknown size for none
        elif raw is not None and not is_file(head):
            media = Raw(upload, raw)
        elif kind in _FOREIGN:
            media = _foreign(upload, str(kind))
        else:
            media = Sound(upload)
    except RecordingError as error:
        raise Problem(400, _refusal(kind, error), code="invalid_audio", param="file") from error
    check_range(media.format)
    return media


def is_file(head: bytes) -> bool:
    """Whether these bytes begin a file of audio, which is believed before what a client says."""
    return name_of(head[:_HEAD]) in {*DECODABLE, *_FOREIGN}


def _refusal(kind: str | None, error: RecordingError) -> str:
    if kind in {*DECODABLE, *_FOREIGN}:
        return f"the file is {kind} that cannot be decoded: {error}"
    what = f"the file is {kind}" if kind is not None else "the file is of no known kind"
    return f"{what}; allowed: {', '.join(sorted(DECODABLE))}, and with {_EXTRA}: {', '.join(_FOREIGN)}"


def check_range(audio: AudioFormat) -> None:
    """Raise `Problem` 400 for a rate or number of channels out of range."""
    if audio.rate not in incoming.RATES or audio.channels not in incoming.CHANNEL_COUNTS:
        found = f"{audio.rate} Hz, channels: {audio.channels}"
        message = f"{found}; allowed: 8000 to 192000 Hz, 1 to 8 channels"
        raise Problem(400, message, code="invalid_audio", param="file")


class Sound:
    """What libsndfile decodes."""

    def __init__(self, upload: Upload) -> None:
        self._recording = Recording(upload.file())
        self.format = AudioFormat(Encoding.F32LE, self._recording.rate, self._recording.channels)

    def blocks(self) -> Iterator[bytes]:
        for block in self._recording.blocks(_BLOCK):
            yield block.tobytes()


class Raw:
    """PCM from the byte `start` to the end. A last incomplete sample frame is left out."""

    def __init__(self, upload: Upload, audio: AudioFormat, start: int = 0) -> None:
        self._file = upload.file()
        self._file.seek(start)
        self.format = audio

    def blocks(self) -> Iterator[bytes]:
        while block := self._file.read(_BLOCK * self.format.frame_bytes):
            yield block[: len(block) // self.format.frame_bytes * self.format.frame_bytes]


def _foreign(upload: Upload, kind: str) -> Media:
    try:
        av: Any = importlib.import_module("av")
    except ImportError:
        raise Problem(
            415, f"the file is {kind}, which needs: {_EXTRA}", code="unsupported_media", param="file"
        ) from None
    return Foreign(av, upload, kind)


class Foreign:
    """What FFmpeg decodes: the first audio track, in the rate and channels of its first frame."""

    def __init__(self, av: Any, upload: Upload, kind: str) -> None:  # noqa: ANN401 - a module that may be missing
        self._av = av
        self._kind = kind
        try:
            self._container = av.open(
                upload.file(), format=_FOREIGN[kind], io_open=_nothing_else, metadata_errors="ignore"
            )
            if not self._container.streams.audio:
                raise RecordingError(kind, "it has no audio track")
            self._frames = self._decoded(self._container.streams.audio[0])
            self._first = next(self._frames, None)
        except (av.FFmpegError, ValueError, OSError) as error:
            raise RecordingError(kind, str(error)) from error
        if self._first is None:
            raise RecordingError(kind, "its audio track is empty")
        layout = self._first.layout
        self.format = AudioFormat(Encoding.F32LE, self._first.sample_rate, layout.nb_channels)
        self._resampler = av.AudioResampler(format="flt", layout=layout, rate=self.format.rate)

    def blocks(self) -> Iterator[bytes]:
        gathered = bytearray()
        try:
            for frame in self._all():
                for part in self._resampler.resample(frame):
                    gathered += part.to_ndarray().tobytes()
                if len(gathered) >= _BLOCK * self.format.frame_bytes:
                    yield bytes(gathered)
                    gathered.clear()
        except (self._av.FFmpegError, ValueError) as error:
            raise RecordingError(self._kind, f"damaged ({error})") from error
        yield bytes(gathered)

    def _decoded(self, stream: Any) -> Iterator[Any]:  # noqa: ANN401 - as above
        """Yield frames. What is damaged at the end is a recording that was cut off; elsewhere it is an error."""
        damage = None
        for packet in self._container.demux(stream):
            try:
                frames = packet.decode()
            except self._av.FFmpegError as error:
                damage = error
                continue
            if frames and packet.size and damage is not None:  # an empty packet ends the track
                raise damage
            yield from frames

    def _all(self) -> Iterator[Any]:
        yield self._first
        yield from self._frames
        yield None  # what the resampler holds back


def _nothing_else(url: str, *_: object) -> Any:  # noqa: ANN401 - as PyAV calls it
    """Refuse to open what a file refers to."""
    raise RecordingError(url, "a file may not refer to others")
