"""Real parts for every test: a NATS server per test, the daemon as a process, speech with its words."""

from __future__ import annotations

import contextlib
import pwd
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from chaos import jetstream_server
from harness import QUICK, Client, Daemon, NatsServer, Speech
from places import DATA

from transcriber.models import store

# Everyone's run has the same examples, so that no change is blamed for what another run might have found. New ones are
# searched for with `--hypothesis-profile=search`. No test fails for the time that it takes: the machine may be busy.
hypothesis.settings.register_profile("search", deadline=None)
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.load_profile("same")


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without a home: a container with a user id of its own, which no /etc/passwd knows."""

    def unknown(uid: int) -> None:
        raise KeyError(uid)

    for variable in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.fixture
def nats_server(tmp_path: Path) -> Iterator[NatsServer]:
    with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    """A server with JetStream, for durable mode."""
    with jetstream_server(tmp_path) as running:
        yield running


@pytest.fixture
async def client(nats_server: NatsServer) -> AsyncIterator[Client]:
    async with Client(nats_server.url) as connected:
        yield connected


@pytest.fixture
async def daemons(nats_server: NatsServer, client: Client) -> AsyncIterator[contextlib.AsyncExitStack]:
    """A stack onto which a test puts the daemons it starts; the client listens before any of them speaks."""
    async with contextlib.AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def daemon(nats_server: NatsServer, client: Client) -> AsyncIterator[Daemon]:
    """The real command with the real model, ready."""
    async with Daemon(nats_server.url) as running:
        yield running


@pytest.fixture
async def quick_daemon(nats_server: NatsServer, client: Client) -> AsyncIterator[Daemon]:
    """The same, with its speed given in place of measured."""
    async with Daemon(nats_server.url, **QUICK) as running:
        yield running


@pytest.fixture(scope="session")
def bundled_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled model in CTranslate2's format."""
    directory = tmp_path_factory.mktemp("models")
    bundled = store.MODELS["dispatch-mini"]
    return store.pull_folder(bundled.name, directory, store.pull(bundled.name, directory)).path


@pytest.fixture(scope="session")
def heldout() -> Speech:
    return Speech.load(DATA / "heldout")


@pytest.fixture(scope="session")
def demo_speech() -> Speech:
    return Speech.load(DATA.parent.parent / "models" / "demo")


@pytest.fixture(scope="session")
def more_heldout() -> Speech:
    return Speech.load(DATA / "heldout2")


@pytest.fixture(scope="session")
def words_apart() -> Speech:
    """Single words with exactly half a second of silence between them."""
    return Speech.load(DATA / "words_apart")


@pytest.fixture
def pod(objects: dict[str, Any]) -> dict[str, Any]:
    """The pod of the one Deployment among the `objects` that the test's own file renders."""
    return dict(objects["Deployment"]["spec"]["template"]["spec"])


@pytest.fixture
def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["containers"]
    return dict(only)
