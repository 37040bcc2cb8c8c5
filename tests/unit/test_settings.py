"""The settings: what is read, what is refused, and what the command says about it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from harness import Daemon
from hypothesis import given
from hypothesis import strategies as st

from transcriber import settings
from transcriber.audio.segmenter import Segmentation
from transcriber.domain.chunks import AudioFormat, Encoding
from transcriber.domain.errors import SettingError
from transcriber.protocol.partitions import FleetOptions
from transcriber.settings import Settings
from transcriber.telemetry.logs import LogFormat
from transcriber.worker import scheduling
from transcriber.worker.context import Fit

BAD = [
    ("AUDIO_SOURCE", "kafka", "nats"),
    ("AUDIO_SUBJECT", "audio.>", "audio.*"),
    ("AUDIO_SUBJECT", "audio.a.b", "audio.<stream>"),
    ("AUDIO_SUBJECT", "audio.7.*", "audio.<group>.*"),
    ("AUDIO_SUBJECT", "audio.*.*", "audio.<group>.*"),
    ("FLEET", "a.b", "1 to 32 of A-Z"),
    ("FLEET_PARTITIONS", "0", "1 to 4096"),
    ("AUDIO_ENCODING", "mp3", "pcm_s16le"),
    ("AUDIO_SAMPLE_RATE", "7999", "8000 to 192000"),
    ("AUDIO_CHANNELS", "9", "1 to 8"),
    ("AUDIO_MAX_CHUNK_BYTES", "0", "1 to"),
    ("MAX_STREAMS", "-1", "1 to"),
    ("TARGET_SAMPLE_RATE", "8000", "16000"),
    ("BUFFER_DURATION_SECS", "31", "1 to 30"),
    ("BUFFER_DURATION_SECS", "nan", "1 to 30"),
    ("END_OF_SPEECH_SECS", "0.2", "0.48 to 5"),
    ("SEGMENTATION", "words", "utterance"),
    ("VAD", "silero", "webrtc"),
    ("VAD_AGGRESSIVENESS", "4", "0 to 3"),
    ("STREAM_TIMEOUT_SECS", "0", "0.1 to"),
    ("SESSION_TIMEOUT_SECS", "inf", "0.1 to"),
    ("STATUS_INTERVAL_SECS", "often", "0.1 to"),
    ("PARTIAL_INTERVAL_SECS", "-1", "0 to 30"),
    ("WHISPER_MODEL_SHA256", "abc", "64 hexadecimal digits"),
    ("WHISPER_THREADS", "0", "1 to"),
    ("WHISPER_LANGUAGE", "english", "ISO 639"),
    ("WHISPER_AUDIO_CTX", "1501", "1 to 1500"),
    ("WHISPER_USE_GPU", "maybe", "true or false"),
    ("WHISPER_BATCH_SIZE", "0", "auto, or a number from 1 to 64"),
    ("WHISPER_BATCH_SIZE", "all", "auto, or a number from 1 to 64"),
    ("TRANSCRIPTION_MAX_LATENCY_SECS", "-3", "0.1 to"),
    ("WHISPER_RTF", "0", "0.0001 to"),
    ("TRANSCRIPTION_QUEUE_CAPACITY", "1.5", "1 to"),
    ("SHUTDOWN_GRACE_SECS", "-1", "0 to"),
    ("HEALTH_PORT", "65536", "0 to 65535"),
    ("HEALTH_HOST", "127.0.0.1,", "several with commas"),
    ("STATUS_PAGE", "maybe", "on or off"),
    ("LOG_LEVEL", "LOUD", "DEBUG or INFO"),
    ("LOG_FORMAT", "xml", "json or text"),
    ("NATS_CONNECT_TIMEOUT_SECS", "soon", "0.1 to"),
    ("NATS_RECONNECT_TIMEOUT_SECS", "0", "0.1 to"),
    ("NATS_URL", "http://host:4222", "nats://"),
    ("NATS_URL", "nats://host:port", "nats://"),
    ("OTEL_METRICS_EXPORTER", "statsd", "otlp"),
    ("OTEL_EXPORTER_OTLP_PROTOCOL", "soap", "grpc"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_a_bad_value_is_refused_by_name_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    """The error carries the setting, its value, and what is allowed."""
    with pytest.raises(SettingError) as error:
        settings.load({name: value})
    assert (error.value.name, error.value.value) == (name, value)
    assert allowed in error.value.allowed
    assert f"{name}={value!r}" in str(error.value)


# No environment can hold a null character.
VALUES = st.text(st.characters(exclude_characters="\0"))


@given(environ=st.dictionaries(st.sampled_from(sorted(settings.names())), VALUES))
def test_any_environment_gives_settings_or_a_setting_error(environ: dict[str, str]) -> None:
    """Text in a variable raises nothing but `SettingError`, and that names a variable that was set."""
    loaded = outcome(environ)
    if isinstance(loaded, SettingError):
        assert environ[loaded.name] == loaded.value or loaded.name == "NATS_URL"
    else:
        assert loaded.max_latency > 0


def outcome(environ: dict[str, str]) -> Settings | SettingError:
    try:
        return settings.load(environ)
    except SettingError as error:
        return error


def test_the_defaults_are_those_of_the_wire_protocol() -> None:
    """Without variables, or with all of them empty, the daemon runs as docs/settings.md says."""
    plain = settings.load({})
    assert plain == settings.load(dict.fromkeys(settings.names(), ""))
    assert plain.subject == "audio.*"
    assert plain.input.format == AudioFormat(Encoding.S16LE, 48_000, 1)
    assert plain.input.max_chunk_bytes == 1_048_576
    assert (plain.sessions.max_streams, plain.sessions.stream_timeout, plain.sessions.session_timeout) == (1000, 5, 300)
    assert plain.sessions.stream.segmentation is Segmentation.UTTERANCE
    assert (plain.sessions.stream.window_secs, plain.sessions.stream.vad_aggressiveness) == (5, 2)
    assert (plain.max_latency, plain.shutdown_grace, plain.status_interval) == (20, 25, 5)
    assert (plain.rtf, plain.queue_capacity, plain.model_sha256) == (None, None, None)
    assert (plain.broker.connect_timeout, plain.broker.reconnect_timeout) == (30, 120)
    assert (plain.health.host, plain.health.port) == ("0.0.0.0", 8080)
    assert plain.status_page
    assert (plain.log_level, plain.log_format) == ("INFO", LogFormat.JSON)
    assert (plain.telemetry.metrics_exporter, plain.telemetry.traces_exporter) == ("none", "none")


@pytest.mark.parametrize(
    ("value", "code"), [("DE", "de"), ("pt-BR", "pt"), ("deu", "de"), ("nb_NO", "no"), ("Auto", "auto")]
)
def test_a_language_may_be_written_as_people_do(value: str, code: str) -> None:
    """It reaches the engine as Whisper's code."""
    assert settings.load({"WHISPER_LANGUAGE": value}).whisper.language == code


