"""`python -m benchmarks NAME`: parses the options, runs the benchmark and sets the exit code."""

from __future__ import annotations

import argparse
import asyncio
import sys
from typing import NoReturn

from benchmarks import options
from transcriber.cli.exits import exit_code
from transcriber.cli.interrupts import interruptible, leave
from transcriber.gateway.native import runner


def _main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Benchmarks of this machine.")
    options.add_to(parser)
    chosen = parser.parse_args()
    from benchmarks.run import run  # noqa: PLC0415 - takes half a second, which --help does not

    # The gateway's clients must cost less than the gateway, which they share the machine with.
    leave(interruptible(run(chosen), runner if chosen.benchmark == "gateway" else asyncio.Runner))


if __name__ == "__main__":
    sys.exit(exit_code(_main, "benchmarks"))
