"""Reads the settings from the environment, which no other room reads, into each module's own options class."""

from __future__ import annotations

import difflib
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from transcriber.audio.segmenter import Segmentation, StreamOptions
from transcriber.audio.session import SessionOptions
from transcriber.domain import languages
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import ModelError, SettingError
from transcriber.domain.timeline import SAMPLE_RATE
from transcriber.http.acceptor import HOSTS, HealthOptions
from transcriber.models import store
from transcriber.protocol import incoming
from transcriber.protocol.partitions import GROUP, group_of
from transcriber.settings import shared
from transcriber.settings.reader import Reader
from transcriber.worker.context import POSITIONS, Cutting, Fit, cutting_for, fit_for
from transcriber.worker.engine import (
    BEAM_SIZE,
    COMPUTE_TYPES,
    LARGEST_BATCH,
    WIDEST_BEAM,
    Device,
    EngineName,
    WhisperOptions,
)
from transcriber.worker.scheduling import cpu_quota

if TYPE_CHECKING:
    from transcriber.broker.options import BrokerOptions
    from transcriber.protocol.partitions import FleetOptions
    from transcriber.telemetry.logs import LogFormat
    from transcriber.telemetry.providers import TelemetryOptions

log = logging.getLogger(__name__)

_SUBJECT = re.compile(rf"audio\.(\*|[A-Za-z0-9_-]{{1,64}}|{GROUP}\.\*)")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_LONGEST_WINDOW = 30.0  # seconds: the most that Whisper's encoder takes
_SHORTEST_WINDOW = 1.0  # seconds: one word with its pre-roll and pause
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.48, 5.0  # seconds: shorter ones are in words and phrases, longer ones silence
_AUTO = "auto"
# difflib's likeness, 0 to 1: WHISPER_MODEL to WHISPER_MODEL_PATH is 0.84, AUDIO_RATE to AUDIO_SAMPLE_RATE 0.74.
_ALIKE = 0.7


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All settings of the daemon. Durations in seconds."""

    durable: bool  # audio comes from JetStream
    max_lag: float | None  # the oldest stored audio to transcribe; None: any age
    subject: str
    fleet: FleetOptions | None  # None: no fleet
    input: incoming.InputOptions
    sessions: SessionOptions
    broker: BrokerOptions
    whisper: WhisperOptions
    model_sha256: str | None
    max_latency: float
    rtf: float | None  # None: measured at start
    queue_capacity: int | None  # None: derived
    shutdown_grace: float
    status_interval: float
    partial_interval: float  # 0: no partials
    health: HealthOptions
    status_page: bool
    telemetry: TelemetryOptions
    log_level: str
    log_format: LogFormat


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings from `environ`, by default the process's. Raises `SettingError` for the first bad one."""
    return _read(Reader(os.environ if environ is None else environ))


def names() -> frozenset[str]:
    """Every variable that the daemon reads. The OpenTelemetry SDK itself reads more OTEL_* variables."""
    reader = Reader({})
    _read(reader)
    return frozenset(reader.names)


def misspelt(environ: Mapping[str, str] | None = None, known: frozenset[str] | None = None) -> dict[str, str]:
    """Return variables that resemble a known one, each with the one that was probably meant; `known`: `names()`.

    Leaves out the variables of the OpenTelemetry SDK, and Kubernetes' links to a service called `nats`.
    """
    ours, found = sorted(names() if known is None else known), {}  # sorted, so that a tie always gives the same one
    for name, value in (os.environ if environ is None else environ).items():
        if name in ours or name.startswith("OTEL_") or value.startswith("tcp://"):
            continue
        if like := difflib.get_close_matches(name, ours, 1, _ALIKE):
            found[name] = like[0]
    return found


def warn_of_misspelt(known: frozenset[str] | None = None) -> None:
    """Log each variable of the process's environment that `misspelt` finds."""
    for name, meant in misspelt(known=known).items():
        log.warning("%s is not a setting and changes nothing: %s is one", name, meant)


def _read(r: Reader) -> Settings:
    whisper = _whisper(r)
    max_latency = r.number("TRANSCRIPTION_MAX_LATENCY_SECS", 20.0, 0.1, 3600)
    r.parsed(
        "TARGET_SAMPLE_RATE",
        SAMPLE_RATE,
        _only_16k,
        f"{SAMPLE_RATE} only: Whisper was trained on 16 kHz and hears no other",
    )
    sha256 = r.matching("WHISPER_MODEL_SHA256", "", _SHA256, "64 hexadecimal digits in lower case")
    r.choice("VAD", "webrtc", "webrtc")
    durable = r.choice("AUDIO_SOURCE", "nats", "nats", "jetstream") == "jetstream"
    subject, fleet = _heard(r, durable=durable)
    return Settings(
        durable=durable,
        max_lag=r.number("DURABLE_MAX_LAG_SECS", 0.0, 1, 10**9) or None,
        subject=subject,
        fleet=fleet,
        input=_input(r),
        sessions=_sessions(r, cutting_for(_fit(whisper), max_latency)),
        broker=shared.broker(r),
        whisper=whisper,
        model_sha256=sha256 or None,
        max_latency=max_latency,
        rtf=r.number("WHISPER_RTF", 0.0, 1e-4, 1e3) or None,
        queue_capacity=r.whole("TRANSCRIPTION_QUEUE_CAPACITY", 0, 1, 10_000) or None,
        shutdown_grace=shared.shutdown_grace(r),
        status_interval=r.number("STATUS_INTERVAL_SECS", 5.0, 0.1, 3600),
        partial_interval=r.number("PARTIAL_INTERVAL_SECS", 1.0, 0, 30),
        health=HealthOptions(
            r.matching("HEALTH_HOST", "0.0.0.0", HOSTS, "addresses or host names, several with commas"),  # noqa: S104
            r.whole("HEALTH_PORT", 8080, 0, 65_535),
        ),
        status_page=r.choice("STATUS_PAGE", "on", "on", "off") == "on",
        telemetry=shared.telemetry(r),
        log_level=shared.log_level(r),
        log_format=shared.log_format(r),
    )


