"""The official clients for Node.js, unchanged and over TLS, which OpenAI's insists on."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soxr
from harness import Speech, s16
from served import served

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("npm") is None, reason="needs Node.js"),
]
SCRIPTS = Path(__file__).parent / "node"
PACKAGES = ["openai@7.59.0", "@deepgram/sdk@5.13.0", "ws"]
CERTIFICATE = ["-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the packages, the scripts and a certificate for this machine are."""
    made = tmp_path_factory.mktemp("node")
    subprocess.run(["npm", "install", "--silent", *PACKAGES], cwd=made, check=True)
    shutil.copytree(SCRIPTS, made, dirs_exist_ok=True)
    names = ["-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", made / "key.pem", "-out", made / "cert.pem"]
    subprocess.run(["openssl", "req", *CERTIFICATE, *names, *files], check=True, capture_output=True)
    return made


def told(folder: Path, script: str, speech: Speech) -> list[dict[str, Any]]:
    """What the client hears of two sentences at 24 kHz."""
    samples = np.asarray(soxr.resample(speech.samples, speech.rate, 24_000, "HQ"), np.float32)
    (folder / "speech.pcm").write_bytes(s16(samples))
    tls = {"GATEWAY_TLS_CERT": str(folder / "cert.pem"), "GATEWAY_TLS_KEY": str(folder / "key.pem")}
    with served(folder, **tls) as gateway:
        client = subprocess.run(
            ["node", script, gateway.url.replace("http:", "https:"), "speech.pcm"],
            cwd=folder,
            env=os.environ | {"NODE_EXTRA_CA_CERTS": str(folder / "cert.pem")},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert client.returncode == 0, client.stderr
    return [json.loads(line) for line in client.stdout.splitlines()]


def test_openai_for_node_gets_an_item_with_all_text(folder: Path, demo_speech: Speech) -> None:
    """A Realtime session with a commit."""
    speech = demo_speech.cut(0, 2)
    events = told(folder, "openai_realtime.mjs", speech)
    assert events[-1]["type"] == "conversation.item.input_audio_transcription.completed"
    assert events[-1]["transcript"] == speech.words
    assert "".join(event.get("delta", "") for event in events) == speech.words


def test_deepgram_for_node_gets_results_and_metadata(folder: Path, demo_speech: Speech) -> None:
    """With Finalize and CloseStream."""
    speech = demo_speech.cut(0, 2)
    messages = told(folder, "deepgram_live.mjs", speech)
    finals = [message for message in messages if message.get("is_final")]
    texts = [final["channel"]["alternatives"][0]["transcript"] for final in finals]
    assert " ".join(filter(None, texts)) == speech.words
    assert [final["from_finalize"] for final in finals].count(True) == 1
    assert messages[-1]["type"] == "Metadata"
