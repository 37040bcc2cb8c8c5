"""Every command of README.md is run: here as it stands there, and the one that installs and tests by `.ci/run`."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
from decimal import Decimal
from pathlib import Path

import pytest
import real
from command import Command, noise, recording
from harness import NatsServer
from places import ROOT

from transcriber.models import store

_BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
_LINES = [line.partition("  #")[0].rstrip() for block in _BLOCKS for line in block.splitlines()]

# The demo's own recording twelve times as fast. All else is the real command.
_FAST = "import sys; from transcriber.cli import demo, main; demo._SPEED = 12; sys.exit(main.main(sys.argv[1:]))"
_QUICK = {"WHISPER_MODEL_PATH": str(store.bundled_model_path()), "WHISPER_RTF": "0.05", "WHISPER_THREADS": "1"}


def line(begin: str) -> list[str]:
    """The words of the one line that begins so, without the program's name."""
    (found,) = (line for line in _LINES if line.startswith(begin))
    return shlex.split(found)[1:]


def test_no_other_command_is_in_the_readme() -> None:
    """A new one needs a test that runs it, below, and its beginning here."""
    known = ["python3 -m venv .venv && .venv/bin/pip install -q '.[embedded,ctranslate2]'", "python3 -m venv .venv && "]
    known += ["transcriber demo --serve", "transcriber listen", "transcriber publish"]
    known += ["transcriber models pull", "export ", "transcriber capacity", "transcriber run"]
    assert len(_LINES) == len(known)
    assert all(line.startswith(begin) for line, begin in zip(_LINES, known, strict=True))


async def test_the_tour_with_the_demos_server(tmp_path: Path) -> None:
    """Server and daemon stay up, and a second and a third terminal get the user's own recording through them."""
    (tmp_path / "talk.wav").write_bytes(recording(noise(1)))
    async with Command(*line("transcriber demo --serve"), program=("-c", _FAST), **_QUICK) as demo:
        address = (await demo.printed("export NATS_URL=")).partition("=")[2]
        async with Command(*line("transcriber listen"), NATS_URL=address) as listen:
            await listen.printed("listening")
            options = {"NATS_URL": address, "cwd": tmp_path}
            async with Command(*line("transcriber publish"), **options) as publish:
                assert await publish.ended() == 0
            assert publish.err[-1].startswith("transcriber: sent 1.00 s of audio to audio.desk")
            assert "ended: received 1.00 s" in await listen.printed("ended")
        demo.signal(signal.SIGINT)
        assert await demo.ended() == 130


async def test_the_tour_with_a_server_of_your_own(nats_server: NatsServer) -> None:
    """What the machine carries is printed, and the daemon gets ready and ends cleanly."""
    async with Command(*line("transcriber capacity"), **_QUICK) as capacity:
        assert await capacity.ended() == 0
    assert capacity.out[-1].startswith("20 streams ")
    options = _QUICK | {"NATS_URL": nats_server.url, "HEALTH_PORT": "0"}
    async with Command(*line("transcriber run"), **options) as daemon:
        await daemon.printed('"message": "ready"')
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended() == 0


def test_the_exported_settings_name_the_pulled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """`models pull` puts the file where the next line looks for it."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    name = line("transcriber models pull")[2]
    exported = dict(word.split("=", 1) for word in line("export"))
    assert set(exported) == {"NATS_URL", "WHISPER_MODEL_PATH"}
    path = Path(exported["WHISPER_MODEL_PATH"]).expanduser()
    assert path == store.models_dir() / store.MODELS[name].filename


@pytest.mark.real
async def test_models_pull_gets_the_official_model(tmp_path: Path) -> None:
    """The command finds the file that was pulled, or pulls it, and verifies it."""
    folder = tmp_path / ".cache" / "transcriber" / "models"
    folder.parent.mkdir(parents=True)
    folder.symlink_to(real.model("base").parent)
    async with Command(*line("transcriber models pull"), HOME=str(tmp_path)) as command:
        assert await command.ended() == 0
    assert "ggml-base.bin" in "".join(command.out + command.err)


@pytest.mark.network
@pytest.mark.timeout(900)
def test_the_first_command_shows_the_demo(tmp_path: Path) -> None:
    """In a fresh copy: it installs from the package index, gets a model, and prints words and an account that adds up.

    On a busy machine some audio may be dropped, so not every word need be there.
    """
    shutil.copytree(ROOT, tmp_path / "copy", ignore=shutil.ignore_patterns(".*", "dist", "build", "site"))
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = ["bash", "-c", _LINES[0]]
    done = subprocess.run(command, cwd=tmp_path / "copy", env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heard, said = re.search(r"^(\d+) of (\d+) words as spoken$", done.stdout, re.MULTILINE).groups()
    assert int(heard) >= 0.5 * int(said)
    received, *fates = map(Decimal, re.findall(r"\d+\.\d+", done.stdout.splitlines()[-1]))
    assert received == sum(fates) > 0