def _heard(r: Reader, *, durable: bool) -> tuple[str, FleetOptions | None]:
    """Where the audio comes from, and with whom it is shared."""
    allowed = (
        "audio.* or audio.<stream>, a stream [A-Za-z0-9_-]{1,64}; "
        "or audio.<group>.*, a group [A-Za-z0-9_-]{1,32} with more than digits"
    )
    subject = r.matching("AUDIO_SUBJECT", "audio.*", _SUBJECT, allowed)
    fleet, group = shared.fleet(r), group_of(subject)
    if group and durable:
        allowed = "audio.* or audio.<stream>, as AUDIO_SOURCE=jetstream stores no audio of groups"
        raise SettingError("AUDIO_SUBJECT", subject, allowed)
    if fleet is None:
        return subject, None
    if group is None:
        allowed = "audio.*, audio.<group>.* or nothing, as FLEET shares all streams"
        raise SettingError("AUDIO_SUBJECT", subject, allowed)
    return subject, replace(fleet, group=group)


def _input(r: Reader) -> incoming.InputOptions:
    encoding = Encoding(r.choice("AUDIO_ENCODING", "pcm_s16le", *Encoding))
    rate = r.whole("AUDIO_SAMPLE_RATE", 48_000, incoming.RATES.start, incoming.RATES.stop - 1)
    channels = r.whole("AUDIO_CHANNELS", 1, incoming.CHANNEL_COUNTS.start, incoming.CHANNEL_COUNTS.stop - 1)
    largest = r.whole("AUDIO_MAX_CHUNK_BYTES", 1_048_576, 1, 64 * 1024 * 1024)
    return incoming.InputOptions(AudioFormat(encoding, rate, channels), largest)


def _fit(whisper: WhisperOptions) -> Fit:
    """The fit for the model. One that cannot be read gets any fit, as the start fails later and says why."""
    try:
        return whisper.audio_ctx if isinstance(whisper.audio_ctx, Fit) else fit_for(store.check(whisper.path))
    except ModelError:
        return Fit.TIGHT


def _sessions(r: Reader, cutting: Cutting) -> SessionOptions:
    window = r.number("BUFFER_DURATION_SECS", cutting.window, _SHORTEST_WINDOW, _LONGEST_WINDOW)
    pause = r.number("END_OF_SPEECH_SECS", cutting.pause, _SHORTEST_PAUSE, _LONGEST_PAUSE)
    segmentation = Segmentation(r.choice("SEGMENTATION", "utterance", *Segmentation))
    return SessionOptions(
        StreamOptions(segmentation, window, r.whole("VAD_AGGRESSIVENESS", 2, 0, 3), pause),
        r.whole("MAX_STREAMS", 1000, 1, 100_000),
        r.number("STREAM_TIMEOUT_SECS", 5.0, 0.1, 86_400),
        r.number("SESSION_TIMEOUT_SECS", 300.0, 0.1, 86_400),
    )


def _whisper(r: Reader) -> WhisperOptions:
    def context(value: str) -> int | Fit | None:
        if value in {"auto", Fit.FULL, Fit.TIGHT}:
            return None if value == "auto" else Fit(value)
        if not 1 <= int(value) <= POSITIONS:
            raise ValueError
        return int(value)

    def language(value: str) -> str:
        if (code := languages.code(value)) is None:
            raise ValueError
        return code

    def batch_size(value: str) -> int | None:
        if value == _AUTO:
            return None
        if not 1 <= int(value) <= LARGEST_BATCH:
            raise ValueError
        return int(value)

    kind = r.choice("WHISPER_ENGINE", _AUTO, _AUTO, *EngineName)
    compute_type = r.choice("WHISPER_COMPUTE_TYPE", _AUTO, _AUTO, *COMPUTE_TYPES)
    return WhisperOptions(
        path=Path(r.text("WHISPER_MODEL_PATH", str(store.bundled_model_path()))),
        engine=None if kind == _AUTO else EngineName(kind),
        threads=r.whole("WHISPER_THREADS", cpu_quota(), 1, 256),
        language=r.parsed("WHISPER_LANGUAGE", "en", language, languages.ALLOWED),
        prompt=r.text("WHISPER_PROMPT"),
        audio_ctx=r.parsed(
            "WHISPER_AUDIO_CTX", None, context, "auto, full, tight, or a number of encoder positions from 1 to 1500"
        ),
        use_gpu=r.flag("WHISPER_USE_GPU"),
        device=Device(r.choice("WHISPER_DEVICE", Device.AUTO, *Device)),
        compute_type=None if compute_type == _AUTO else compute_type,
        beam_size=r.whole("WHISPER_BEAM_SIZE", BEAM_SIZE, 1, WIDEST_BEAM),
        batch_size=r.parsed("WHISPER_BATCH_SIZE", None, batch_size, f"auto, or a number from 1 to {LARGEST_BATCH}"),
    )


def _only_16k(value: str) -> int:
    if int(value) != SAMPLE_RATE:
        raise ValueError
    return SAMPLE_RATE
