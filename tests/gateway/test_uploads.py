"""Very large uploads: in little memory, and the words of all of it."""

from __future__ import annotations

import json
import subprocess
import threading
from pathlib import Path
from typing import Self

import numpy as np
import psutil
import pytest
import soundfile
from harness import Speech
from served import served

MB = 1_000_000


class Watch:
    """The most memory of a process while this is entered, in bytes above what it had before."""

    def __init__(self, pid: int) -> None:
        self._process = psutil.Process(pid)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.before = self.most = 0

    def __enter__(self) -> Self:
        self.before = self.most = self._process.memory_info().rss
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            self.most = max(self.most, self._process.memory_info().rss)

    @property
    def grown(self) -> int:
        return self.most - self.before


def post(url: str, file: Path) -> tuple[int, dict[str, object]]:
    """Upload with curl."""
    command = ["curl", "-sS", "-F", f"file=@{file}", "-w", "\n%{http_code}", f"{url}/v1/audio/transcriptions"]
    body, _, status = subprocess.run(command, capture_output=True, check=True, text=True).stdout.rpartition("\n")
    return int(status), json.loads(body)


@pytest.mark.slow
def test_upload_of_200_mb_takes_little_memory(tmp_path: Path, demo_speech: Speech) -> None:
    """Seventeen minutes of stereo: at most 30 MB above what the gateway had, and every word in order."""
    file, times = tmp_path / "long.wav", 34
    with soundfile.SoundFile(file, "w", demo_speech.rate, 2, "PCM_16") as out:
        for _ in range(times):
            out.write(np.stack([demo_speech.samples] * 2, axis=1))
    assert file.stat().st_size > 200 * MB
    with served(tmp_path) as gateway:
        warm = tmp_path / "short.wav"
        soundfile.write(warm, demo_speech.samples, demo_speech.rate)
        assert post(gateway.url, warm)[0] == 200
        with Watch(gateway.pid) as watch:
            status, body = post(gateway.url, file)
    print(f"{watch.before / MB:.0f} MB before, {watch.grown / MB:.1f} MB more")
    assert (status, body["text"]) == (200, " ".join([demo_speech.words] * times))
    assert watch.grown <= 30 * MB


@pytest.mark.slow
def test_hours_of_silence_in_a_small_file_are_refused(tmp_path: Path) -> None:
    """Five hours in a few megabytes: what is decoded is bounded, not what is sent."""
    file = tmp_path / "silence.ogg"
    with soundfile.SoundFile(file, "w", 8000, 1, "VORBIS", format="OGG") as out:
        for _ in range(5 * 60):
            out.write(np.zeros(60 * 8000, np.float32))
    with served(tmp_path) as gateway:
        with Watch(gateway.pid) as watch:
            status, body = post(gateway.url, file)
        print(f"{file.stat().st_size / MB:.1f} MB: {watch.grown / MB:.1f} MB more")
    assert status == 400
    assert "longer than GATEWAY_MAX_AUDIO_SECS=14400" in str(body)
    assert watch.grown <= 60 * MB
