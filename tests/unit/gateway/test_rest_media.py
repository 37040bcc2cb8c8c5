"""Uploads opened as audio: recognised by their content, refused by name, bounded."""

from __future__ import annotations

import contextlib
import io
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from audio_files import encoded, tone
from harness import Speech, s16
from media_files import KINDS, media_file

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import RecordingError
from transcriber.gateway.problems import Problem
from transcriber.gateway.rest.media import open_media
from transcriber.gateway.rest.upload import Storage, Upload

Uploaded = Callable[[bytes], Awaitable[Upload]]


@pytest.fixture(scope="module")
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
async def uploaded(pool: ThreadPoolExecutor) -> AsyncIterator[Uploaded]:
    """Makes uploads of bytes, and closes them."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(data: bytes) -> Upload:
            upload = await stack.enter_async_context(Upload(Storage(pool, 1 << 30, disk=1 << 30)))
            await upload.write(data)
            await upload.finish()
            return upload

        yield make


def heard(upload: Upload, raw: AudioFormat | None = None) -> tuple[AudioFormat, np.ndarray]:
    """The format, and all samples of shape (frames, channels)."""
    media = open_media(upload, raw)
    samples = np.frombuffer(b"".join(media.blocks()), "<f4" if media.format.wide else "u1")
    return media.format, samples.reshape(-1, media.format.channels)


@pytest.mark.parametrize("container", ["WAV", "FLAC", "OGG", "MP3", "AIFF", "CAF", "AU"])
async def test_each_kind_of_libsndfile_is_decoded(container: str, uploaded: Uploaded) -> None:
    """With its rate and both channels."""
    sound = tone(48_000, 2)
    subtype = {"OGG": "OPUS", "MP3": "MPEG_LAYER_III"}.get(container, "PCM_16")
    found, samples = heard(await uploaded(encoded(sound, 48_000, subtype, container)))
    assert found == AudioFormat(Encoding.F32LE, 48_000, 2)
    assert abs(len(samples) - len(sound)) <= 4096  # lossy coders pad
    assert np.std(samples) == pytest.approx(np.std(sound), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
async def test_each_kind_of_the_extra_is_decoded(kind: str, heldout: Speech, uploaded: Uploaded) -> None:
    """Nothing is missing at either end: the coders' padding is under a tenth of a second."""
    speech = heldout.cut(3, 4)
    found, samples = heard(await uploaded(media_file(speech, kind)))
    assert (found.encoding, found.rate, found.channels) == (Encoding.F32LE, KINDS[kind][2], 1)
    assert 0 <= len(samples) / found.rate - len(speech.samples) / speech.rate < 0.1
    assert np.abs(samples).max() == pytest.approx(np.abs(speech.samples).max(), rel=0.3)


