"""`benchmarks engine` on the user's own speech, and in comparison with other programs."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import soundfile
from benchmarks_run import bench, check_frame
from places import SUPPORT

from benchmarks import speech

SERVER = SUPPORT / "whisper_server.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The two shortest utterances of the bundled recording, each in a file of its own."""
    material, rows = speech.recording(), []
    for n, utterance in enumerate(sorted(material.utterances, key=lambda u: u.end - u.start)[:2]):
        samples = material.cut(utterance.start - 0.1, utterance.end + 0.1)
        soundfile.write(tmp_path / f"{n}.flac", samples, material.rate)
        row = {"file": f"{n}.flac", "kind": f"clean-{n}", "text": utterance.words, "rate": material.rate}
        rows.append({**row, "seconds": len(samples) / material.rate, "channels": 1})
    (tmp_path / "manifest.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.fixture
def server(tmp_path: Path) -> Path:
    """A program that answers as whisper-server does."""
    program = tmp_path / "whisper-server"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{SERVER}" "$@"\n')
    program.chmod(0o755)
    return program


def test_every_way_decodes_the_same_speech(folder: Path, server: Path, tmp_path: Path) -> None:
    """Each recording is decoded as it is and followed by as much silence. The server's errors are counted too."""
    arguments = ("--speech", str(folder), "--seconds", "2.5", "--threads", "1", "--whisper-server", str(server))
    found, out = bench(tmp_path, "engine", *arguments)
    check_frame(found, "engine")
    recordings = found["figures"]["recordings"]
    assert set(recordings) == {"half_silence", "as_recorded"}
    halves = [recordings[name]["recorded_seconds"] for name in ("half_silence", "as_recorded")]
    assert halves[0] == pytest.approx(2 * halves[1])
    for recording in recordings.values():
        assert recording["files"] == 2
        assert {"plain_cuts", "plain_windows", "whisper_server_cuts", "daemon"} <= set(recording["ways"])
        assert all(way["cpu_seconds_a_second"] > 0 for way in recording["ways"].values())
        assert recording["ways"]["daemon"]["wer"] == 0
        assert recording["ways"]["whisper_server_cuts"]["wer"] < 1
    assert found["ratios"]["whisper_server_cuts_over_daemon_as_recorded"] > 0
    assert "note: left out: CTranslate2 and faster-whisper; give --ct2 DIR" in out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--speech", "/nowhere"), "/nowhere/manifest.json: no such file or directory"),
        (("--ct2", "/nowhere"), "--ct2 /nowhere: no CTranslate2 model there: a folder with model.bin is expected"),
        (("--whisper-server", "/nowhere/server"), "--whisper-server /nowhere/server: there is no such program"),
        (("--whisper-server", "/bin/false"), "whisper-server ended with exit code 1"),
    ],
    ids=["no speech", "no model", "no program", "no server"],
)
def test_missing_speech_model_or_server_is_refused(tmp_path: Path, arguments: tuple[str, ...], complaint: str) -> None:
    """Nothing is measured, and the message says what is missing."""
    _, err = bench(tmp_path, "engine", *arguments, code=3)
    assert complaint in err
