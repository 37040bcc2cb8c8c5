"""SIGHUP, with which an operator asks for the model again and a closed terminal ends its programs."""

from __future__ import annotations

import contextlib
import os
import pty
import signal
import subprocess
import sys

SCRIPT = """
import asyncio
from transcriber.daemon.shutdown import signals

async def main():
    stop = asyncio.Event()
    with signals(stop, lambda: print("hang up", flush=True)):
        print("up", flush=True)
        async with asyncio.timeout(20):
            await stop.wait()
    print("stopped", flush=True)

asyncio.run(main())
"""
AT_TERMINAL = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def run_at_terminal(*prefix: str) -> tuple[subprocess.Popen[str], int]:
    """Run the script in the foreground of a terminal of its own. Closing the descriptor closes the terminal."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", AT_TERMINAL, *prefix, sys.executable, "-c", SCRIPT],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    os.close(slave)
    return process, master


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_closed_terminal_stops_the_daemon_and_a_plain_sighup_not() -> None:
    """Both send the same signal. The state of the terminal tells them apart."""
    process, master = run_at_terminal()
    with process:
        assert line(process) == "up"
        process.send_signal(signal.SIGHUP)
        assert line(process) == "hang up"
        os.close(master)
        assert line(process) == "stopped"


def test_closed_terminal_stops_nothing_under_nohup() -> None:
    """A user who starts it with nohup wants it to stay."""
    process, master = run_at_terminal("nohup")
    with process:
        assert line(process) == "up"
        os.close(master)
        assert line(process) == "hang up"
        process.terminate()
        assert line(process) == "stopped"
    with contextlib.suppress(OSError):
        os.close(master)