def test_each_variable_reaches_its_module() -> None:
    """Values arrive where they are used, spaces around them removed."""
    given = settings.load(
        {
            "NATS_URL": "tls://a:4222,b",
            "NATS_USER": "u",
            "NATS_PASSWORD": "p",
            "AUDIO_SUBJECT": "audio.radio-1",
            "AUDIO_ENCODING": "PCM_MULAW",
            "AUDIO_SAMPLE_RATE": " 8000 ",
            "SEGMENTATION": "fixed",
            "WHISPER_AUDIO_CTX": "full",
            "WHISPER_MODEL_SHA256": "0" * 64,
            "WHISPER_RTF": "0.25",
            "LOG_LEVEL": "debug",
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        }
    )
    assert (given.broker.servers, given.broker.user) == (["tls://a:4222", "b"], "u")
    assert given.subject == "audio.radio-1"
    assert given.input.format == AudioFormat(Encoding.MULAW, 8000, 1)
    assert given.sessions.stream.segmentation is Segmentation.FIXED
    assert (given.whisper.audio_ctx, given.model_sha256, given.rtf) == (Fit.FULL, "0" * 64, 0.25)
    assert given.log_level == "DEBUG"
    assert given.telemetry.metrics_exporter == "otlp"


def test_a_bad_url_is_refused_without_its_password() -> None:
    """The error shows the address without credentials."""
    with pytest.raises(SettingError) as error:
        settings.load({"NATS_URL": "nats://bob:s3cret@host:port,http://eve:hidden@other"})
    assert "host:port" in str(error.value)
    assert "s3cret" not in str(error.value)
    assert "hidden" not in str(error.value)


