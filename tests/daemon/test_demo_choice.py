"""Which model and which recording the demo takes, and what it says about that."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import real
from command import Command, noise, on_terminal, recording
from harness import PATIENCE, QUICK

from transcriber.cli.demo_choice import Choice, choose
from transcriber.cli.main import main
from transcriber.domain.errors import ModelError, RecordingError, SettingError
from transcriber.models import store

BODY = store.bundled_model_path().read_bytes()


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    return tmp_path / "home"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A recording of the user's."""
    path = tmp_path / "own.wav"
    path.write_bytes(recording(noise(0.5)))
    return path


def chosen(model: str | None = None, path: str | None = None, **environ: str) -> tuple[Choice, list[str]]:
    lines: list[str] = []
    return choose(model, path, environ, lines.append), lines


def test_the_bundled_model_gets_the_recording_of_its_words() -> None:
    """`--model dispatch-mini` needs no download, and has 52 words to compare."""
    choice, lines = chosen("dispatch-mini")
    assert lines == []
    assert choice.environ == {"WHISPER_MODEL_PATH": str(store.bundled_model_path())}
    assert choice.recording == store.bundled("demo.flac")
    assert len(choice.spoken) == 52


def test_users_model_file_gets_the_recording_for_any_words(tmp_path: Path) -> None:
    """`--model PATH` may be called like a known model. The checksum meant for another file does not apply."""
    path = tmp_path / "mine.bin"
    path.write_bytes(BODY)
    choice, lines = chosen(str(path), WHISPER_MODEL_PATH="/elsewhere.bin", WHISPER_MODEL_SHA256="0" * 64, LANG="C")
    assert lines == []
    assert choice.environ == {"WHISPER_MODEL_PATH": str(path), "LANG": "C"}
    assert choice.recording == store.bundled("talk.flac")
    assert len(choice.spoken) > 150


def test_the_model_of_the_environment_is_respected_and_named() -> None:
    """`WHISPER_MODEL_PATH` counts, with its checksum. If the file is missing, the daemon says so."""
    environ = {"WHISPER_MODEL_PATH": "/elsewhere.bin", "WHISPER_MODEL_SHA256": "0" * 64}
    choice, lines = chosen(**environ)
    assert (choice.environ, lines) == (environ, ["/elsewhere.bin, from WHISPER_MODEL_PATH"])
    assert choice.recording == store.bundled("talk.flac")
    choice, _ = chosen(WHISPER_MODEL_PATH=str(store.bundled_model_path()))
    assert choice.recording == store.bundled("demo.flac")


def test_a_recording_of_the_users_has_no_words_to_compare(own: Path) -> None:
    """That holds for `--recording FILE`. Our recording has its words wherever it lies."""
    choice, _ = chosen("dispatch-mini", str(own))
    assert (choice.recording, choice.spoken) == (own, None)
    assert len(chosen("dispatch-mini", str(store.bundled("talk.flac")))[0].spoken) > 150


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file or directory"),
        (b"a letter", "no WAV, FLAC or OGG that can be decoded (format not recognised)"),
        (recording(noise(0)), "holds no audio"),
        (recording(noise(0.1, channels=9)), "16000 Hz, channels: 9; allowed are 8000 to 192000 Hz and 1 to 8 channels"),
        (recording(noise(0.1), rate=4000), "4000 Hz, channels: 1; allowed are 8000 to 192000 Hz and 1 to 8 channels"),
    ],
    ids=["missing", "text", "empty", "channels", "rate"],
)
def test_bad_recording_is_refused_before_the_model_is_sought(tmp_path: Path, content: bytes, reason: str) -> None:
    """The error is one sentence with the file and what is wrong."""
    path = tmp_path / "own.wav"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(RecordingError) as caught:
        chosen("no such model", str(path))
    assert str(caught.value) == f"{path}: {reason}"


def test_bad_model_is_an_error_that_names_it(tmp_path: Path) -> None:
    """An unknown name, a missing file, and a file that is no model."""
    with pytest.raises(ModelError, match="neither a file nor a known name; known are dispatch-mini, tiny, "):
        chosen("tinny.en")
    with pytest.raises(ModelError, match=r"^model /nowhere/tiny\.bin: no such file$"):
        chosen("/nowhere/tiny.bin")
    (path := tmp_path / "tiny.bin").write_text("a letter")
    with pytest.raises(ModelError, match=f"^model {path}: [^:]+"):
        chosen(str(path))


