"""Heads of requests, routes, and problems in the words of HTTP."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.errors import RequestError
from transcriber.gateway import head as heads
from transcriber.gateway.problems import Problem, body_of, in_openai_shape, problem_of
from transcriber.gateway.routes import Accepted, Opening, Route, Routes, SocketRoute


def test_head_is_read_with_names_in_lower_case() -> None:
    head = heads.parse(
        b"GET /v1/l%C3%A4sten?a=1&a=2&b= HTTP/1.1\r\nHost: x\r\nSec-WebSocket-Protocol: token , k\r\n"
        b"UPGRADE: WebSocket\r\nX: 1\r\nx:2\r\n\r\n"
    )
    assert (head.method, head.path, head.version) == ("GET", "/v1/lästen", "HTTP/1.1")
    assert head.query == {"a": ["1", "2"], "b": [""]}
    assert head.subprotocols == ("token", "k")
    assert head.headers["x"] == "1, 2"
    assert head.upgrades


@given(st.binary(max_size=200))
def test_any_bytes_are_a_head_or_a_value_error(data: bytes) -> None:
    try:
        head = heads.parse(data + heads.END)
    except ValueError:
        return
    assert all(name == name.lower() for name in head.headers)


async def nothing(_request: object, _call: object) -> None:
    """Never called."""


def opened(_opening: Opening) -> Accepted:
    raise AssertionError("never called")


def test_routes_find_exact_paths_and_one_name() -> None:
    routes = Routes()
    all_models, one = Route(handler=nothing), Route(handler=nothing, free=True)
    routes.add("GET", "/v1/models", all_models)
    routes.add("GET", "/v1/models/{id}", one)
    routes.add_socket("/v1/listen", SocketRoute(open=opened))
    assert routes.find("HEAD", "/v1/models") == (all_models, {})
    assert routes.find("GET", "/v1/models/base.en") == (one, {"id": "base.en"})
    for path in ("/v1/models/", "/v1/models/a/b", "/v1", ""):
        with pytest.raises(Problem) as refused:
            routes.find("GET", path)
        assert refused.value.status == 404
    with pytest.raises(Problem) as refused:
        routes.find("POST", "/v1/models")
    assert (refused.value.status, refused.value.headers) == (405, {"Allow": "GET"})
    with pytest.raises(Problem, match="WebSockets"):
        routes.find("GET", "/v1/listen")
    assert routes.paths == ["/v1/listen", "/v1/models", "/v1/models/{id}"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "invalid_request_error"),
        (401, "authentication_error"),
        (403, "permission_error"),
        (429, "rate_limit_error"),
        (503, "server_error"),
    ],
)
def test_problem_has_the_shape_that_openais_clients_read(status: int, kind: str) -> None:
    body = json.loads(body_of(Problem(status, "no", code="c", param="p"), in_openai_shape))
    assert body == {"error": {"message": "no", "type": kind, "param": "p", "code": "c"}}


@pytest.mark.parametrize(("wait", "told"), [(0.0, "1"), (1.2, "2"), (1e9, "120")])
def test_wait_is_told_in_whole_seconds_of_at_most_two_minutes(wait: float, told: str) -> None:
    assert Problem(503, "busy", retry_after=wait).headers == {"Retry-After": told}


@pytest.mark.parametrize(("code", "retry"), [(400, False), (413, False), (500, False), (503, True), (504, False)])
def test_refused_request_keeps_its_status(code: int, retry: bool) -> None:
    problem = problem_of(RequestError(code, "no"))
    assert (problem.status, "Retry-After" in problem.headers) == (code, retry)
