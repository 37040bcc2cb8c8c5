"""All errors, as one tree.

TranscriberError
├── SettingError        a setting has a value that is not allowed               (exit 2)
├── CannotStart         something the daemon needs is not there                 (exit 3)
│   ├── ModelError      the model file is missing, damaged or not the one expected
│   │   └── Unavailable no source can provide it now
│   └── BrokerError     NATS cannot be reached, refuses us, or forbids a subject
├── BrokerLost          NATS went away and did not come back in time                (exit 4)
├── Fenced              somebody else writes this stream's transcript               (exit 5)
├── NotEnoughMemory     there is no memory for a second model; the one at work goes on
├── RequestError        a request over NATS was answered with an error, or not at all
├── Rejection           one chunk or request breaks the wire protocol; the next one is unaffected
├── RecordingError      a file or payload is not audio that can be decoded
├── EngineError         the engine failed on one window; the worker goes on
│   └── Stopped         the pass was stopped on request
└── AccountingError     a sample was settled twice or never received: a defect of this program
"""

from __future__ import annotations


class TranscriberError(Exception):
    """Base of every error this program raises on purpose."""


class SettingError(TranscriberError):
    """A setting has a value that is not allowed."""

    def __init__(self, name: str, value: str, allowed: str) -> None:
        super().__init__(f"{name}={value!r} is not allowed: {allowed}")
        self.name = name
        self.value = value
        self.allowed = allowed


class CannotStart(TranscriberError):  # noqa: N818 - the outcome, as the exit code names it
    """Something the daemon needs is not there."""


class ModelError(CannotStart):
    """The model file is missing, damaged or not the one expected."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"model {path}: {reason}")
        self.path = path
        self.reason = reason


class Unavailable(ModelError):  # noqa: N818 - the outcome: another source may have it
    """No source can provide a known model. `attempts`: each an action, with the reason for its failure in brackets."""

    def __init__(self, path: str, name: str, *attempts: str) -> None:
        by_hand = f"place it at {path}, then run: transcriber models verify {name}"
        super().__init__(path, f"cannot {' nor '.join(attempts)}; to do it by hand, {by_hand}")
        self.attempts = attempts


class BrokerError(CannotStart):
    """NATS cannot be reached, refuses us, or forbids a subject."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"NATS at {url}: {reason}")
        self.url = url
        self.reason = reason


class BrokerLost(TranscriberError):  # noqa: N818 - the outcome, as the exit code names it
    """NATS was lost during the run and did not come back in time."""

    def __init__(self, url: str, seconds: float | None, trouble: str = "") -> None:
        """`seconds`: how long was waited; None: the connection ended by itself. `trouble`: what was heard last."""
        ended = "the connection ended" if seconds is None else "lost, and not back within "
        waited = "" if seconds is None else f"NATS_RECONNECT_TIMEOUT_SECS={seconds:g}"
        super().__init__(f"NATS at {url}: {ended}{waited}{f' ({trouble})' if trouble else ''}")
        self.url = url
        self.seconds = seconds


class Fenced(TranscriberError):  # noqa: N818 - the outcome, as the exit code names it
    """Another daemon writes this stream's transcript, or holds the lease to do so."""

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"{what}: {reason}")
        self.what = what
        self.reason = reason


class NotEnoughMemory(TranscriberError):  # noqa: N818 - the outcome: the model at work goes on
    """There is no memory for a second model, next to the one at work. Bytes."""

    def __init__(self, path: str, needed: int, available: int) -> None:
        super().__init__(
            f"model {path}: needs {needed / 1e6:.0f} MB of memory next to the present one; "
            f"{available / 1e6:.0f} MB are available"
        )
        self.path = path
        self.needed = needed
        self.available = available


class RequestError(TranscriberError):
    """A request over NATS was answered with an error, or not at all. `code` as in HTTP, `detail` the sentence."""

    def __init__(self, code: int, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code
        self.detail = detail


class Rejection(TranscriberError):  # noqa: N818 - the wire protocol's word
    """One chunk or request breaks the wire protocol; `reason` is the stable word for it, `detail` the sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class RecordingError(TranscriberError):
    """A file or payload is not audio that can be decoded."""

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"{source}: {reason}")
        self.source = source
        self.reason = reason


class EngineError(TranscriberError):
    """The engine failed on one window; the worker goes on."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Stopped(EngineError):  # noqa: N818 - the outcome: nothing failed
    """The pass was stopped on request, in the middle of a window."""


class AccountingError(TranscriberError):
    """A sample was settled twice or never received: a defect of this program."""

    def __init__(self, start: int, end: int, reason: str) -> None:
        super().__init__(f"samples [{start}, {end}): {reason}")
        self.start = start
        self.end = end
        self.reason = reason
