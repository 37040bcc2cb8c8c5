"""How a command ends: its exit code, and one line about what went wrong."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import NoReturn

from transcriber.cli.interrupts import discard_output
from transcriber.domain.errors import BrokerLost, CannotStart, RecordingError, SettingError, TranscriberError


def exit_code(call: Callable[[], int], program: str) -> int:
    """Do it; returns its exit code, or that of its error, of which one line goes to standard error.

    `program` is the name at the line's beginning.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _quit)
    try:
        code = call()
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output is gone: `listen | head`
        discard_output()
        return 0
    except TranscriberError as error:
        sys.stderr.write(f"{program}: {error}\n")
        return _code_of(error)
    except OSError as error:  # of our output; everything else that can fail so has an error of its own
        discard_output()
        sys.stderr.write(f"{program}: {error or type(error).__name__}\n")
        return 1
    return code


def _quit(number: int, _frame: FrameType | None) -> NoReturn:
    """End the process where there is nothing to clean up: while modules load, an exception would be noise."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\n")  # the terminal shows ^C, perhaps after a progress bar
    os._exit(128 + number)


def _code_of(error: TranscriberError) -> int:
    from transcriber.daemon.shutdown import ExitCode  # noqa: PLC0415 - takes half a second, which --help does not

    match error:
        case SettingError() | RecordingError():
            return ExitCode.BAD_SETTINGS
        case CannotStart():
            return ExitCode.CANNOT_START
        case BrokerLost():
            return ExitCode.BROKER_LOST
    return ExitCode.DEFECT
