"""The real daemon around a stub engine (a stand-in, named as one): it sleeps STUB_SECS a window and tells its length.

STUB_WARM_SECS is the time of the first pass, the warm-up. STUB_FAIL_EVERY=n makes every n-th pass fail. At
STUB_DIES_AT=n the n-th call ends the thread, and at STUB_HANGS_AT=n it never returns, whatever it is asked. The warm-up
of the model STUB_SLOW never ends. STUB_DEAF=1 makes it finish every pass, as CTranslate2 does. STUB_BATCH=n windows go
into a pass, for the time of one.

Used where the engine's speed or failure is what a test is about.
"""

import asyncio
import os
import sys
import time

from transcriber import settings
from transcriber.daemon.service import Service
from transcriber.domain.errors import EngineError, Stopped
from transcriber.domain.results import Segment
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.models import store
from transcriber.telemetry import logs
from transcriber.worker.engine import Decoded, Device, WhisperOptions


class StubEngine:
    def __init__(self, options: WhisperOptions) -> None:
        self.model = "stub" if options.path == store.bundled_model_path() else options.path.stem
        self._seconds = float(os.environ.get("STUB_SECS", "0"))
        self._warm_seconds = float(os.environ.get("STUB_WARM_SECS", self._seconds))
        if self.model == os.environ.get("STUB_SLOW"):
            self._warm_seconds = 3600.0
        self._fail_every = int(os.environ.get("STUB_FAIL_EVERY", "0"))
        self._dies_at = int(os.environ.get("STUB_DIES_AT", "0"))
        self._hangs_at = int(os.environ.get("STUB_HANGS_AT", "0"))
        self._deaf = os.environ.get("STUB_DEAF") == "1"
        self.device, self.beams, self.multilingual = Device.CPU, False, True
        self.workers, self.batch_sizes = 1, (int(os.environ.get("STUB_BATCH", "1")),)
        self._calls = 0

    def work(self, _samples, **_options):
        return 1.0

    def close(self):
        pass

    def transcribe_many(self, speech, stop=None, **_options):
        self._calls += 1
        while self._calls == self._hangs_at:
            time.sleep(1)
        until = time.monotonic() + (self._seconds if self._calls > 1 else self._warm_seconds)
        while (left := until - time.monotonic()) > 0:
            if stop is not None and stop.requested() and not self._deaf:
                raise Stopped("the stub was stopped")
            time.sleep(min(left, 0.01))  # the real engine asks some ten times a window, too
        if self._calls == self._dies_at:
            raise SystemExit
        if self._fail_every and self._calls % self._fail_every == 0:
            raise EngineError("the stub was told to fail")
        return [self._decoded(len(window.samples), window.language) for window in speech]

    def _decoded(self, length, language):
        segment = Segment(text=f"stub {length / SAMPLE_RATE:.3f}", start=0, end=length, confidence=0.9)
        return Decoded((segment,), language or "en")


async def main() -> int:
    chosen = settings.load()
    logs.configure(chosen.log_level, chosen.log_format)
    return await Service(chosen, StubEngine).run()


code = asyncio.run(main())
sys.stdout.flush()
os._exit(code)  # as the real command ends: the engine may still be in a window
