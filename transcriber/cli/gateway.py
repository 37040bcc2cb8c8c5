"""Implements `transcriber gateway`: the gateway itself, and keys for its clients."""

from __future__ import annotations

import asyncio
import gc
import logging
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING

from transcriber.cli.interrupts import leave
from transcriber.daemon.shutdown import ExitCode, signals, why
from transcriber.domain.errors import CannotStart, SettingError

if TYPE_CHECKING:
    from typing import NoReturn

    from transcriber.gateway.options import GatewayOptions

_MISSING = "the gateway needs the package websockets: pip install 'transcriber[gateway]'"


def make_key(tenant: str) -> int:
    """Print a new key, and its line for the file of GATEWAY_KEYS."""
    from transcriber.gateway import keys  # noqa: PLC0415 - as all of the gateway

    secret, line = keys.make(tenant)
    sys.stderr.write(
        f"transcriber: the key, which is shown only now: {secret}\ntranscriber: its line for GATEWAY_KEYS:\n"
    )
    sys.stdout.write(f"{line}\n")
    return 0


def hash_key(tenant: str) -> int:
    """Print the line of a key that is read from standard input."""
    from transcriber.gateway import keys  # noqa: PLC0415

    secret = sys.stdin.readline().strip()
    if not secret:
        raise SettingError("standard input", "", "a key in one line, as in: printf %s KEY | transcriber gateway ...")
    sys.stdout.write(f"{keys.line_of(secret, tenant)}\n")
    return 0


# Of the garbage collector's young generation. Requests free nearly everything by reference counts. So a look at the 700
# youngest objects, as Python has it, finds only what thousands of clients still use. Cycles may take so long.
_YOUNG_OBJECTS = 20_000


async def _settle_memory(ready: asyncio.Event) -> None:
    """Keep the garbage collector from what lasts as long as the process, once all of that is there."""
    await ready.wait()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, *gc.get_threshold()[1:])


def serve(options: GatewayOptions) -> NoReturn:
    """Run the gateway until a signal, then end the process. Raises `CannotStart` without the extra `gateway`."""
    if find_spec("websockets") is None:
        raise CannotStart(_MISSING)
    from transcriber.gateway.native import runner  # noqa: PLC0415 - as all of the gateway
    from transcriber.gateway.service import Gateway  # noqa: PLC0415 - it imports websockets

    async def live() -> NoReturn:
        gateway, stop = Gateway(options), asyncio.Event()
        settling = asyncio.create_task(_settle_memory(gateway.ready))
        try:
            with signals(stop, gateway.reload):
                code = why(set(filter(None, [await gateway.run(stop)])))
        except CannotStart as error:
            logging.getLogger("transcriber").critical("cannot start: %s", error)
            code = ExitCode.CANNOT_START
        settling.cancel()
        leave(code)

    with runner() as run:
        run.run(live())
    raise AssertionError("it leaves")
