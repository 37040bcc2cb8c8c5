"""`publish` and `listen` as a user runs them: files, pipes, terminals, and servers that go away."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import soundfile
from command import Command, bus, noise, on_terminal, recording
from cues import event
from harness import NatsServer, s16
from nats.aio.msg import Msg

from transcriber.cli.main import main


@pytest.fixture(autouse=True)
def own_signals() -> Iterator[None]:
    """`main` takes over Ctrl-C; where a test calls it in this process, pytest gets it back."""
    before = signal.getsignal(signal.SIGINT)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
async def test_publish_sends_a_file_to_the_last_sample(nats_server: NatsServer, tmp_path: Path, container: str) -> None:
    """Every sample comes in order, with the format in the headers and `end` last. One line says how much it was."""
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


BIG = {"AUDIO_SUBJECT": "audio.big.*"}


@pytest.mark.parametrize(
    ("where", "subject"),
    [
        ({"FLEET": "radio"}, "audio.9.s1"),
        ({"FLEET": "radio", "FLEET_PARTITIONS": "7"}, "audio.1.s1"),
        (BIG, "audio.big.s1"),
        (BIG | {"FLEET": "radio"}, "audio.big.9.s1"),
        ({"AUDIO_SUBJECT": "audio.other"}, "audio.s1"),  # that is the daemon's, and the stream is on the command line
    ],
)
async def test_publish_finds_the_fleet_and_the_group(
    nats_server: NatsServer, tmp_path: Path, where: dict[str, str], subject: str
) -> None:
    """Then live audio comes to the daemon that owns the stream, without a mapping in the server."""
    path = tmp_path / "talk.wav"
    path.write_bytes(recording(noise(0.3), "WAV"))
    fleet = where | {"NATS_URL": nats_server.url}
    async with (
        bus(nats_server.url) as listener,
        Command("publish", str(path), "--speed", "0", "--stream", "s1", "--session", "x", **fleet) as command,
    ):
        _, messages = await listener.until_end()
        assert await command.ended() == 0
    assert {message.subject for message in messages} == {subject}
    assert command.err == [f"transcriber: sent 0.30 s of audio to {subject}, session x"]


async def test_publish_shows_progress_on_a_terminal(nats_server: NatsServer, tmp_path: Path) -> None:
    """The bar ends full, in seconds of audio. The last line is the same."""
    path = tmp_path / "talk.wav"
    path.write_bytes(recording(noise(1)))
    code, shown = await on_terminal("publish", str(path), "--speed", "0", NATS_URL=nats_server.url)
    assert code == 0
    assert "audio.demo: 100%|" in shown
    assert "| 1.0/1.0 s" in shown
    assert shown.splitlines()[-1].startswith("transcriber: sent 1.00 s of audio to audio.demo, session ")


def test_publish_says_what_is_wrong_with_a_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It needs no server for that: exit 2 and one line that names the file."""
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
    """`publish -` without a pipe is a mistake, and the error says so."""
    code, shown = await on_terminal("publish", "-", NATS_URL=nats_server.url)
    assert code == 2
    assert shown == "transcriber: standard input: is a terminal; pipe a recording or raw PCM into it\r\n"