async def test_missing_extra_is_named(heldout: Speech, uploaded: Uploaded, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status says that the kind of file is at fault, and the text how to help it."""
    upload = await uploaded(media_file(heldout.cut(3, 4), "webm"))
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(Problem, match=r"the file is WebM, which needs: pip install 'transcriber\[media\]'") as caught:
        open_media(upload)
    assert caught.value.status == 415


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "the audio is empty: 0 bytes"),
        (b'{"audio": "UklGRiQAAABXQVZFZm10IBAAAAABAAEA"}', "the file is JSON; allowed: AIFF"),
        (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n" * 9, "the file is text; allowed"),
        (b"ffconcat version 1.0\nfile '/etc/passwd'\n" * 9, "the file is text; allowed"),
        (bytes(range(256)) * 9, "the file is of no known kind; allowed"),
        (b"fLaC\x00\x00\x00\x22" + b"\xff" * 1000, "the file is FLAC that cannot be decoded"),
        (b"RIFF\x00\x00\x00\x00WAVEjunk", "the file is WAV that cannot be decoded"),
        (b"\0\0\0\x1cftypM4A " + bytes(1000), "the file is MP4 that cannot be decoded"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\1B\xf7\x81\1B\xf2\x81\4B\xf3\x81\x08B\x82\x84webm" + bytes(99), "is WebM that"),
    ],
)
async def test_file_that_is_no_audio_is_refused(data: bytes, told: str, uploaded: Uploaded) -> None:
    """By the kind that it is, and with what is allowed."""
    with pytest.raises(Problem) as caught:
        open_media(await uploaded(data))
    assert caught.value.status == 400
    assert told in caught.value.message


@pytest.mark.parametrize(("rate", "channels"), [(4000, 1), (200_000, 1), (48_000, 9), (48_000, 1024)], ids=str)
async def test_rate_and_channels_out_of_range_are_refused(rate: int, channels: int, uploaded: Uploaded) -> None:
    """Before anything is decoded."""
    data = encoded(np.zeros((100, channels), np.float32), rate)
    with pytest.raises(Problem, match=f"{rate} Hz, channels: {channels}; allowed: 8000 to 192000 Hz, 1 to 8 channels"):
        open_media(await uploaded(data))


async def test_more_channels_than_the_library_knows_are_refused(uploaded: Uploaded) -> None:
    """The head of a WAV may state any number."""
    data = bytearray(encoded(np.zeros((100, 2), np.float32), 48_000))
    data[22:24] = (10_000).to_bytes(2, "little")
    with pytest.raises(Problem) as caught:
        open_media(await uploaded(bytes(data)))
    assert caught.value.status == 400


async def test_pcm_without_a_head_is_read_in_the_format_named(uploaded: Uploaded) -> None:
    """Its last half sample frame is left out. A file is believed before what was named."""
    raw = AudioFormat(Encoding.S16LE, 8000, 2)
    media = open_media(await uploaded(bytes(4001)), raw)
    assert (media.format, b"".join(media.blocks())) == (raw, bytes(4000))
    for kind in ("WAV", "FLAC"):
        data = encoded(tone(800, 1, 16_000), 16_000, container=kind)
        assert open_media(await uploaded(data), raw).format == AudioFormat(Encoding.F32LE, 16_000, 1)


async def test_damage_within_a_file_is_an_error(heldout: Speech, uploaded: Uploaded) -> None:
    """What was decoded before it has been given out by then."""
    file = io.BytesIO(encoded(heldout.samples[:, None], heldout.rate, "PCM_16", "FLAC"))
    data = file.getvalue()
    third = len(data) // 3
    media = open_media(await uploaded(data[:third] + bytes(third) + data[2 * third :]))
    with pytest.raises(RecordingError, match="damaged"):
        list(media.blocks())


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF])
async def test_wav_of_unknown_size_is_heard_to_its_end(size: int, uploaded: Uploaded) -> None:
    """A program that wrote to a pipe did not know it."""
    data = bytearray(encoded(tone(48_000), 48_000))
    data[40:44] = size.to_bytes(4, "little")
    media = open_media(await uploaded(bytes(data)))
    assert sum(len(block) for block in media.blocks()) // media.format.frame_bytes == 48_000


@pytest.mark.parametrize("kind", ["webm", "aac"])
async def test_recording_that_was_cut_off_is_heard_so_far(kind: str, heldout: Speech, uploaded: Uploaded) -> None:
    """A browser may be closed in the middle of a packet."""
    speech = heldout.cut(3, 4)
    data = media_file(speech, kind)
    found, samples = heard(await uploaded(data[: len(data) * 2 // 3]))
    assert 0.5 < len(samples) / found.rate / (len(speech.samples) / speech.rate) < 0.8


async def test_damage_within_a_track_is_an_error(heldout: Speech, uploaded: Uploaded) -> None:
    """What comes after it would be at the wrong time."""
    data = bytearray(media_file(heldout.cut(3, 4), "m4a"))
    third = len(data) // 3
    data[third : third + 2000] = bytes([0xA5]) * 2000
    media = open_media(await uploaded(bytes(data)))
    with pytest.raises(RecordingError, match="damaged"):
        list(media.blocks())


async def test_large_upload_is_in_a_file_and_hashed(pool: ThreadPoolExecutor) -> None:
    """What was written is read, in any number of writes; a second reading begins at the beginning."""
    data = s16(np.random.default_rng(1).standard_normal(1_500_000).astype(np.float32))
    async with Upload(Storage(pool, len(data), disk=1 << 30), hashed=True) as upload:
        for at in range(0, len(data), 700_001):
            await upload.write(data[at : at + 700_001])
        await upload.finish()
        assert upload.data is None
        assert upload.file().read() == data
        assert upload.file().read(100) == data[:100]
        assert len(upload.sha256) == 64
        with pytest.raises(Problem, match=f"GATEWAY_MAX_UPLOAD_BYTES={len(data)}") as caught:
            await upload.write(b"x")
        assert caught.value.status == 413


async def test_uploads_together_stay_within_memory(pool: ThreadPoolExecutor) -> None:
    """What is in a file, or closed, counts no more."""
    storage = Storage(pool, 1 << 30, disk=3_000_000, memory=2_000_000)
    async with Upload(storage) as first, Upload(storage) as second:
        await first.write(bytes(1_000_000))
        with pytest.raises(Problem, match="too many uploads at a time") as caught:
            await second.write(bytes(1_000_001))
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "1"})
        await first.write(bytes(100_000))  # and now it is in a file
        await second.write(bytes(1_000_000))
        assert (first.data, storage.memory, storage.disk) == (None, 1_000_000, 1_900_000)
        await second.write(bytes(900_000))
        with pytest.raises(Problem, match="no space for uploads"):
            await first.write(bytes(1_100_000))
    assert (storage.memory, storage.disk) == (2_000_000, 3_000_000)


async def test_full_disk_is_told_as_no_room(pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another attempt may succeed once other uploads are done. What was in memory is given free."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: Path("/dev/full").open("r+b", buffering=0))  # noqa: SIM115
    storage = Storage(pool, 1 << 30, disk=1 << 30)
    before = storage.memory, storage.disk
    async with Upload(storage) as upload:
        with pytest.raises(Problem, match="no space for uploads") as caught:
            await upload.write(bytes(2_000_000))
        assert (caught.value.status, caught.value.headers) == (503, {"Retry-After": "30"})
    assert (storage.memory, storage.disk) == before
