"""Implements the commands for stored audio: `setup` and `replay`."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from typing import TYPE_CHECKING

from transcriber.broker.permissions import configuration
from transcriber.broker.setup import Storage, set_up
from transcriber.cli.commands import connected, note
from transcriber.cli.subtitles import Formatter, Style
from transcriber.models import store
from transcriber.pipeline.replay import Part, Replay, ReplayOptions
from transcriber.protocol.partitions import group_of

if TYPE_CHECKING:
    from transcriber.settings import Settings

_HOUR = 3600.0


async def setup(options: argparse.Namespace, settings: Settings) -> None:
    """Create or check the streams; print what was done and the permissions clients need. Raises `BrokerError`."""
    storage = Storage(
        options.audio_hours * _HOUR, options.audio_bytes, options.transcript_hours * _HOUR, options.replicas
    )
    fleet, live = settings.fleet, options.live or bool(group_of(settings.subject))
    async with connected(settings.broker, "transcriber setup") as connection:
        for line in await set_up(connection, storage, fleet, live=live):
            sys.stdout.write(f"# {line}\n")
    if fleet is not None:
        sys.stdout.write("# Puts the partition into the subjects of live producers that do not know it:\n")
        sys.stdout.write(f'mappings {{ "{fleet.source}": "{fleet.mapped}" }}\n')
    sys.stdout.write("# The least that each client needs, for the server's configuration:\n")
    sys.stdout.write(configuration(settings.subject, fleet))


async def replay(options: argparse.Namespace, settings: Settings) -> None:
    """Transcribe stored audio again; print and publish the results. Raises `BrokerError`, `ModelError`."""
    if options.model:
        path = store.resolve(options.model, store.models_dir())
        settings = dataclasses.replace(settings, whisper=dataclasses.replace(settings.whisper, path=path))
    store.verify(settings.whisper.path, None if options.model else settings.model_sha256)
    formatter = Formatter(Style(options.format), name_streams=False)
    part = Part(options.stream, options.since, options.until)
    replaying = ReplayOptions(
        sessions=settings.sessions, input=settings.input, whisper=settings.whisper, prefix=options.to
    )
    async with connected(settings.broker, "transcriber replay") as connection:
        empty = True
        async for message in Replay(connection, replaying).messages(part):
            empty = False
            if (text := formatter.format(json.loads(message.payload))) is not None:
                sys.stdout.write(f"{text}\n")
                sys.stdout.flush()
            await connection.publish(message.subject, message.payload, dict(message.headers))
        await connection.confirm()
        if empty:
            note(f"nothing is stored for audio.{options.stream} at that time")
