"""`python -m benchmarks.stub`: the real daemon with an engine that does nothing.

It costs what the daemon costs without Whisper. SIGUSR1 starts a probe of the event loop. A second one
ends it, and logs by how much each sleep of a 10 ms timer was too long.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from typing import TYPE_CHECKING

import numpy as np

from transcriber.cli import daemon
from transcriber.domain.results import Segment
from transcriber.domain.timeline import SAMPLE_RATE, UNGUIDED, Guidance
from transcriber.worker.engine import Decoded, Device

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from transcriber.worker.cancellation import Stop
    from transcriber.worker.engine import Speech

log = logging.getLogger("benchmarks.stub")

_TICK_SECS = 0.01  # a hundred a second show a stall of a chunk's length or more


class NullEngine:
    """Returns at once, with one word a window."""

    model = "null"
    device = Device.CPU
    multilingual = True
    beams = False
    batch_sizes = (1,)
    workers = 1

    def transcribe(  # noqa: PLR0913 - all that an engine takes
        self,
        samples: NDArray[np.float32],
        language: str | None,
        stop: Stop | None = None,  # noqa: ARG002 - there is nothing to stop
        *,
        attempt: int = 0,  # noqa: ARG002 - nor a context
        quick: bool = False,  # noqa: ARG002 - nor a search
        guidance: Guidance = UNGUIDED,  # noqa: ARG002 - nor anything to guide
    ) -> Decoded:
        return Decoded((Segment(text="null", start=0, end=len(samples), confidence=1.0),), language or "en")

    def transcribe_many(
        self, speech: Sequence[Speech], stop: Stop | None = None, *, attempt: int = 0, quick: bool = False
    ) -> list[Decoded]:
        return [self.transcribe(w.samples, w.language, stop, attempt=attempt, quick=quick) for w in speech]

    def work(self, samples: int, *, attempt: int = 0) -> float:  # noqa: ARG002 - see above
        return samples / SAMPLE_RATE

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


class LagProbe:
    """Starts at the first call of `toggle`; ends and logs at the second."""

    def __init__(self) -> None:
        self._lags: list[float] = []
        self._task: asyncio.Task[None] | None = None

    def toggle(self) -> None:
        if self._task is None:
            self._lags = []
            self._task = asyncio.create_task(self._run())
            return
        self._task.cancel()
        self._task = None
        p50, p99, worst = (float(np.percentile(self._lags or [0.0], p)) for p in (50, 99, 100))
        log.info("loop lag", extra={"p50": p50, "p99": p99, "max": worst, "n": len(self._lags)})

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + _TICK_SECS
            await asyncio.sleep(_TICK_SECS)
            self._lags.append(loop.time() - due)


def _on_signal(probe: LagProbe) -> None:
    asyncio.get_running_loop().call_soon_threadsafe(probe.toggle)


if __name__ == "__main__":
    probe = LagProbe()
    signal.signal(signal.SIGUSR1, lambda *_: _on_signal(probe))
    daemon.serve(lambda _: NullEngine())
