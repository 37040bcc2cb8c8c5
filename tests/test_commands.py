"""publish, listen, models and capacity as a user runs them: processes, pipes, terminals, signals."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import io
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import sys
import termios
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import nats
import numpy as np
import pytest
import soundfile
from harness import PATIENCE, NatsServer
from test_subtitles import event

from transcriber.cli import main
from transcriber.modelstore import BUNDLED_NOTE, MODELS, bundled_model_path


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """`main` takes over Ctrl-C; where a test calls it in this process, pytest gets it back."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


class Command:
    """`transcriber` with these arguments as a process; its output arrives line by line."""

    def __init__(self, *arguments: str, program: tuple[str, ...] = ("-m", "transcriber"), **options: Any) -> None:
        """Upper-case options are environment variables, the others go to the process."""
        self._command = (sys.executable, *program, *arguments)
        others = ("NATS_", "AUDIO_", "WHISPER_", "OTEL_", "LOG_")
        keep = {k: v for k, v in os.environ.items() if not (k.startswith(others) or k.lower().endswith("_proxy"))}
        self._environ = keep | {k: v for k, v in options.items() if k.isupper()}
        self._options = {k: v for k, v in options.items() if not k.isupper()}
        self.out: list[str] = []
        self.err: list[str] = []
        self._changed = asyncio.Event()

    async def __aenter__(self) -> Self:
        pipes = dict.fromkeys(("stdin", "stdout", "stderr"), asyncio.subprocess.PIPE)
        self.process = await asyncio.create_subprocess_exec(
            *self._command, **(pipes | self._options), env=self._environ
        )
        self._reading = asyncio.gather(
            self._read(self.process.stdout, self.out), self._read(self.process.stderr, self.err)
        )
        self._reading.add_done_callback(lambda _: self._changed.set())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
        await self._reading

    async def _read(self, stream: asyncio.StreamReader | None, lines: list[str]) -> None:
        if stream is not None:
            async for line in stream:
                lines.append(line.decode().rstrip("\n"))
                self._changed.set()

    async def printed(self, text: str) -> str:
        """Wait for a line, on either stream, that holds the text."""
        async with asyncio.timeout(PATIENCE):
            while True:
                for line in (*self.out, *self.err):
                    if text in line:
                        return line
                assert not self._reading.done(), f"ended without {text!r}: {self.out} {self.err}"
                self._changed.clear()
                await self._changed.wait()

    async def feed(self, data: bytes) -> None:
        self.process.stdin.write(data)
        await self.process.stdin.drain()

    def end_input(self) -> None:
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait for the exit code; all output is here then."""
        async with asyncio.timeout(PATIENCE):
            code = await self.process.wait()
            await self._reading
        return code


async def on_terminal(*arguments: str, **options: Any) -> tuple[int, str]:
    """Run a command on a terminal of 80 columns; returns the exit code and all that it shows."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))

    def read() -> bytes:
        shown = b""
        with contextlib.suppress(OSError):  # Linux answers with one when the other side is closed
            while data := os.read(ours, 4096):
                shown += data
        return shown

    try:
        async with Command(*arguments, stdin=theirs, stdout=theirs, stderr=theirs, **options) as command:
            os.close(theirs)
            shown = await asyncio.to_thread(read)
            return await command.ended(), shown.decode()
    finally:
        os.close(ours)


class Bus:
    """A client that hears all audio and can play the daemon."""

    def __init__(self, client: nats.aio.client.Client) -> None:
        self._client = client
        self.heard: asyncio.Queue[nats.aio.msg.Msg] = asyncio.Queue()

    async def next(self) -> nats.aio.msg.Msg:
        return await asyncio.wait_for(self.heard.get(), PATIENCE)

    async def until_end(self) -> tuple[bytes, list[nats.aio.msg.Msg]]:
        """All audio up to the next `end`, joined, and its messages."""
        messages = [await self.next()]
        while messages[-1].headers.get("Audio-Event") != "end":
            messages.append(await self.next())
        return b"".join(m.data for m in messages), messages

    async def tell(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            kind = "final" if message["type"] == "final" else "event"
            await self._client.publish(f"transcript.{message['stream']}.{kind}", json.dumps(message).encode())
        await self._client.flush()


@asynccontextmanager
async def bus(url: str) -> AsyncIterator[Bus]:
    async def ignore(_error: Exception) -> None:
        pass

    client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.05, error_cb=ignore)
    connected = Bus(client)
    await client.subscribe("audio.>", cb=connected.heard.put)
    await client.flush()
    await client.flush()  # the first one's PING overtakes the subscription
    try:
        yield connected
    finally:
        await client.close()


