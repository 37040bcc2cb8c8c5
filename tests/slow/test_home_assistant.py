"""A real Home Assistant Core sets up its integration Wyoming Protocol with the gateway, and hears by it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from harness import Speech, free_port
from served import served

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

# Of an environment with Home Assistant Core, which wants a Python and packages of its own: docs/development.md.
PYTHON = os.environ.get("HOME_ASSISTANT_PYTHON", "")
CLIENT = Path(__file__).parent / "agents" / "home_assistant_client.py"
RATE = 16_000  # Hz: what its voice satellites send


@pytest.mark.skipif(not PYTHON, reason="HOME_ASSISTANT_PYTHON names no Python with Home Assistant Core")
def test_home_assistant_hears_a_command(demo_speech: Speech, tmp_path: Path) -> None:
    """By the entity that its own dialog makes, with the languages of the model at work."""
    speech, port = demo_speech.cut(0, 3), free_port()
    samples = np.asarray(soxr.resample(speech.samples, speech.rate, RATE, "HQ"), np.float32)
    soundfile.write(tmp_path / "command.wav", samples, RATE, subtype="PCM_16")
    (tmp_path / "config").mkdir()
    with served(tmp_path, GATEWAY_WYOMING_PORT=str(port)):
        command = [PYTHON, CLIENT, tmp_path / "config", str(port), tmp_path / "command.wav"]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert run.returncode == 0, run.stderr
    told = json.loads(run.stdout.splitlines()[-1])
    assert (told["state"], told["title"], told["languages"]) == ("loaded", "transcriber", ["en"])
    assert (told["result"], told["text"]) == ("success", speech.words)
