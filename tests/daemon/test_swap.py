"""Another model in a running daemon: no window is lost, results name their model, refusals say why."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import signal
import struct
from collections.abc import AsyncIterator
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import nats.errors
import psutil
import pytest
from chaos import covered, durable, everything, jetstream_server, publish, set_up_streams, until_ended
from harness import QUICK, STUB, Client, Daemon, NatsServer, Speech, check_tiles, s16, schema

from benchmarks.weights import _filters_and_vocabulary, write_random
from transcriber.daemon.model_swap import Models, ModelSwap, resolve_link
from transcriber.daemon.reference import reference_speech
from transcriber.domain.errors import Rejection
from transcriber.models import store as modelstore
from transcriber.models.ggml import MAGIC, check_model_file, tensors
from transcriber.worker import capacity
from transcriber.worker.engine import WhisperOptions
from transcriber.worker.engines.whispercpp import WhisperCppEngine
from transcriber.worker.queue import JobQueue
from transcriber.worker.thread import WhisperThread

BUNDLED = modelstore.bundled_model_path()
SHA256 = hashlib.sha256(BUNDLED.read_bytes()).hexdigest()
CONTROL = "transcriber.control.model.=all"
CHUNK_SECS = 0.1


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two models, the same but for their names, and a link to the first."""
    models = tmp_path / "models"
    models.mkdir()
    for name in ("ggml-one.bin", "ggml-two.bin"):
        shutil.copy(BUNDLED, models / name)
    (models / "current.bin").symlink_to("ggml-one.bin")
    return models


@pytest.fixture
async def daemon(nats_server: NatsServer, client: Client, folder: Path) -> AsyncIterator[Daemon]:
    async with Daemon(nats_server.url, **QUICK, WHISPER_MODEL_PATH=str(folder / "current.bin")) as running:
        yield running


def relink(folder: Path, name: str) -> None:
    """Replace the link as an update would: at no moment is there no model."""
    (folder / "next.bin").symlink_to(name)
    (folder / "next.bin").replace(folder / "current.bin")


def hang_up(daemon: Daemon) -> None:
    daemon.process.send_signal(signal.SIGHUP)


async def ask(client: Client, body: Any = None, subject: str = CONTROL) -> tuple[str | None, Any]:
    """Ask for another model; returns the error's code and text, or None and the answer."""
    payload = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    reply = await client.nats.request(subject, payload, timeout=60)
    told = reply.headers or {}
    if (code := told.get("Nats-Service-Error-Code")) is not None:
        return code, told["Nats-Service-Error"]
    answer = json.loads(reply.data)
    schema().validate(answer)
    return None, answer


async def speak(client: Client, speech: Speech, which: range, *, end: bool = False, pace: float = 0.01) -> None:
    """Publish these chunks of a recording, `pace` seconds apart."""
    pcm, size = s16(speech.samples), round(speech.rate * CHUNK_SECS)
    for number in which:
        part = pcm[2 * number * size : 2 * (number + 1) * size]
        more = {"audio_event": "end"} if end and number == which[-1] else {}
        where = {"audio_session": "x", "audio_offset": number * size, "audio_sample_rate": speech.rate}
        await client.send(part, **where, **more)
        await asyncio.sleep(pace)  # the pace is the point