def noise(seconds: float, channels: int = 1, rate: int = 16_000) -> np.ndarray:
    return np.random.default_rng(1).integers(-9000, 9000, (int(seconds * rate), channels), np.int16)


def recording(samples: np.ndarray, container: str = "WAV", rate: int = 16_000, subtype: str = "PCM_16") -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, subtype, format=container)
    return file.getvalue()


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
async def test_publish_sends_a_file_to_the_last_sample(nats_server: NatsServer, tmp_path: Path, container: str) -> None:
    """Every sample in order, the format in the headers, `end` behind it, and one line that says how much it was."""
    samples = noise(1.23, channels=2)
    path = tmp_path / "talk"
    path.write_bytes(recording(samples, container))
    arguments = ("--speed", "0", "--stream", "s1", "--session", "run 1", "--language", "en", "--chunk-ms", "200")
    async with (
        bus(nats_server.url) as listener,
        Command("publish", str(path), *arguments, NATS_URL=nats_server.url) as command,
    ):
        pcm, messages = await listener.until_end()
        assert await command.ended() == 0
    assert pcm == samples.tobytes()
    assert len(messages) == 8  # 7 chunks of 200 ms, the last one shorter, and the end
    wanted = {"Audio-Encoding": "pcm_s16le", "Audio-Sample-Rate": "16000", "Audio-Channels": "2"}
    assert wanted.items() <= messages[0].headers.items()
    assert {m.headers["Audio-Session"] for m in messages} == {"run 1"}
    assert {m.headers["Audio-Language"] for m in messages} == {"en"}
    assert command.out == []
    assert command.err == ["transcriber: sent 1.23 s of audio to audio.s1, session run 1"]


async def test_publish_shows_progress_on_a_terminal(nats_server: NatsServer, tmp_path: Path) -> None:
    """A person watches a bar that ends full, in seconds of audio, and gets the same last line."""
    path = tmp_path / "talk.wav"
    path.write_bytes(recording(noise(1)))
    code, shown = await on_terminal("publish", str(path), "--speed", "0", NATS_URL=nats_server.url)
    assert code == 0
    assert "audio.demo: 100%|" in shown
    assert "| 1.0/1.0 s" in shown
    assert shown.splitlines()[-1].startswith("transcriber: sent 1.00 s of audio to audio.demo, session ")


def test_publish_says_what_is_wrong_with_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """No server is needed to be told so: exit 2 and one line that names the file."""
    (text := tmp_path / "notes.wav").write_text("not a sound " * 50)
    (low := tmp_path / "low.wav").write_bytes(recording(noise(1), rate=4000))
    (nothing := tmp_path / "nothing.wav").write_bytes(recording(noise(0)))
    for path, reason in (
        (tmp_path / "gone.wav", "no such file or directory"),
        (text, "no WAV, FLAC or OGG that can be decoded (format not recognised)"),
        (low, "4000 Hz, channels: 1; allowed are 8000 to 192000 Hz and 1 to 8 channels"),
        (nothing, "holds no audio"),
    ):
        assert main(["publish", str(path)]) == 2
        assert capfd.readouterr() == ("", f"transcriber: {path}: {reason}\n")


async def test_publish_of_an_empty_pipe_is_an_error() -> None:
    """A recorder that failed at once must not look like a recording that was sent."""
    async with Command("publish", "-") as command:
        command.end_input()
        assert await command.ended() == 2
    assert command.err == ["transcriber: standard input: is empty"]


async def test_publish_from_a_terminal_does_not_wait_for_typed_audio(nats_server: NatsServer) -> None:
    """`publish -` without a pipe is a mistake, and said to be one."""
    code, shown = await on_terminal("publish", "-", NATS_URL=nats_server.url)
    assert code == 2
    assert shown == "transcriber: standard input: is a terminal; pipe a recording or raw PCM into it\r\n"


