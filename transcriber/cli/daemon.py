"""Implements `transcriber run`."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, NoReturn

from transcriber import settings
from transcriber.cli.interrupts import leave
from transcriber.daemon.service import Service
from transcriber.daemon.shutdown import ExitCode
from transcriber.domain.errors import CannotStart
from transcriber.telemetry import logs
from transcriber.worker.engines.loading import load_engine

if TYPE_CHECKING:
    from collections.abc import Callable

    from transcriber.worker.engine import Engine, WhisperOptions

log = logging.getLogger("transcriber")


def serve(load_engine: Callable[[WhisperOptions], Engine] = load_engine) -> NoReturn:
    """Run the daemon until a signal, then end the process. Raises `SettingError`; `load_engine` is as in `Service`."""
    chosen = settings.load()
    logs.configure(chosen.log_level, chosen.log_format)
    settings.warn_of_misspelt()

    async def live() -> NoReturn:
        try:
            code = await Service(chosen, load_engine).run()
        except CannotStart as error:
            log.critical("cannot start: %s", error)
            code = ExitCode.CANNOT_START
        leave(code)  # before asyncio.run ends: it could wait for a name server that does not answer

    asyncio.run(live())
    raise AssertionError("it leaves")
