"""What is wrong with a request, and how it is told over HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any

from transcriber.domain.errors import RequestError, TranscriberError

_KINDS = {
    401: "authentication_error",
    403: "permission_error",
    429: "rate_limit_error",
}  # else by the hundred
_LONGEST_WAIT = 120  # seconds: what OpenAI's clients honour of a Retry-After


class Problem(TranscriberError):  # noqa: N818 - what is told to the client, who may be right
    """A request is refused: `status` of HTTP, a sentence, a stable `code`, and the name of the field at fault.

    `retry_after`: seconds after which another attempt may succeed.
    """

    def __init__(  # noqa: PLR0913 - what is told about a problem
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.param = param
        self.headers = dict(headers or {})
        if retry_after is not None:
            self.headers["Retry-After"] = str(min(_LONGEST_WAIT, max(1, math.ceil(retry_after))))

    @property
    def kind(self) -> str:
        """The kind of error, in OpenAI's words."""
        return _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")  # noqa: PLR2004


Shape = Callable[[Problem], dict[str, Any]]  # the JSON body of a refusal


def in_openai_shape(problem: Problem) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`."""
    error = {"message": problem.message, "type": problem.kind, "param": problem.param, "code": problem.code}
    return {"error": error}


def body_of(problem: Problem, shape: Shape) -> bytes:
    """The body of the answer."""
    return json.dumps(shape(problem)).encode() + b"\n"


def problem_of(error: RequestError, retry_after: float = 1.0) -> Problem:
    """Say that a request over NATS failed, in words of HTTP."""
    codes = {400: "invalid_audio", 413: "too_large", 503: "overloaded", 504: "timeout"}
    wait = retry_after if error.code == 503 else None  # noqa: PLR2004 - no place now
    return Problem(error.code, error.detail, code=codes.get(error.code, "engine_error"), retry_after=wait)