async def pings(url: str, count: int) -> None:
    """Wait until the server has asked `count` times whether we are there, answering each time."""
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    while count and (line := await reader.readline()):
        if line == b"PING\r\n":
            writer.write(b"PONG\r\n")
            count -= 1
    writer.close()


async def test_publish_keeps_its_connection_while_a_recorder_is_silent(tmp_path: Path) -> None:
    """A pipe that delivers nothing does not stop the answers to a server that cuts who is silent for 0.2 s."""
    pcm = noise(0.3).tobytes()
    raw = ("publish", "-", "--rate", "16000", "--stream", "mic")
    with NatsServer(tmp_path, config='ping_interval: "100ms"\nping_max: 1\n') as server:
        async with bus(server.url) as listener, Command(*raw, NATS_URL=server.url) as command:
            await command.feed(pcm[:5000])
            first = await listener.next()
            assert first.data == pcm[:3200]  # 100 ms, as soon as they are complete
            await pings(server.url, 5)
            await command.feed(pcm[5000:] + b"\x01")
            command.end_input()
            rest, _ = await listener.until_end()
            assert await command.ended() == 0
    assert first.data + rest == pcm
    *notes, sent = command.err
    assert notes == [
        "transcriber: standard input: raw pcm_s16le, 16000 Hz, channels: 1",
        "transcriber: standard input: the last 1 bytes are not a whole sample frame of 2; not sent",
    ]
    assert sent.startswith("transcriber: sent 0.30 s of audio to audio.mic, session ")


async def test_publish_sends_a_wav_from_a_pipe_while_it_is_being_recorded(nats_server: NatsServer) -> None:
    """`arecord | transcriber publish -` writes WAV: the head gives the format, and no sample waits for the end."""
    pcm = noise(0.3, channels=2).tobytes()
    head = recording(noise(0, channels=2))[:40] + struct.pack("<I", 0x7FFFFFFF)
    async with bus(nats_server.url) as listener, Command("publish", "-", NATS_URL=nats_server.url) as command:
        await command.feed(head[:30])
        await command.feed(head[30:] + pcm[:7000])
        first = await listener.next()
        assert first.data == pcm[:6400]
        assert first.headers["Audio-Sample-Rate"] == "16000"
        assert first.headers["Audio-Channels"] == "2"
        await command.feed(pcm[7000:])
        command.end_input()
        rest, _ = await listener.until_end()
        assert await command.ended() == 0
    assert first.data + rest == pcm


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
async def test_publish_decodes_a_whole_recording_from_a_pipe(nats_server: NatsServer, container: str) -> None:
    """24 bits, or another container: read to its end and then decoded; nothing of head or tail is sent as sound."""
    samples = noise(0.5)
    data = recording(samples, container, subtype="PCM_24")
    async with (
        bus(nats_server.url) as listener,
        Command("publish", "-", "--speed", "0", NATS_URL=nats_server.url) as command,
    ):
        await command.feed(data)
        command.end_input()
        pcm, _ = await listener.until_end()
        assert await command.ended() == 0
    assert pcm == samples.tobytes()


async def test_publish_leaves_out_what_follows_the_samples_of_a_wav(nats_server: NatsServer) -> None:
    """Titles and comments behind the samples are not audio."""
    samples = noise(0.3)
    data = recording(samples) + b"LIST\x08\0\0\0INFOabcd"
    async with (
        bus(nats_server.url) as listener,
        Command("publish", "-", "--speed", "0", NATS_URL=nats_server.url) as command,
    ):
        await command.feed(data)
        command.end_input()
        pcm, _ = await listener.until_end()
        assert await command.ended() == 0
    assert pcm == samples.tobytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_publish_stopped_by_the_user_still_ends_the_session(
    nats_server: NatsServer, number: signal.Signals, code: int
) -> None:
    """Who stops a live recording wants the last words: `end` goes out although the pipe is still open."""
    async with (
        bus(nats_server.url) as listener,
        Command("publish", "-", "--rate", "16000", NATS_URL=nats_server.url) as command,
    ):
        await command.feed(bytes(3200))
        await listener.next()
        command.signal(number)
        assert await listener.until_end()
        assert await command.ended() == code
    assert command.err[-1].startswith("transcriber: sent 0.10 s of audio to audio.demo, session ")
    assert len(command.err) == 2


