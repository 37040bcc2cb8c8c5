"""How connections of Deepgram's and OpenAI's clients are opened: by query, headers and subprotocols."""

from __future__ import annotations

import json
from typing import Any

import pytest

from transcriber.gateway.dialects.dialect import Send
from transcriber.gateway.live_speech import in_deepgram_shape, open_deepgram, open_realtime
from transcriber.gateway.problems import Problem
from transcriber.gateway.routes import Accepted, Opening


def opening(query: dict[str, list[str]], *subprotocols: str, **headers: str) -> Opening:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Opening(path="/", query=query, headers=named, subprotocols=subprotocols, request_id="r1")


def first_event(accepted: Accepted) -> dict[str, Any]:
    (command,) = accepted.dialect.opened()
    assert isinstance(command, Send)
    event: dict[str, Any] = json.loads(command.message)
    return event


@pytest.mark.parametrize("marker", ["token", "bearer"])
def test_deepgram_in_a_browser_gets_its_marker_back(marker: str) -> None:
    """Its key comes as a subprotocol next to it, and is not repeated."""
    accepted = open_deepgram(opening({}, marker, "secret"))
    assert (accepted.subprotocol, accepted.headers) == (marker, {"dg-request-id": "r1"})
    assert open_deepgram(opening({})).subprotocol is None


def test_refusal_of_deepgram_is_in_its_shape() -> None:
    with pytest.raises(Problem) as refusal:
        open_deepgram(opening({"encoding": ["opus"]}))
    told = in_deepgram_shape(refusal.value)
    assert (told["err_code"], "encoding='opus'" in told["err_msg"]) == ("INVALID_QUERY_PARAMETER", True)


@pytest.mark.parametrize(
    ("subprotocols", "headers", "expected"),
    [
        ((), {}, "session.created"),
        (("realtime", "openai-insecure-api-key.k"), {}, "session.created"),
        (("realtime", "openai-beta.realtime-v1"), {}, "transcription_session.created"),
        ((), {"openai_beta": "realtime=v1"}, "transcription_session.created"),
    ],
)
def test_realtime_is_in_the_shape_that_is_asked_for(
    subprotocols: tuple[str, ...], headers: dict[str, str], expected: str
) -> None:
    """By header, or by subprotocol in a browser, which gets only `realtime` back."""
    accepted = open_realtime(opening({"model": ["whisper-1"]}, *subprotocols, **headers))
    event = first_event(accepted)
    assert event["type"] == expected
    assert "whisper-1" in json.dumps(event)
    assert accepted.subprotocol == ("realtime" if subprotocols else None)


def test_realtime_conversation_is_refused_before_it_opens() -> None:
    with pytest.raises(Problem, match="intent='conversation'"):
        open_realtime(opening({"intent": ["conversation"]}))
