"""`transcriber gateway` that logs what it holds on SIGUSR1: asyncio's tasks, objects, and connections."""

import asyncio
import gc
import logging
import signal

from transcriber.daemon.shutdown import signals
from transcriber.gateway.service import Gateway
from transcriber.settings import gateway as settings
from transcriber.telemetry import logs

log = logging.getLogger("watched")


async def main() -> None:
    options = settings.load()
    logs.configure(options.log_level, options.log_format)
    gateway, stop = Gateway(options), asyncio.Event()

    def tell() -> None:
        gc.collect()
        held = {"tasks": len(asyncio.all_tasks()), "objects": len(gc.get_objects())}
        held |= {"sockets": gateway.figures.connections, "fronts": len(gateway._entrance.fronts)}
        held |= {"requests": gateway._site.count}
        log.info("held", extra=held)

    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, tell)
    with signals(stop, gateway.reload):
        await gateway.run(stop)


asyncio.run(main())