async def test_publish_is_left_at_once_by_an_impatient_user(nats_server: NatsServer) -> None:
    """A server that has stopped to answer holds up the `end`; a further Ctrl-C gives it up."""
    async with (
        bus(nats_server.url) as listener,
        Command("publish", "-", "--rate", "16000", NATS_URL=nats_server.url) as command,
    ):
        await command.feed(bytes(6400))
        await listener.next()
        await listener.next()  # with the first one confirmed
        nats_server.freeze()
        async with asyncio.timeout(8):  # nats-py alone would wait for 10
            while command.process.returncode is None:
                command.signal(signal.SIGINT)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(command.process.wait(), 0.2)
        assert await command.ended() == 130
        nats_server.resume()
    assert not [line for line in command.err if "Traceback" in line]


async def test_publish_and_listen_go_on_after_a_restart_of_the_server(nats_server: NatsServer) -> None:
    """Both wait, say so, and carry on: the audio at the next sample, the results from then on."""
    pcm = noise(0.3).tobytes()
    listen = Command("listen", "--format", "json", "--until-end", NATS_URL=nats_server.url)
    async with bus(nats_server.url) as bystander, listen:
        async with Command("publish", "-", "--rate", "16000", NATS_URL=nats_server.url) as publish:
            await listen.printed("listening")
            await publish.feed(pcm[:6400])
            await bystander.next()
            await bystander.next()  # with the first one confirmed
            nats_server.kill()
            await asyncio.gather(publish.printed("disconnected"), listen.printed("disconnected"))
            nats_server.start()
            await asyncio.gather(publish.printed("reconnected"), listen.printed("reconnected"))
            await publish.feed(pcm[6400:])
            publish.end_input()
            assert await publish.ended() == 0
        await bystander.tell(event("ended"))
        assert await listen.ended() == 0
    assert publish.err[-1].startswith("transcriber: sent 0.30 s")
    assert [json.loads(line) for line in listen.out] == [event("ended")]


async def test_publish_and_listen_give_up_a_server_that_is_gone_for_good(nats_server: NatsServer) -> None:
    """Exit 4 and a sentence with the setting that decided, from both."""
    environ = {"NATS_URL": nats_server.url, "NATS_RECONNECT_TIMEOUT_SECS": "0.2"}
    async with Command("listen", **environ) as listen, Command("publish", "-", **environ) as publish:
        await listen.printed("listening")
        async with bus(nats_server.url) as bystander:
            await publish.feed(bytes(9600 * 2))
            await bystander.next()
            await bystander.next()  # with the first one confirmed
        nats_server.kill()
        with contextlib.suppress(ConnectionError):  # it may be gone before it has read
            await publish.feed(bytes(9600 * 3))
        assert await listen.ended() == 4
        assert await publish.ended() == 4
    lost = f"transcriber: NATS at {nats_server.url}: lost, and not back within NATS_RECONNECT_TIMEOUT_SECS=0.2"
    assert listen.err[-1] == lost
    assert publish.err[-1] == lost
    assert publish.err[-2].endswith("; NATS is away, so without its end")


async def test_no_server_is_one_clear_error(tmp_path: Path) -> None:
    """Exit 3, the address, the setting that decided and the system's reason; the retries are not listed one by one."""
    path = tmp_path / "talk.wav"
    path.write_bytes(recording(noise(0.1)))
    with socket.socket() as bound:  # bound but not listening: connections are refused, and no one else gets the port
        bound.bind(("127.0.0.1", 0))
        address = bound.getsockname()
        environ = {"NATS_URL": f"nats://127.0.0.1:{address[1]}", "NATS_CONNECT_TIMEOUT_SECS": "1.2"}
        async with Command("listen", **environ) as listen, Command("publish", str(path), **environ) as publish:
            assert [await listen.ended(), await publish.ended()] == [3, 3]
    reason = f"[Errno 111] Connect call failed {address}"
    url = environ["NATS_URL"]
    for command in (listen, publish):
        assert command.err == [
            f"transcriber: NATS: {reason}",
            f"transcriber: waiting for NATS at {url}, up to NATS_CONNECT_TIMEOUT_SECS=1.2",
            f"transcriber: NATS at {url}: no connection within NATS_CONNECT_TIMEOUT_SECS=1.2 ({reason})",
        ]


