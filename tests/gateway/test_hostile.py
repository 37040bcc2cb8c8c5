"""Hostile and broken peers against a real gateway. tests/slow/test_gateway_soak.py sends them for longer."""

from __future__ import annotations

from collections.abc import AsyncIterator

import hostile
import pytest
from gateways import gateway, worker
from harness import NatsServer
from hostile import Peer, Place

from transcriber.gateway import front
from transcriber.gateway.rest import receiving

MOST_PINGS = 64 * 1024 * 1024  # bytes: what the kernel holds on both ways, several times


@pytest.fixture
async def place(nats_server: NatsServer) -> AsyncIterator[Place]:
    async with worker(nats_server.url), gateway(nats_server.url, wyoming_port=0) as serving:
        yield Place(serving.port, serving._door.port)


@pytest.mark.parametrize("peer", hostile.QUICK, ids=lambda peer: peer.__name__)
async def test_hostile_peer_is_refused(place: Place, peer: Peer) -> None:
    assert hostile.QUICK[peer] in await peer(place)


@pytest.mark.parametrize("peer", [hostile.slow_head, hostile.slow_body, hostile.slow_form], ids=lambda p: p.__name__)
async def test_dripping_request_is_given_up(place: Place, peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told so, although it is never silent for long."""
    monkeypatch.setattr(front, "_HEAD_SECS", 2.0)
    monkeypatch.setattr(receiving, "_WINDOW_SECS", 2.0)
    assert await peer(place) == "408"


async def test_pings_that_nobody_reads_are_bounded(place: Place) -> None:
    """Their answers would fill the memory."""
    assert await hostile.pinged(place) < MOST_PINGS
