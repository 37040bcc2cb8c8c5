"""The command line itself: help, wrong arguments, exit codes, signals, and output that cannot be written."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import subprocess
import sys

import pytest
from command import Command

from transcriber import __version__
from transcriber.cli import commands, interrupts, main
from transcriber.domain.errors import BrokerError, BrokerLost, EngineError, ModelError, RecordingError, SettingError

COMMANDS = ("run", "demo", "publish", "listen", "models", "capacity")


@pytest.fixture(autouse=True)
def handlers():
    """Restores the signal handlers and the log afterwards."""
    before = {number: signal.getsignal(number) for number in interrupts.SIGNALS}
    yield before
    for number, handler in before.items():
        signal.signal(number, handler)
    logging.disable(logging.NOTSET)


def exits(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str, str]:
    """The exit code with which argparse ends the process, and what it printed."""
    with pytest.raises(SystemExit) as caught:
        main.main(arguments)
    out, err = capsys.readouterr()
    return caught.value.code, out, err


def test_help_names_every_command_and_each_explains_itself(capsys):
    """Exit 0, on standard output, with every option of the command."""
    code, out, err = exits(["--help"], capsys)
    assert (code, err) == (0, "")
    assert all(f"    {name} " in out for name in COMMANDS)
    options = {
        "run": [],
        "demo": ["--model", "--recording", "--serve"],
        "publish": ["FILE", "--stream", "--speed", "--chunk-ms", "--session", "--language", "--encoding", "--rate"],
        "listen": ["--stream", "--format {text,json,srt,vtt}", "--until-end"],
        "models": ["list", "pull", "verify"],
        "capacity": ["--streams", "--utilisation"],
    }
    for name, wanted in options.items():
        code, out, err = exits([name, "--help"], capsys)
        assert (code, err) == (0, "")
        assert all(option in out for option in wanted)
    for action, wanted in (("list", "--dir"), ("pull", "name"), ("verify", "--sha256")):
        assert wanted in exits(["models", action, "--help"], capsys)[1]


def test_version(capsys):
    """The version of the installed package."""
    assert exits(["--version"], capsys) == (0, f"transcriber {__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["lisen"], "invalid choice: 'lisen'"),
        (["publish"], "the following arguments are required: FILE"),
        (["publish", "a.wav", "--stream", "a.b"], "'a.b' is not a stream id: [A-Za-z0-9_-]{1,64} is allowed"),
        (["publish", "a.wav", "--stream", "*"], "'*' is not a stream id"),
        (["publish", "a.wav", "--speed", "fast"], "'fast' is not a number from 0 to 10000"),
        (["publish", "a.wav", "--speed", "nan"], "'nan' is not a number from 0 to 10000"),
        (["publish", "a.wav", "--chunk-ms", "0.5"], "'0.5' is not a number from 1 to 10000"),
        (
            ["publish", "a.wav", "--session", "naïve"],
            "'naïve' is not a session id: 1 to 128 ASCII characters",
        ),
        (["publish", "a.wav", "--session", ""], "'' is not a session id"),
        (
            ["publish", "a.wav", "--language", "english"],
            "'english' is not a language: auto, or the ISO 639 code of a language that Whisper knows",
        ),
        (["publish", "-", "--encoding", "mp3"], "invalid choice: 'mp3'"),
        (["publish", "-", "--rate", "7999"], "'7999' is not a number from 8000 to 192000"),
        (["publish", "-", "--channels", "9"], "'9' is not a number from 1 to 8"),
        (["listen", "--stream", "a b"], "'a b' is not a stream id"),
        (["listen", "--format", "xml"], "invalid choice: 'xml'"),
        (["models"], "the following arguments are required: ACTION"),
        (["models", "pull"], "the following arguments are required: name"),
        (["capacity", "--streams", "0"], "'0' is not a number from 1 to 100000"),
        (["capacity", "--utilisation", "70"], "'70' is not a number from 0.01 to 1"),
    ],
)
def test_wrong_arguments_are_answered_with_what_is_allowed(capsys, arguments, message):
    """Exit 2, on standard error: the argument, its value, and the values it may have."""
    code, out, err = exits(arguments, capsys)
    assert (code, out) == (2, "")
    assert message in err


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        (["bench"], "python -m benchmarks NAME"),
        (["bench", "engine", "--seconds", "4"], "python -m benchmarks engine --seconds 4"),
        (["bench", "--help"], "python -m benchmarks --help"),
    ],
)
def test_bench_says_what_to_run_instead(capsys, arguments, command):
    """Users who knew the command get exit 2 and one sentence. The help does not list it."""
    assert main.main(arguments) == 2
    sentence = f"transcriber: benchmarks are not in the package; in a checkout, run: {command}\n"
    assert capsys.readouterr() == ("", sentence)
    assert "bench" not in exits(["--help"], capsys)[1]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingError("VAD", "x", "webrtc"), 2),
        (RecordingError("a.wav", "no such file"), 2),
        (ModelError("a.bin", "truncated"), 3),
        (BrokerError("nats://x", "refused"), 3),
        (BrokerLost("nats://x", 120), 4),
        (EngineError("whisper_full returned 1"), 1),
    ],
)
def test_every_error_has_its_exit_code_and_one_line(monkeypatch, capsys, error, code):
    """The line is the program's name and the sentence of the error."""

    def fail(_options: object) -> None:
        raise error

    monkeypatch.setattr(commands, "models", fail)
    assert main.main(["models", "list"]) == code
    assert capsys.readouterr() == ("", f"transcriber: {error}\n")