def test_models_list_names_every_model_and_where_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line a model: name, size, and the path of what is here."""
    assert main(["models", "list", "--dir", str(tmp_path)]) == 0
    *listed, note = capsys.readouterr().out.splitlines()
    assert note == BUNDLED_NOTE
    lines = [line.split() for line in listed]
    assert [line[0] for line in lines] == list(MODELS)
    assert lines[0] == ["dispatch-mini", "18", "MB", str(bundled_model_path())]
    assert lines[1] == ["tiny", "78", "MB", "-"]


async def test_models_pull_without_a_network_says_where_to_put_the_file(tmp_path: Path) -> None:
    """Exit 3, the address, the place, the next command; on a terminal no empty bar in front of it."""
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
from transcriber import cli, modelstore
probe = dataclasses.replace(modelstore.MODELS["dispatch-mini"], name="probe", bundled=False)
modelstore.pull = functools.partial(modelstore.pull, base_url=sys.argv.pop(1), models={"probe": probe})
sys.exit(cli.main(sys.argv[1:]))
"""


async def test_models_pull_shows_progress_and_how_to_use_the_file(tmp_path: Path) -> None:
    """From a server on this machine: a bar that ends full, the file in place, and the setting that takes it."""
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
    """Exit 0 with what the file is; exit 3 with what is wrong with it."""
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
    """The real model is run; queue, streams and workers follow from the printed RTF by the printed formulas."""
    arguments = ("--streams", "50", "--utilisation", "0.5")
    async with Command("capacity", *arguments, WHISPER_THREADS="1") as command:  # more would wait for busy cores
        assert await command.ended() == 0
    model, rtf_line, queue, one, many = command.out
    assert model == "model        ggml-dispatch-mini, 1 thread, windows of 5 s"
    rtf = float(re.match(r"RTF          (\d+\.\d{4}) \(\d+ ms for a full window\)$", rtf_line)[1])
    capacity = int(re.match(r"queue        capacity (\d+) = max\(1, floor\(L_max / \(D x RTF\)\)\)", queue)[1])
    assert capacity == pytest.approx(max(1, 20 / (5 * rtf)), rel=0.02, abs=1)
    carried = int(re.match(r"one worker   (\d+) streams? of speech without pauses at 50% utilisation$", one)[1])
    assert carried == pytest.approx(0.5 / rtf, rel=0.02, abs=1)
    needed = int(re.match(rf"50 streams   (\d+) workers? = ceil\(50 x {rtf:.4f} / 0.5\)$", many)[1])
    assert needed == pytest.approx(50 * rtf / 0.5, rel=0.02, abs=1)
    assert all(
        line.startswith(("transcriber: measuring ", "transcriber: the machine was busy")) for line in command.err
    )


async def test_capacity_with_given_figures_says_so() -> None:
    """What the settings say is not passed off as a measurement."""
    environ = {"WHISPER_RTF": "0.5", "TRANSCRIPTION_QUEUE_CAPACITY": "7", "WHISPER_THREADS": "1"}
    async with Command("capacity", **environ) as command:
        assert await command.ended() == 0
    assert command.out[1:] == [
        "RTF          0.5000 (WHISPER_RTF)",
        "queue        capacity 7 (TRANSCRIPTION_QUEUE_CAPACITY)",
        "one worker   1 stream of speech without pauses at 70% utilisation",
        "10 streams   8 workers = ceil(10 x 0.5000 / 0.7)",
    ]


async def test_capacity_is_left_by_ctrl_c_while_native_code_runs() -> None:
    """Exit 130 without a crash: the interpreter is not torn down under the Whisper thread."""
    async with Command("capacity", WHISPER_AUDIO_CTX="full", WHISPER_THREADS="1") as command:
        await command.printed("measuring")
        command.signal(signal.SIGINT)
        assert await command.ended() == 130
    assert len(command.err) == 1


def test_capacity_of_a_broken_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 3 before native code sees the file."""
    (torn := tmp_path / "torn.bin").write_bytes(b"lmgg" * 1000)
    monkeypatch.setenv("WHISPER_MODEL_PATH", str(torn))
    assert main(["capacity"]) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"transcriber: model {torn}: ")
    assert len(err.splitlines()) == 1
