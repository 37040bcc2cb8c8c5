"""What is said about JetStream that does not answer."""

from __future__ import annotations

import asyncio

import nats.errors
import nats.js.errors
import pytest
from harness import NatsServer

from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.broker.patience import describe, is_final, is_off


def _kinds() -> list[type[Exception]]:
    no_text = nats.js.errors.ConsumerSequenceMismatchError  # without values; only push consumers raise it
    named = [*vars(nats.js.errors).values(), *vars(nats.errors).values(), TimeoutError, asyncio.TimeoutError, OSError]
    return [kind for kind in named if isinstance(kind, type) and issubclass(kind, Exception) and kind is not no_text]


async def test_every_error_can_be_told(nats_server: NatsServer) -> None:
    """nats-py leaves out, here and there, what its own classes promise: a lease that had run out ended the daemon."""
    connection = Connection(BrokerOptions(url=nats_server.url))
    await connection.open()
    made = 0
    for kind in _kinds():
        try:
            error = kind()
        except TypeError:  # its arguments are not optional
            continue
        made += 1
        assert describe(error)
        assert "None" not in describe(error) or kind.__module__ != "nats.js.errors", kind
        is_final(connection, error)
        is_off(error)
    await connection.close()
    assert made > 30


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (nats.js.errors.KeyNotFoundError(), "nats: key not found"),
        (nats.js.errors.ServiceUnavailableError(), "ServiceUnavailableError"),
        (nats.js.errors.NotFoundError(code=404, description="stream not found", err_code=10059), "stream not found"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_in_words(error: Exception, words: str) -> None:
    assert describe(error) == words