@pytest.mark.parametrize("arguments", [["publish", "-"], ["listen"], ["capacity"], ["demo"]])
def test_a_bad_setting_is_told_before_anything_is_done(monkeypatch, capsys, arguments):
    """Every command that reads it ends with exit 2, the setting, its value and what is allowed."""
    monkeypatch.setenv("BUFFER_DURATION_SECS", "soon")
    assert main.main(arguments) == 2
    assert capsys.readouterr() == (
        "",
        "transcriber: BUFFER_DURATION_SECS='soon' is not allowed: a number from 1 to 30\n",
    )


def test_user_without_a_home_can_do_all_but_keep_models(homeless, capsys):
    """Only `models` needs a place, and says how to name one."""
    assert exits(["--version"], capsys)[0] == 0
    assert main.main(["models", "list"]) == 2
    assert "name one with --dir" in capsys.readouterr().err
    assert main.main(["models", "list", "--dir", "/nowhere"]) == 0


def test_help_loads_none_of_the_heavy_modules():
    """Half a second of imports happens inside `main`, where Ctrl-C is answered, and only where it is needed."""
    script = "import sys, transcriber.cli.main; print({'numpy', 'nats', 'grpc', 'soundfile'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


async def test_ctrl_c_while_modules_load_is_quiet():
    """Exit 130 and no message, even after five signals in the middle of an import."""
    script = """if True:
        import sys
        from transcriber.cli.main import main

        class Tell:
            def find_spec(self, name, path=None, target=None):
                if name == "transcriber.cli.commands":
                    print("loading", flush=True)

        sys.meta_path.insert(0, Tell())
        sys.exit(main(["models", "list"]))
    """
    async with Command(program=("-c", script)) as command:
        await command.printed("loading")
        for _ in range(5):
            with contextlib.suppress(ProcessLookupError):
                command.signal(signal.SIGINT)
        assert await command.ended() == 130
    assert (command.out, command.err) == (["loading"], [])


@pytest.mark.parametrize("number", interrupts.SIGNALS)
def test_each_signal_cancels_the_work_and_gives_its_code(handlers, number):
    """128 + its number, as shells report it. The work may clean up, and no later signal disturbs the exit."""
    steps = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), number)
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            steps.append("cleaned up")

    assert interrupts.interruptible(work()) == 128 + number
    assert steps == ["cleaned up"]
    assert signal.getsignal(number) is signal.SIG_IGN


def test_a_second_signal_ends_the_clean_up_and_more_are_ignored(handlers):
    """Five times Ctrl-C ends the command. The second stage of the clean-up still runs to its end."""
    steps = []

    async def work() -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            try:
                os.kill(os.getpid(), signal.SIGINT)
                await asyncio.Event().wait()
            finally:
                for _ in range(3):
                    os.kill(os.getpid(), signal.SIGINT)
                    await asyncio.sleep(0)
                steps.append("cleaned up")

    assert interrupts.interruptible(work()) == 130
    assert steps == ["cleaned up"]


def test_nested_signals_end_the_command(handlers, monkeypatch):
    """On a busy machine five come before the first is dealt with: each handler begins within the one before."""
    left = iter(range(4))
    monkeypatch.setattr(
        interrupts.logging, "disable", lambda: [os.kill(os.getpid(), signal.SIGINT) for _ in itertools.islice(left, 1)]
    )

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        async with asyncio.timeout(30):
            await asyncio.Event().wait()

    assert interrupts.interruptible(work()) == 130
    assert next(left, None) is None


def test_a_cancellation_that_is_swallowed_comes_again(handlers):
    """`asyncio.wait_for` of Python 3.11 may swallow one. A further signal ends the command all the same."""

    async def work() -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
        async with asyncio.timeout(30):
            await asyncio.Event().wait()

    assert interrupts.interruptible(work()) == 130


def test_finished_work_leaves_the_handlers_as_they_were(handlers):
    """An exception of the work comes out as it is."""

    async def fine() -> None:
        pass

    async def fails() -> None:
        raise BrokerLost("nats://x", 1)

    assert interrupts.interruptible(fine()) == 0
    with pytest.raises(BrokerLost):
        interrupts.interruptible(fails())
    assert {number: signal.getsignal(number) for number in interrupts.SIGNALS} == handlers


def test_an_ignored_signal_stays_ignored(handlers):
    """Under nohup a closed terminal ends nothing."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)

    async def work() -> None:
        os.kill(os.getpid(), signal.SIGHUP)
        await asyncio.sleep(0)

    assert interrupts.interruptible(work()) == 0


@pytest.mark.parametrize(
    ("target", "code", "err"),
    [("/dev/full", 1, ["transcriber: [Errno 28] No space left on device"]), ("closed pipe", 0, [])],
)
async def test_output_that_goes_nowhere_is_no_traceback(target, code, err):
    """A full disk is an error message. A closed reader (`models list | true`) gets none."""
    if target == "closed pipe":
        reading, output = os.pipe()
        os.close(reading)
    else:
        output = os.open(target, os.O_WRONLY)
    async with Command("models", "list", stdout=output) as command:
        os.close(output)
        assert await command.ended() == code
    assert command.err == err
