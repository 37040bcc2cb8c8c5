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
    """Run `call` and return its exit code. On an error, print one line to standard error and return the error's code.

    The line begins with `program`.
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
    except OSError as error:  # of our output: every other failure of this kind has an error class of its own
        discard_output()
        sys.stderr.write(f"{program}: {error or type(error).__name__}\n")
        return 1
    return code


def _quit(number: int, _frame: FrameType | None) -> NoReturn:
    """End the process at once. While modules load there is nothing to clean up, and a traceback would be noise."""
    if sys.stderr.isatty():
        os.write(sys.stderr.fileno(), b"\n")  # the terminal shows ^C, perhaps after a progress bar
    os._exit(128 + number)


def _code_of(error: TranscriberError) -> int:
    from transcriber.daemon.shutdown import ExitCode  # noqa: PLC0415 - it takes half a second, which --help should not

    match error:
        case SettingError() | RecordingError():
            return ExitCode.BAD_SETTINGS
        case CannotStart():
            return ExitCode.CANNOT_START
        case BrokerLost():
            return ExitCode.BROKER_LOST
    return ExitCode.DEFECT
