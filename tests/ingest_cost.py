"""What a second of audio costs outside Whisper, and how far that is from the floor that the libraries set.

    python tests/ingest_cost.py [--seconds 60] [--streams 10] [--chunk-ms 100]

Runs the daemon with a stub engine (it returns at once) against a real nats-server, publishes recorded speech at 48 kHz
s16 in real time on several streams, and reads the daemon's CPU time from the operating system. The floor is measured in
the same run, on the same messages at the same time: a process that only lets nats-py receive, soxr resample and
webrtcvad listen. Both start cold ten times a second, as real streams make them: a tight loop would flatter both.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path

import nats
import numpy as np
import psutil
import soxr
import webrtcvad
from harness import Client, Daemon, NatsServer, Speech, s16
from nats.aio.msg import Msg

HERE = Path(__file__).parent


async def publish(client: Client, pcm: bytes, chunk: int, streams: int, seconds: float) -> None:
    """All streams in real time, in step, each at another place of the recording."""
    begin, sent = time.monotonic(), 0
    size = chunk * 2
    while sent / 48_000 < seconds:
        await asyncio.sleep(max(0.0, begin + sent / 48_000 - time.monotonic()))
        for n in range(streams):
            position = (sent * 2 + n * 37 * size) % (len(pcm) - size)
            position -= position % 2
            headers = {"audio_session": "cost", "audio_offset": sent}
            await client.send(pcm[position : position + size], subject=f"audio.s{n}", **headers)
        sent += chunk


def bare(url: str, ready: Event, stop: Event, result: multiprocessing.Queue[float]) -> None:
    """The libraries alone, on the same messages: nats-py receives, soxr resamples, webrtcvad listens."""

    async def run() -> None:
        resamplers: dict[str, soxr.ResampleStream] = {}
        rest: dict[str, bytes] = {}
        vad = webrtcvad.Vad(2)

        async def listen(message: Msg) -> None:
            stream = message.subject
            if stream not in resamplers:
                resamplers[stream] = soxr.ResampleStream(48_000, 16_000, 1, "int16", "HQ")
            pcm = resamplers[stream].resample_chunk(np.frombuffer(message.data, "<i2")).tobytes()
            pcm = rest.get(stream, b"") + pcm
            whole = len(pcm) // 960 * 960
            for i in range(0, whole, 960):
                vad.is_speech(pcm[i : i + 960], 16_000)
            rest[stream] = pcm[whole:]

        connection = await nats.connect(url)
        await connection.subscribe("audio.*", cb=listen)
        await connection.flush()
        await connection.flush()  # the first one's PING overtakes the subscription
        before = time.process_time()
        ready.set()
        await asyncio.to_thread(stop.wait)
        result.put(time.process_time() - before)
        await connection.close()

    asyncio.run(run())


async def measure(options: argparse.Namespace) -> None:
    speech = Speech.load(HERE / "data" / "heldout")
    pcm = s16(soxr.resample(speech.samples, speech.rate, 48_000, "HQ"))
    chunk = 48 * options.chunk_ms
    context = multiprocessing.get_context("spawn")
    ready, stop, result = context.Event(), context.Event(), context.Queue()
    with tempfile.TemporaryDirectory() as folder, NatsServer(Path(folder)) as server:
        async with (
            Client(server.url) as client,
            Daemon(server.url, script=HERE / "stub_daemon.py", STATUS_INTERVAL_SECS="5") as daemon,
        ):
            libraries = context.Process(target=bare, args=(server.url, ready, stop, result))
            libraries.start()
            await asyncio.to_thread(ready.wait)
            process = psutil.Process(daemon.process.pid)
            before = sum(process.cpu_times()[:2])
            await publish(client, pcm, chunk, options.streams, options.seconds)
            used = sum(process.cpu_times()[:2]) - before
            stop.set()
            floor = await asyncio.to_thread(result.get)
            libraries.join()
            dropped = client.of("gap", "lost", "rejected")
    audio = options.seconds * options.streams
    print(f"{audio:g} s of 48 kHz s16 in {options.chunk_ms} ms chunks, {options.streams} streams; {len(dropped)} drops")
    print(f"libraries alone  {floor / audio * 1000:6.3f} ms of CPU per second of audio (nats-py, soxr, webrtcvad)")
    print(f"daemon           {used / audio * 1000:6.3f} ms of CPU per second of audio")
    print(f"ratio            {used / floor:6.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--streams", type=int, default=10)
    parser.add_argument("--chunk-ms", type=int, default=100)
    asyncio.run(measure(parser.parse_args()))