async def pings(url: str, count: int) -> None:
    """Wait until the server has sent `count` pings, and answer each."""
    host, port = url.removeprefix("nats://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b'CONNECT {"verbose":false,"pedantic":false}\r\n')
    while count and (line := await reader.readline()):
        if line == b"PING\r\n":
            writer.write(b"PONG\r\n")
            count -= 1
    writer.close()


async def test_publish_keeps_its_connection_while_a_recorder_is_silent(tmp_path: Path) -> None:
    """A silent pipe stops no answer to a server that disconnects silent clients after 0.2 s."""
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


async def test_publish_sends_a_wav_from_a_pipe_as_it_is_recorded(nats_server: NatsServer) -> None:
    """`arecord | transcriber publish -` writes WAV. The head gives the format, and no sample waits for the end."""
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


async def published(server: NatsServer, data: bytes) -> tuple[bytes, list[Msg]]:
    """Give `publish -` the data. Return what it publishes: all audio, and its messages."""
    async with bus(server.url) as listener, Command("publish", "-", "--speed", "0", NATS_URL=server.url) as command:
        await command.feed(data)
        command.end_input()
        heard = await listener.until_end()
        assert await command.ended() == 0
    return heard


@pytest.mark.parametrize("container", ["WAV", "FLAC"])
async def test_publish_decodes_a_whole_recording_from_a_pipe(nats_server: NatsServer, container: str) -> None:
    """24 bits or another container are read to the end and then decoded. Neither head nor tail is sent as sound."""
    samples = noise(0.5)
    data = recording(samples, container, subtype="PCM_24")
    pcm, _ = await published(nats_server, data)
    assert pcm == samples.tobytes()


@pytest.mark.parametrize("container", ["MP3", "OGG", "AIFF", "CAF", "AU"])
async def test_publish_decodes_any_container_from_a_pipe(nats_server: NatsServer, container: str) -> None:
    """It is known by its first bytes. Even one that is lossy arrives as the samples that libsndfile makes of it."""
    data = recording(noise(0.5), container, subtype=None)
    wanted, rate = soundfile.read(io.BytesIO(data), dtype="float32")
    pcm, messages = await published(nats_server, data)
    assert messages[0].headers["Audio-Sample-Rate"] == str(rate)
    assert pcm == s16(wanted)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"\0\0\0\x1cftypM4A \0\0\2\0M4A mp42isom\0\0\0\x08free" * 9, "MP4"),
        (bytes.fromhex("1a45dfa39f4286810142f7810142f2810442f381084282847765626d42878104") * 9, "WebM"),
        (9 * (bytes.fromhex("fff15080017ffc") + bytes(4)), "AAC"),
        (b'{"audio": "UklGRiQAAABXQVZF"}', "JSON"),
        (b"#!AMR-WB\n" + bytes(600), "AMR"),
        (b"curl: (6) Could not resolve host: radio.example.com; no audio was fetched at all\n", "text"),
    ],
)
async def test_publish_names_a_file_that_it_cannot_decode(tmp_path: Path, data: bytes, kind: str) -> None:
    """Sent as PCM it would be noise. Exit 2 needs no server, whether it comes from a pipe or as a file."""
    path = tmp_path / "talk"
    path.write_bytes(data)
    async with Command("publish", "-") as pipe, Command("publish", str(path)) as file:
        await pipe.feed(data)
        pipe.end_input()
        assert [await pipe.ended(), await file.ended()] == [2, 2]
    allowed = "AIFF, AU, CAF, FLAC, MP3, Ogg, WAV"
    assert pipe.err == [f"transcriber: standard input: is {kind}; allowed are raw PCM and {allowed}"]
    (told,) = file.err
    assert told.startswith(f"transcriber: {path}: ")
    assert kind == "text" or told.endswith(f" is {kind}; allowed are {allowed}")


async def test_publish_sends_pcm_that_begins_like_mpeg_audio(nats_server: NatsServer) -> None:
    """One frame header alone proves nothing: what follows at the distance that it states is none."""
    pcm = b"\xff\xfb\x90\x00" + noise(0.3).tobytes()
    async with (
        bus(nats_server.url) as listener,
        Command("publish", "-", "--rate", "16000", "--speed", "0", NATS_URL=nats_server.url) as command,
    ):
        await command.feed(pcm)
        command.end_input()
        sent, _ = await listener.until_end()
        assert await command.ended() == 0
    assert sent == pcm


async def test_publish_leaves_out_what_follows_the_samples_of_a_wav(nats_server: NatsServer) -> None:
    """Titles and comments after the samples are not audio."""
    samples = noise(0.3)
    data = recording(samples) + b"LIST\x08\0\0\0INFOabcd"
    pcm, _ = await published(nats_server, data)
    assert pcm == samples.tobytes()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_publish_stopped_by_the_user_still_ends_the_session(
    nats_server: NatsServer, number: signal.Signals, code: int
) -> None:
    """The user wants the last words of a live recording: `end` goes out although the pipe is still open."""
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
    """A server that no longer answers holds up the `end`. A second Ctrl-C gives it up."""
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
    """Both wait, say so and carry on: the audio at the next sample, the results from then on."""
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


async def test_publish_and_listen_give_up_a_server_gone_for_good(nats_server: NatsServer) -> None:
    """Both end with exit 4 and a sentence that names the setting that decided."""
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
    assert listen.err[-1].startswith(lost)  # and then the last thing that NATS or the connection said
    assert publish.err[-1].startswith(lost)
    assert publish.err[-2].endswith("; NATS is away, so without its end")


async def test_missing_server_is_one_clear_error(tmp_path: Path) -> None:
    """Exit 3, the address, the setting that decided and the system's reason. The retries are not listed one by one."""
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
