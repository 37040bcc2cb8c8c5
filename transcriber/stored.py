"""What the commands around stored audio do."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from transcriber.broker.permissions import configuration
from transcriber.broker.setup import Storage, set_up
from transcriber.commands import connected

if TYPE_CHECKING:
    from transcriber.settings import Settings

_HOUR = 3600.0


async def setup(options: argparse.Namespace, settings: Settings) -> None:
    """Make or check the streams; print what was done, and what clients must be allowed. Raises `BrokerError`."""
    storage = Storage(
        options.audio_hours * _HOUR, options.audio_bytes, options.transcript_hours * _HOUR, options.replicas
    )
    async with connected(settings.broker, "transcriber setup") as connection:
        for line in await set_up(connection, storage):
            sys.stdout.write(f"# {line}\n")
    sys.stdout.write("# The least that each client needs, for the server's configuration:\n")
    sys.stdout.write(configuration(settings.subject))
