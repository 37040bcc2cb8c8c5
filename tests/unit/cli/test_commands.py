"""The commands `models` and `capacity` as a user runs them."""

from __future__ import annotations

import asyncio
import math
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from command import Command, on_terminal

from transcriber.cli.main import main
from transcriber.models.store import BUNDLED_NOTE, MODELS, bundled_model_path


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """`main` takes over Ctrl-C; where a test calls it in this process, pytest gets it back."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


def test_models_list_names_every_model_and_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a model: name, size, and the path if it is here."""
    assert main(["models", "list", "--dir", str(tmp_path)]) == 0
    *listed, note = capsys.readouterr().out.splitlines()
    assert note == BUNDLED_NOTE
    lines = [line.split() for line in listed]
    assert [line[0] for line in lines] == list(MODELS)
    assert lines[0] == ["dispatch-mini", "18", "MB", str(bundled_model_path())]
    assert lines[1] == ["tiny", "78", "MB", "-"]


async def test_models_pull_offline_says_where_to_put_the_file(tmp_path: Path) -> None:
    """Exit 3, the address, the place and the next command. A terminal shows no empty bar before it."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        proxy = f"http://127.0.0.1:{bound.getsockname()[1]}"
        arguments = ("models", "pull", "base.en", "--dir", str(tmp_path))
        code, shown = await on_terminal(*arguments, HTTPS_PROXY=proxy)
    assert code == 3
    (line,) = shown.splitlines()
    assert line.startswith(f"transcriber: model {tmp_path}/ggml-base.en.bin: cannot download https://huggingface.co/")
    by_hand = f"to do it by hand, place it at {tmp_path}/ggml-base.en.bin, then run: transcriber models verify base.en"
    assert line.endswith(by_hand)


_PULL_FROM = """
import dataclasses, functools, sys
from transcriber.cli import main
from transcriber.models import store
probe = dataclasses.replace(store.MODELS["dispatch-mini"], name="probe", bundled=False)
store.pull = functools.partial(store.pull, base_url=sys.argv.pop(1), models={"probe": probe})
sys.exit(main.main(sys.argv[1:]))
"""


async def test_models_pull_shows_progress_and_how_to_use_the_file(tmp_path: Path) -> None:
    """A server on this machine: the bar ends full, the file is in place, and its setting is named."""
    body = bundled_model_path().read_bytes()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode())
        for start in range(0, len(body), 1 << 20):
            writer.write(body[start : start + (1 << 20)])
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        program = ("-c", _PULL_FROM, url)
        code, shown = await on_terminal("models", "pull", "probe", "--dir", str(tmp_path), program=program)
    path = tmp_path / "ggml-probe.bin"
    assert code == 0
    assert path.read_bytes() == body
    assert "probe: 100%|" in shown
    assert shown.splitlines()[-2:] == [str(path), f"use it with: WHISPER_MODEL_PATH={path}"]


def test_models_verify_tells_good_files_from_broken_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit 0 and the kind of the file, or exit 3 and what is wrong with it."""
    (torn := tmp_path / "torn.bin").write_bytes(bundled_model_path().read_bytes()[:1_000_000])
    own = shutil.copy(bundled_model_path(), tmp_path / "own.bin")
    for name, code, start in (
        ("dispatch-mini", 0, f"{bundled_model_path()}: custom, f16, sha256 "),
        (str(own), 0, f"{own}: custom, f16, complete; no published sha256 to compare"),
        (str(torn), 3, f"transcriber: model {torn}: truncated: ends at byte 1000000"),
        ("base.en", 3, f"transcriber: model {tmp_path}/ggml-base.en.bin: no such file; get it with:"),
    ):
        assert main(["models", "verify", name, "--dir", str(tmp_path)]) == code
        out, err = capsys.readouterr()
        assert (err if code else out).startswith(start)
        assert (out + err).splitlines()[1:] == ([BUNDLED_NOTE] if name == "dispatch-mini" else [])


async def test_capacity_measures_and_derives() -> None:
    """The real model is run. Queue, streams and workers follow from the printed RTF by the printed formulas."""
    arguments = ("--streams", "50", "--utilisation", "0.5")
    async with Command("capacity", *arguments, WHISPER_THREADS="1") as command:  # more would wait for busy cores
        assert await command.ended() == 0
    model, rtf_line, queue, one, many = command.out
    assert model == "model        ggml-dispatch-mini, 1 thread, windows of 5 s"
    rtf = float(re.match(r"RTF          (\d+\.\d{4}) \(\d+ ms for a full window\)$", rtf_line)[1])
    low, high = rtf - 0.00005, rtf + 0.00005  # it is printed rounded
    capacity = int(re.match(r"queue        capacity (\d+) = max\(1, floor\(L_max / \(D x RTF\)\)\)", queue)[1])
    assert max(1, math.floor(20 / (5 * high))) <= capacity <= max(1, math.floor(20 / (5 * low)))
    carried = int(re.match(r"one worker   (\d+) streams? of speech without pauses at 50% utilisation$", one)[1])
    assert math.floor(0.5 / high) <= carried <= math.floor(0.5 / low)
    needed = int(re.match(rf"50 streams   (\d+) workers? = ceil\(50 x {rtf:.4f} / 0.5\)$", many)[1])
    assert math.ceil(50 * low / 0.5) <= needed <= math.ceil(50 * high / 0.5)
    assert all(
        line.startswith(("transcriber: measuring ", "transcriber: the machine was busy")) for line in command.err
    )


async def test_capacity_with_given_figures_says_so() -> None:
    """Figures from the settings are not passed off as measurements."""
    environ = {"WHISPER_RTF": "0.5", "TRANSCRIPTION_QUEUE_CAPACITY": "7", "WHISPER_THREADS": "1"}
    async with Command("capacity", **environ) as command:
        assert await command.ended() == 0
    assert command.out[1:] == [
        "RTF          0.5000 (WHISPER_RTF)",
        "queue        capacity 7 (TRANSCRIPTION_QUEUE_CAPACITY)",
        "one worker   1 stream of speech without pauses at 70% utilisation",
        "10 streams   8 workers = ceil(10 x 0.5000 / 0.7)",
    ]


async def test_capacity_ends_at_ctrl_c_while_native_code_runs() -> None:
    """Exit 130 without a crash. The interpreter does not end while the Whisper thread runs."""
    async with Command("capacity", WHISPER_AUDIO_CTX="full", WHISPER_THREADS="1") as command:
        await command.printed("measuring")
        command.signal(signal.SIGINT)
        assert await command.ended() == 130
    assert len(command.err) == 1


def test_capacity_of_a_broken_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3 comes before native code sees the file."""
    (torn := tmp_path / "torn.bin").write_bytes(b"lmgg" * 1000)
    monkeypatch.setenv("WHISPER_MODEL_PATH", str(torn))
    assert main(["capacity"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"transcriber: model {torn}: ")
    assert len(err.splitlines()) == 1