def test_misspelt_variable_is_found_with_the_setting_meant() -> None:
    """A container's usual variables and those of the OpenTelemetry SDK are not reported."""
    meant = {"WHISPER_MODEL": "WHISPER_MODEL_PATH", "AUDIO_RATE": "AUDIO_SAMPLE_RATE", "LOGLEVEL": "LOG_LEVEL"}
    usual = ("LANG", "HOSTNAME", "GPG_KEY", "PYTHON_VERSION", "SSL_CERT_FILE", "OMP_NUM_THREADS", "NATS_SERVICE_HOST")
    link = {"NATS_PORT": "tcp://10.0.0.1:4222"}
    set_ = dict.fromkeys((*meant, *usual, *settings.names(), "OTEL_METRIC_EXPORTER"), "x")
    assert settings.misspelt(set_ | link) == meant


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000"}, 1),
        ({"cpu.max": "50000 100000"}, 1),
        ({"cpu.max": "100000000 100000"}, None),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "100000", "cpu/cpu.cfs_period_us": "100000"}, 1),
        ({"cpu.max": "junk"}, None),
        ({}, None),
    ],
)
def test_the_thread_count_is_the_containers_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str], cpus: int | None
) -> None:
    """The quota of cgroup v2 or v1 is rounded down, to at least 1 and at most the CPUs that are there."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _pid: set(range(64)), raising=False)
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert scheduling.cpu_quota(tmp_path) == (64 if cpus is None else cpus)


@pytest.mark.parametrize(("name", "value"), [("BUFFER_DURATION_SECS", "0"), ("TARGET_SAMPLE_RATE", "44100")])
async def test_the_daemon_exits_with_2_and_one_sentence(name: str, value: str) -> None:
    """A bad setting ends the start at once. Standard error names setting, value and what is allowed."""
    environ: dict[str, Any] = {name: value}
    async with Daemon("nats://127.0.0.1:1", wait=False, **environ) as daemon:
        assert await daemon.ended(10) == 2
    assert daemon.stderr.startswith(f"transcriber: {name}={value!r} is not allowed: ")
    assert daemon.stderr.count("\n") == 1


async def test_the_daemon_warns_of_a_misspelt_setting() -> None:
    """It goes on, as the variable may belong to another program."""
    async with Daemon("nats://127.0.0.1:1", wait=False, MAX_STREAM="9", NATS_CONNECT_TIMEOUT_SECS="0.1") as daemon:
        line = await daemon.logged("MAX_STREAM is not a setting")
    assert line["level"] == "warning"
    assert line["message"].endswith("MAX_STREAMS is one")


def test_fleet_has_all_streams_and_its_partitions() -> None:
    """One stream alone cannot be shared."""
    assert settings.load({}).fleet is None
    fleet = settings.load({"FLEET": "radio", "FLEET_PARTITIONS": "128", "AUDIO_SUBJECT": "audio.*"}).fleet
    assert fleet is not None
    assert (fleet.name, fleet.partitions) == ("radio", 128)
    with pytest.raises(SettingError, match="as FLEET shares all streams"):
        settings.load({"FLEET": "radio", "AUDIO_SUBJECT": "audio.one"})


def test_group_hears_live_audio_alone() -> None:
    """It may be a fleet (P-40)."""
    group = {"AUDIO_SUBJECT": "audio.large.*"}
    assert settings.load(group).subject == "audio.large.*"
    assert settings.load(group | {"FLEET": "radio"}).fleet == FleetOptions("radio", group="large")
    with pytest.raises(SettingError, match="stores no audio of groups"):
        settings.load(group | {"AUDIO_SOURCE": "jetstream"})