def chunks(speech: Speech) -> int:
    return -(-len(speech.samples) // round(speech.rate * CHUNK_SECS))


async def transcribed(client: Client, speech: Speech) -> dict[str, Any]:
    """Have one recording transcribed on request."""
    reply = await client.nats.request(
        "transcribe.call", s16(speech.samples), headers={"Audio-Sample-Rate": str(speech.rate)}, timeout=30
    )
    answer: dict[str, Any] = json.loads(reply.data)
    return answer


async def test_sighup_amid_speech_swaps_the_model_and_loses_nothing(
    client: Client, daemon: Daemon, folder: Path, heldout: Speech
) -> None:
    """A link moves to another file while somebody speaks. The account has no gap, and results name their model."""
    speech = heldout.cut(0, 16)
    half, whole = chunks(speech) // 2, chunks(speech)
    await speak(client, speech, range(half))
    relink(folder, "ggml-two.bin")
    hang_up(daemon)
    await speak(client, speech, range(half, whole - 20))
    swapped = await daemon.logged("model swapped")
    await speak(client, speech, range(whole - 20, whole), end=True)
    ended = await client.until_type("ended")
    check_tiles(client.heard, ended)
    assert ended["gap"] == {}
    assert client.text() == speech.words
    models = [body["model"] for body in sorted(client.of("final"), key=lambda body: body["sequence"])]
    assert models == sorted(models), "each window by one model, and the new one from some moment on"
    assert set(models) == {"ggml-one", "ggml-two"}
    assert (swapped["model_before"], swapped["model"], swapped["sha256"]) == ("ggml-one", "ggml-two", SHA256)
    assert "capacity 80" not in swapped["message"]  # WHISPER_RTF was about the model at start
    assert swapped["capacity_before"] == 80
    assert await daemon.stop() == 0
    assert daemon.stderr == ""


async def test_a_request_names_the_model_and_is_told_what_has_changed(
    client: Client, daemon: Daemon, folder: Path, heldout: Speech
) -> None:
    """The name is a file next to the configured one, or one of `models list`. Without a name the file is read again."""
    assert (await transcribed(client, heldout.cut(0, 2)))["model"] == "ggml-one"
    code, answer = await ask(client, {"model": "ggml-two.bin", "sha256": SHA256})
    assert code is None
    assert (answer["model"], answer["sha256"], answer["size"]) == ("ggml-two", SHA256, BUNDLED.stat().st_size)
    assert (answer["before"]["model"], answer["before"]["queue_capacity"]) == ("ggml-one", 80)
    assert answer["queue_capacity"] == max(1, int(20 / (5 * answer["rtf"])))
    result = await transcribed(client, heldout.cut(0, 2))
    assert (result["model"], result["text"]) == ("ggml-two", heldout.cut(0, 2).words)
    assert (await ask(client, {"model": "dispatch-mini"}))[1]["model"] == "ggml-dispatch-mini"
    assert (await ask(client))[1]["model"] == "ggml-one"
    (control,) = json.loads((await client.nats.request("$SRV.INFO.transcriber-control")).data)["endpoints"]
    assert control["subject"] == CONTROL
    assert await daemon.stop() == 0
    assert daemon.stderr == ""


async def test_partials_and_status_are_of_the_new_model(
    nats_server: NatsServer, client: Client, folder: Path, heldout: Speech
) -> None:
    """A window was open when the model changed: the new model makes its partials. Status has the new capacity."""
    speech = heldout.cut(0, 8)
    settings = {"WHISPER_MODEL_PATH": str(folder / "ggml-one.bin"), "PARTIAL_INTERVAL_SECS": "0.3"}
    async with Daemon(nats_server.url, **QUICK, **settings, STATUS_INTERVAL_SECS="0.2") as daemon:
        await speak(client, speech, range(20), pace=CHUNK_SECS)
        await client.until_type("partial", model="ggml-one")
        _, answer = await ask(client, {"model": "ggml-two.bin"})
        await speak(client, speech, range(20, 60), pace=CHUNK_SECS)
        await client.until_type("partial", model="ggml-two")
        await client.until_type("status", queue_capacity=answer["queue_capacity"])
        assert await daemon.stop() == 0


REFUSED: list[tuple[Any, str]] = [
    ({"model": "/etc/passwd"}, "is not allowed: a name from `transcriber models list`, the name of a file"),
    ({"model": "../outside.bin"}, "is not allowed"),
    ({"model": "..\\outside.bin"}, "is not allowed"),
    ({"model": ".hidden.bin"}, "is not allowed"),
    ({"model": "ggml-one.txt"}, "is not allowed"),
    ({"model": "x" * 10_000}, "is not allowed"),
    ({"model": "ggml-three.bin"}, "there is no ggml-three.bin in "),
    ({"model": "large-v3"}, "there is no ggml-large-v3.bin in "),
    ({"model": 3}, "each a string"),
    ({"file": "ggml-two.bin"}, "each a string"),
    ([], "no payload, or"),
    (b"ggml-two.bin", "no payload, or"),
    (b"\xff\xfe", "no payload, or"),
    ({"model": "ggml-two.bin", "sha256": "0" * 64}, f"its sha256 is {SHA256}, expected is 000"),
    ({"model": "ggml-two.bin", "sha256": "beef"}, "64 hex digits"),
    ({"model": "torn.bin"}, "truncated"),
    ({"model": "noise.bin"}, "is not a ggml Whisper file"),
]


async def test_unloadable_model_is_refused_and_the_old_one_goes_on(
    client: Client, daemon: Daemon, folder: Path, heldout: Speech
) -> None:
    """A path, an unknown name, another sha256, a torn file, and a file that is no model."""
    (folder.parent / "outside.bin").write_bytes(BUNDLED.read_bytes())
    (folder / "ggml-one.txt").write_bytes(BUNDLED.read_bytes())
    (folder / ".hidden.bin").write_bytes(BUNDLED.read_bytes())
    (folder / "torn.bin").write_bytes(BUNDLED.read_bytes()[:1_000_000])
    (folder / "noise.bin").write_bytes(bytes(1_000_000))
    for body, text in REFUSED:
        code, error = await ask(client, body)
        assert (code, text in error) == ("400", True), (body, error)
    failed = [r for r in daemon.records if r["message"].startswith("model not swapped")]
    assert [r["level"] for r in failed] == ["error"] * 4
    result = await transcribed(client, heldout.cut(0, 2))
    assert (result["model"], result["text"]) == ("ggml-one", heldout.cut(0, 2).words)
    assert await daemon.stop() == 0
    assert daemon.stderr == ""


async def test_a_broken_file_on_sighup_is_logged_and_the_model_goes_on(
    client: Client, daemon: Daemon, folder: Path, heldout: Speech
) -> None:
    """The file is as after a copy that was cut off. Once it is whole, the next SIGHUP takes it."""
    (folder / "ggml-two.bin").write_bytes(BUNDLED.read_bytes()[:-1])
    relink(folder, "ggml-two.bin")
    hang_up(daemon)
    record = await daemon.logged("model not swapped")
    assert (record["level"], record["model"]) == ("error", "ggml-one")
    assert "truncated" in record["message"]
    assert (await transcribed(client, heldout.cut(0, 1)))["model"] == "ggml-one"
    shutil.copy(BUNDLED, folder / "ggml-two.bin")
    hang_up(daemon)
    await daemon.logged("model swapped")
    assert (await transcribed(client, heldout.cut(0, 1)))["model"] == "ggml-two"


def write_huge(path: Path) -> int:
    """A valid file that takes no space on the disk, and more memory than any machine; returns its size."""
    header = replace(
        check_model_file(BUNDLED),
        n_audio_state=2560,
        n_audio_head=40,
        n_audio_layer=64,
        n_text_state=2560,
        n_text_head=40,
        n_text_layer=64,
        ftype=0,
    )
    with path.open("wb") as file:
        file.write(MAGIC + struct.pack("<11i", *astuple(header)) + _filters_and_vocabulary(BUNDLED))
        for name, tensor in tensors(header).items():
            shape, encoded = tensor.shape, name.encode()
            file.write(struct.pack(f"<{3 + len(shape)}i", len(shape), len(encoded), tensor.type.id, *shape) + encoded)
            file.seek(tensor.nbytes, 1)
        file.truncate(file.tell())
    check_model_file(path)
    return path.stat().st_size


async def test_model_larger_than_memory_is_refused_with_both_figures(
    client: Client, daemon: Daemon, folder: Path, heldout: Speech
) -> None:
    """The refusal comes before any of it is read into memory."""
    size = write_huge(folder / "huge.bin")
    if size < psutil.virtual_memory().total:
        pytest.skip("this machine has memory for it")
    code, error = await ask(client, {"model": "huge.bin"})
    assert code == "503"
    needed, available = map(int, re.findall(r"(\d+) MB", error))
    assert needed * 1e6 > size > available * 1e6
    assert (await transcribed(client, heldout.cut(0, 1)))["model"] == "ggml-one"


async def test_memory_limit_of_the_container_counts() -> None:
    """With a reading of 50 MB, the error has both figures, and the worker still has its engine."""
    worker = WhisperThread(lambda: WhisperCppEngine(WhisperOptions(path=BUNDLED, threads=1)), 20)
    await worker.start(reference_speech(1.0), rtf=0.1)
    worker.serve(queue := JobQueue(1))
    swap = ModelSwap(
        worker,
        queue,
        Models(BUNDLED),
        lambda path: WhisperCppEngine(WhisperOptions(path=path, threads=1)),
        speech=lambda: reference_speech(1.0),
        derive=lambda rtf: capacity.derive(20, 1.0, rtf),
        room=lambda: 50_000_000,
    )
    with pytest.raises(Rejection, match=r"503: .* needs 109 MB of memory next to the present one; 50 MB are available"):
        await swap.admit("", {}, b"")
    assert worker.model == "ggml-dispatch-mini"
    queue.close()
    async with asyncio.timeout(10):
        await worker.finished.wait()


async def test_one_swap_at_a_time(client: Client, daemon: Daemon) -> None:
    """Of two requests at once one is refused. Later there is room again."""
    answers = await asyncio.gather(*(ask(client, {"model": f"ggml-{name}.bin"}) for name in ("two", "one")))
    assert sorted(code or "" for code, _ in answers) == ["", "409"]
    assert ("409", "another swap is under way") in answers
    assert (await ask(client, {"model": "ggml-two.bin"}))[0] is None


async def test_a_pinned_sha256_allows_no_other_file(nats_server: NatsServer, client: Client, folder: Path) -> None:
    """WHISPER_MODEL_SHA256 holds for every model, not for the first one alone."""
    other = bytearray(BUNDLED.read_bytes())
    other[-1] ^= 1
    (folder / "ggml-two.bin").write_bytes(other)
    settings = {"WHISPER_MODEL_PATH": str(folder / "current.bin"), "WHISPER_MODEL_SHA256": SHA256}
    async with Daemon(nats_server.url, **QUICK, **settings):
        code, error = await ask(client, {"model": "ggml-two.bin"})
        assert (code, "expected is " + SHA256 in error) == ("400", True)
        code, error = await ask(client, {"model": "ggml-two.bin", "sha256": hashlib.sha256(other).hexdigest()})
        assert (code, error) == ("400", f"WHISPER_MODEL_SHA256 allows {SHA256} only")
        assert (await ask(client, {"model": "ggml-one.bin"}))[0] is None


async def test_a_shutdown_leaves_a_swap_undone(nats_server: NatsServer, client: Client, folder: Path) -> None:
    """The client is told, and the exit waits for nothing."""
    slow = {"WHISPER_MODEL_PATH": str(folder / "ggml-one.bin"), "STUB_SECS": "0.01"}
    async with Daemon(nats_server.url, script=STUB, **QUICK, **slow, STUB_SLOW="ggml-two") as daemon:
        asking = asyncio.create_task(ask(client, {"model": "ggml-two.bin"}))
        await daemon.logged("swapping models")
        hang_up(daemon)
        assert (await daemon.logged("model not swapped"))["message"].endswith("another swap is under way")
        assert await daemon.stop() == 0
        assert await asking == ("503", "the daemon is stopping")
        assert daemon.stderr == ""


async def test_sighup_during_the_start_ends_nothing(nats_server: NatsServer) -> None:
    """There is nothing to swap yet, and the start goes on."""
    async with Daemon(nats_server.url, script=STUB, wait=False, **QUICK, STUB_WARM_SECS="1") as daemon:
        await daemon.logged("starting")
        hang_up(daemon)
        assert (await daemon.logged("SIGHUP"))["level"] == "warning"
        await daemon.logged("ready")
        assert await daemon.stop() == 0


async def test_swapping_loses_nothing_of_stored_audio(tmp_path: Path, folder: Path, heldout: Speech) -> None:
    """In durable mode, SIGHUP and a request come while a backlog is worked off. A standby swaps too."""
    speech = heldout.cut(0, 16)
    settings = durable(WHISPER_MODEL_PATH=str(folder / "current.bin"), TRANSCRIPTION_QUEUE_CAPACITY="2")
    with jetstream_server(tmp_path) as server:
        await set_up_streams(server.url)
        publishing = asyncio.create_task(publish(server.url, speech, pace=0.02))
        async with Client(server.url) as client, Daemon(server.url, **settings) as daemon:
            await client.until_type("final")
            relink(folder, "ggml-two.bin")
            hang_up(daemon)
            assert (await daemon.logged("model swapped"))["message"].endswith("(TRANSCRIPTION_QUEUE_CAPACITY)")
            await client.until_type("final", model="ggml-two")
            assert (await ask(client, {"model": "dispatch-mini"}))[0] is None
            await publishing
            records = await until_ended(server.url)
            assert await daemon.stop() == 0
    found = covered(records)
    assert (found.received, found.lost, found.doubled) == (everything(speech), 0, 0)
    assert found.text == speech.words
    models = [body["model"] for body in records if body["type"] == "final"]
    assert list(dict.fromkeys(models)) == ["ggml-one", "ggml-two", "ggml-dispatch-mini"]


@pytest.mark.slow
async def test_memory_of_the_previous_model_is_freed(
    client: Client, daemon: Daemon, folder: Path, heldout: Speech
) -> None:
    """A bigger model comes and goes, four times: neither its weights nor the other's gather.

    Free memory that the C library keeps makes the sizes stray by up to 26 MiB, but it does not grow.
    """
    write_random(folder / "ggml-big.bin", "tiny")
    process, sizes = psutil.Process(daemon.process.pid), []
    for _ in range(4):
        assert (await ask(client, {"model": "ggml-big.bin"}))[0] is None
        big = process.memory_info().rss
        assert (await ask(client, {"model": "ggml-one.bin"}))[0] is None
        sizes.append(process.memory_info().rss)
        assert big - sizes[-1] > 60 * 2**20  # its weights alone are 74 MiB, the other's 17
    assert max(sizes) - sizes[0] < 40 * 2**20  # of three rounds: one model would be 51 MiB, the other 222
    assert (await transcribed(client, heldout.cut(0, 1)))["text"] == heldout.cut(0, 1).words


async def test_swap_request_needs_the_subject_of_the_daemons_stream(nats_server: NatsServer, client: Client) -> None:
    """Each daemon listens on the subject of the stream that it transcribes."""
    async with Daemon(nats_server.url, **QUICK, AUDIO_SUBJECT="audio.desk"):
        assert (await ask(client, subject="transcriber.control.model.desk"))[0] is None
        with pytest.raises(nats.errors.NoRespondersError):
            await ask(client)


def test_name_is_looked_up_next_to_the_model_first(tmp_path: Path) -> None:
    """After that it is looked up in the place of pulled models."""
    beside, store = tmp_path / "beside", tmp_path / "store"
    for place in (beside, store):
        place.mkdir()
        (place / "ggml-base.en.bin").touch()
    (store / "ggml-tiny.bin").touch()
    models = Models(beside / "ggml-x.bin", directory=store)
    assert models.find("base.en") == models.find("ggml-base.en.bin") == beside / "ggml-base.en.bin"
    assert models.find("tiny") == store / "ggml-tiny.bin"
    assert models.find("dispatch-mini") == BUNDLED
    with pytest.raises(Rejection, match=r"there is no ggml-small\.bin in \S+/beside"):
        Models(beside / "ggml-x.bin").find("small")


def test_link_stands_for_its_file_unless_named_like_a_checksum(tmp_path: Path) -> None:
    """Results name the file that was loaded. In a store by content the link's own name is kept."""
    (tmp_path / "ggml-v2.bin").touch()
    (tmp_path / "ef24b8").touch()
    for name, target in (("current.bin", "ggml-v2.bin"), ("ggml-base.bin", "ef24b8")):
        (tmp_path / name).symlink_to(target)
    assert resolve_link(tmp_path / "current.bin") == tmp_path / "ggml-v2.bin"
    assert resolve_link(tmp_path / "ggml-base.bin") == tmp_path / "ggml-base.bin"
    assert resolve_link(tmp_path / "ggml-v2.bin") == tmp_path / "ggml-v2.bin"
