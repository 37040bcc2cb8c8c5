"""Short recordings that need no decoding, and long ones in parts."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from audio_files import encoded, tone
from harness import s16

from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.gateway.problems import Problem
from transcriber.gateway.rest.reading import Limits, Part, PartReader, whole
from transcriber.gateway.rest.upload import Storage, Upload

LIMITS = Limits(max_payload=1 << 20, max_audio=3600.0)
PCM = AudioFormat(Encoding.S16LE, 8000, 2)


def test_short_wav_goes_as_it_is() -> None:
    """Its samples and its format, without the head and what follows the samples."""
    sound = tone(16_000, 2)
    data = encoded(sound, 8000) + b"LIST\x04\x00\x00\x00INFO"
    part = whole(data, None, LIMITS)
    assert part is not None
    assert (part.format, part.start, part.seconds) == (PCM, 0.0, 2.0)
    assert np.abs(np.frombuffer(part.pcm, "<i2") / 32768 - sound.ravel()).max() < 1e-4
    assert len(part.pcm) == 64_000


def test_short_pcm_goes_as_it_is() -> None:
    """Without its last half sample frame."""
    assert whole(bytes(32_003), PCM, LIMITS) == Part(0, 0.0, 1.0, PCM, bytes(32_000))


@pytest.mark.parametrize(
    ("data", "raw"),
    [
        (b"", PCM),
        (b"RIFF", None),
        (encoded(np.zeros(0, np.float32), 8000), None),
        (encoded(tone(8000), 8000, "PCM_24"), None),  # in samples that the wire protocol has not
        (encoded(tone(8000), 8000, container="FLAC"), None),
        (encoded(tone(8000), 8000, container="FLAC"), PCM),  # a file, whatever the client says
        (bytes(8000 * 4 * 31), PCM),  # longer than a part
        (bytes((1 << 20) - 4000), AudioFormat(Encoding.F32LE, 192_000, 1)),  # too large with its headers
    ],
)
def test_anything_else_is_decoded(data: bytes, raw: AudioFormat | None) -> None:
    """None says so."""
    assert whole(data, raw, LIMITS) is None


def test_channels_with_texts_of_their_own_are_taken_apart() -> None:
    """A mono recording needs no taking apart."""
    assert whole(bytes(32_000), PCM, LIMITS, each_channel=True) is None
    assert whole(bytes(32_000), AudioFormat(Encoding.S16LE, 8000, 1), LIMITS, each_channel=True) is not None


def test_rate_out_of_range_is_refused() -> None:
    """By the head of a WAV."""
    with pytest.raises(Problem, match="4000 Hz, channels: 1; allowed"):
        whole(encoded(tone(100), 4000), None, LIMITS)


def read(data: bytes, raw: AudioFormat | None, limits: Limits = LIMITS, *, each_channel: bool = False) -> list[Part]:
    """All parts of an upload."""

    async def upload_and_read() -> list[Part]:
        with ThreadPoolExecutor(1) as pool:
            async with Upload(Storage(pool, 1 << 30, disk=1 << 30)) as upload:
                await upload.write(data)
                await upload.finish()
                reader = PartReader(upload, raw, limits, each_channel=each_channel)
                parts = []
                while (part := reader.read()) is not None:
                    parts.append(part)
                assert reader.channels == (raw.channels if raw and each_channel else 1)
                return parts

    return asyncio.run(upload_and_read())


def test_parts_fit_the_servers_messages() -> None:
    """A server may allow less than a megabyte. The parts tile the recording, to the sample."""
    samples = 0.1 * np.random.default_rng(1).standard_normal(20 * 16_000).astype(np.float32)
    parts = read(s16(samples), AudioFormat(Encoding.S16LE, 16_000, 1), Limits(max_payload=200_000, max_audio=60.0))
    assert all(len(part.pcm) + 5120 <= 200_000 for part in parts)
    assert b"".join(part.pcm for part in parts) == s16(samples)
    assert [part.start for part in parts] == [0.0, *(part.end for part in parts[:-1])]
    assert parts[-1].end == 20.0


def test_each_channel_is_a_lane_of_its_own() -> None:
    """One is silent, one is not; at another rate, both are as long as the recording."""
    samples = np.stack([np.zeros(40 * 8000), 0.25 * np.sin(np.arange(40 * 8000) / 4)], axis=1).astype(np.float32)
    parts = read(s16(samples), PCM, each_channel=True)
    for channel, loud in ((0, False), (1, True)):
        lane = [part for part in parts if part.channel == channel]
        assert (lane[0].start, lane[-1].end) == (0.0, 40.0)
        heard = np.frombuffer(b"".join(part.pcm for part in lane), "<i2")
        assert len(heard) == 40 * 16_000
        assert (np.abs(heard).max() > 8000) == loud


def test_reader_that_is_closed_reads_no_more() -> None:
    """A request may be given up while there are parts left."""

    async def closed() -> tuple[Part | None, Part | None]:
        with ThreadPoolExecutor(1) as pool:
            async with Upload(Storage(pool, 1 << 30, disk=1 << 30)) as upload:
                await upload.write(bytes(16_000 * 2 * 90))
                await upload.finish()
                reader = PartReader(upload, AudioFormat(Encoding.S16LE, 16_000, 1), LIMITS, each_channel=False)
                first = reader.read()
                reader.close()
                return first, reader.read()

    first, second = asyncio.run(closed())
    assert first is not None
    assert second is None