def test_errors_reach_the_user_as_one_line_and_an_exit_code(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The code is 2 for the recording and 3 for the model, as everywhere."""
    before = signal.getsignal(signal.SIGINT)
    try:
        assert main(["demo", "--recording", "/nowhere.wav"]) == 2
        assert main(["demo", "--model", "/nowhere.bin", "--recording", str(own)]) == 3
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == (
        "",
        "transcriber: /nowhere.wav: no such file or directory\ntranscriber: model /nowhere.bin: no such file\n",
    )


def fallen_back(lines: list[str]) -> str:
    """The reason why tiny.en is not used."""
    assert lines[-1].startswith("no tiny.en: ")
    assert lines[-1].endswith("; the bundled model takes its place")
    return lines[-1].removeprefix("no tiny.en: ").removesuffix("; the bundled model takes its place")


def test_unwritable_home_falls_back_to_the_bundled_model(home: Path) -> None:
    """A file lies in the folder's place, so that not even root can write. If tiny.en was named, it is an error."""
    home.touch()
    choice, lines = chosen()
    assert fallen_back(lines).lower() == "cannot be written: not a directory"
    assert choice.environ["WHISPER_MODEL_PATH"] == str(store.bundled_model_path())
    assert choice.recording == store.bundled("demo.flac")
    with pytest.raises(ModelError, match=r"(?i)tiny\.en\.bin: cannot be written: not a directory"):
        chosen("tiny.en")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may look into every folder")
def test_unreadable_home_falls_back_to_the_bundled_model(home: Path) -> None:
    """It may be another user's home."""
    home.mkdir(mode=0)
    assert "permission denied" in fallen_back(chosen()[1]).lower()


def test_missing_home_falls_back_to_the_bundled_model(homeless: None) -> None:
    assert fallen_back(chosen()[1]) == "there is no home directory to keep models in"
    with pytest.raises(SettingError, match="--model takes a file"):
        chosen("tiny.en")


# Downloading: a real host on the loopback has the bundled model, and the program takes it for tiny.en. The file has a
# name of its own, for the daemon knows which sha256 the official one has.

_STAND_IN = f"""if True:
    import os, sys
    from transcriber.cli import main
    from transcriber.models import store
    store.MODELS["tiny.en"] = store.Published("stand-in", {len(BODY)}, "{hashlib.sha256(BODY).hexdigest()}")
    store.pull.__kwdefaults__["base_url"] = os.environ["HOST"]
    sys.exit(main.main(["demo", *sys.argv[1:]]))
"""


class Host(BaseHTTPRequestHandler):
    """Sends the model; while `held` is set, half of it, and then nothing."""

    server: Any

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(BODY)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            self.wfile.write(BODY[: len(BODY) // 2])
            if not self.server.held:
                self.wfile.write(BODY[len(BODY) // 2 :])
            self.server.released.wait(PATIENCE)
        self.close_connection = True

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def host() -> Iterator[Any]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        server.daemon_threads = True
        server.held, server.released = False, threading.Event()
        server.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.released.set()
        server.shutdown()
        thread.join()


def stand_in(host: Any, home: Path) -> dict[str, Any]:
    quick = QUICK | {"WHISPER_ENGINE": "whisper.cpp"}
    return {"program": ("-c", _STAND_IN), "HOST": host.url, "HOME": str(home)} | quick


async def test_tiny_en_is_pulled_with_a_bar_and_used(host: Any, home: Path, own: Path) -> None:
    """A terminal shows the model, its place and the progress. The second time the model is there."""
    host.released.set()
    model = home / ".cache" / "transcriber" / "models" / "ggml-stand-in.bin"
    code, shown = await on_terminal("--recording", str(own), **stand_in(host, home))
    assert code == 0
    assert f"model           getting tiny.en, 18 MB, once, into {model.parent}" in shown
    assert "tiny.en: 100%" in shown
    assert "daemon          ggml-stand-in, capacity" in shown
    assert model.read_bytes() == BODY
    code, shown = await on_terminal("--recording", str(own), **stand_in(host, home))
    assert (code, shown.partition(" ")[0]) == (0, "NATS")


async def test_demo_converts_the_model_for_ctranslate2(host: Any, home: Path, own: Path) -> None:
    """Once, and says so: where that engine is installed, it is the one that needs less CPU."""
    host.released.set()
    environ = stand_in(host, home) | {"WHISPER_ENGINE": "auto"}
    folder = home / ".cache" / "transcriber" / "models" / "ct2-stand-in"
    code, shown = await on_terminal("--recording", str(own), **environ)
    assert code == 0
    assert f"converting tiny.en for CTranslate2, once, into {folder}" in shown
    assert "daemon          ct2-stand-in, capacity" in shown
    code, shown = await on_terminal("--recording", str(own), **environ)
    assert code == 0
    assert "converting" not in shown


async def test_a_recording_of_the_users_ends_with_the_account(host: Any, home: Path, own: Path) -> None:
    """Half a second of noise: no words are counted, and nothing is lost."""
    host.released.set()
    async with Command("--recording", str(own), **stand_in(host, home)) as command:
        assert await command.ended() == 0
    assert command.err == []
    assert "recording       own.wav, 0 s at 16000 Hz, published in real time" in command.out
    assert not [line for line in command.out if "words as spoken" in line or "neither text nor silence" in line]
    assert command.out[-1].startswith("received 0.50 s = ")


async def test_ctrl_c_in_a_download_is_quiet_and_leaves_what_came(host: Any, home: Path) -> None:
    """Exit 130 at once, without a traceback. The part stays, and the next start goes on with it."""
    host.held = True
    models = home / ".cache" / "transcriber" / "models"
    async with Command(**stand_in(host, home)) as command:
        await command.printed("getting tiny.en")
        async with asyncio.timeout(PATIENCE):
            while not [path for path in models.glob("*.part") if path.stat().st_size]:  # noqa: ASYNC110 - a file announces itself to nobody
                await asyncio.sleep(0.01)
        command.signal(signal.SIGINT)
        assert await command.ended() == 130
    assert command.err == []
    assert len(command.out) == 1
    assert [path.name for path in models.iterdir()] == ["ggml-stand-in.bin.part"]


async def test_requested_model_is_never_replaced_by_another(home: Path) -> None:
    """`--model base.en` without a network is an error, not another model."""
    nobody = dict.fromkeys(("HTTPS_PROXY", "PIP_INDEX_URL"), "http://127.0.0.1:9") | {"PIP_NO_INDEX": "1"}
    async with Command("demo", "--model", "base.en", HOME=str(home), **nobody) as command:
        assert await command.ended() == 3
    (line,) = command.err
    assert line.startswith(f"transcriber: model {home}/.cache/transcriber/models/ggml-base.en.bin: cannot download ")


_THREEFOLD = """
import sys
from transcriber.cli import demo, main
demo._SPEED = 3
sys.exit(main.main(["demo"]))
"""


@pytest.mark.real
async def test_an_official_tiny_en_in_its_place_hears_real_words(home: Path) -> None:
    """Without a download and at three times the default speed, nearly every word comes and nothing is lost."""
    models = home / ".cache" / "transcriber" / "models"
    models.mkdir(parents=True)
    (models / "ggml-tiny.en.bin").symlink_to(real.model("tiny.en").absolute())
    environ = {"HOME": str(home), "HTTPS_PROXY": "http://127.0.0.1:9", "WHISPER_ENGINE": "whisper.cpp", **QUICK}
    async with Command(program=("-c", _THREEFOLD), **environ) as command:
        await asyncio.wait_for(command.process.wait(), 120 + PATIENCE)
    assert [line for line in command.out if line.startswith("daemon          ggml-tiny.en, ")]
    assert "recording       talk.flac, 74 s at 16000 Hz, published in real time" in command.out
    assert not [line for line in command.out if line.startswith("no tiny.en") or "neither text nor silence" in line]
    right, said = map(int, command.out[-2].removesuffix(" words as spoken").split(" of "))
    assert right >= 0.95 * said
    assert "gap 0.00 + pending 0.00" in command.out[-1]
