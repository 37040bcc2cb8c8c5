"""Voice agents' frameworks, unchanged, with the gateway as their speech service: LiveKit's plugins and pipecat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import soundfile
from harness import Speech
from served import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # half a gigabyte of packages each

CLIENTS = Path(__file__).parent / "agents"
VERSION = {"livekit": "1.8.9", "pipecat": "1.14.0"}
PACKAGES = {
    "livekit": [f"livekit-{name}=={VERSION['livekit']}" for name in ("agents", "plugins-openai", "plugins-deepgram")],
    "pipecat": [f"pipecat-ai[openai,deepgram]=={VERSION['pipecat']}"],
}
# A turn is a sentence to those that tell turns by the server, and all of the audio to those that tell them themselves.
TURNS = {
    ("livekit", "rest"): 1,
    ("livekit", "deepgram"): 3,
    ("livekit", "realtime"): 3,
    ("pipecat", "rest"): 1,
    ("pipecat", "deepgram"): 3,
    ("pipecat", "realtime"): 1,
}


@pytest.fixture(scope="module", params=list(PACKAGES))
def framework(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """Its name, and a Python that has it."""
    folder = tmp_path_factory.mktemp(request.param)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES[request.param]], check=True)
    return request.param, python


@pytest.mark.parametrize("protocol", ["rest", "deepgram", "realtime"])
def test_framework_hears_every_sentence(
    framework: tuple[str, Path], protocol: str, demo_speech: Speech, tmp_path: Path
) -> None:
    """The texts of its finals, in order; a turn begins and ends where the framework is told of turns."""
    name, python = framework
    speech = demo_speech.cut(0, 3, margin=0.9)
    soundfile.write(tmp_path / "speech.wav", speech.samples, speech.rate, subtype="PCM_16")
    turns = TURNS[name, protocol]
    with served(tmp_path) as gateway:
        command = [python, CLIENTS / f"{name}_client.py", protocol, gateway.url, tmp_path / "speech.wav", str(turns)]
        client = subprocess.run(command, capture_output=True, text=True, timeout=180, check=False)
    assert client.returncode == 0, client.stderr
    told = [json.loads(line) for line in client.stdout.splitlines()]
    finals = [event["text"] for event in told if event["type"] == "final_transcript"]
    assert finals == ([row["words"] for row in speech.rows] if turns > 1 else [speech.words])
    if name == "livekit" and protocol != "rest":
        assert [event["type"] for event in told if event["type"].endswith("of_speech")] == (
            ["start_of_speech", "end_of_speech"] * turns
        )
