"""The gateway's settings: what is read, what is refused, and that the docs name all of them."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT

from transcriber import settings as daemon
from transcriber.domain.errors import SettingError
from transcriber.gateway.options import GatewayOptions
from transcriber.settings import gateway as settings

BAD = [
    ("GATEWAY_HOST", "two hosts", "a host name"),
    ("GATEWAY_PORT", "65536", "0 to 65535"),
    ("GATEWAY_AUTH", "maybe", "keys or none"),
    ("GATEWAY_MAX_CONNECTIONS", "0", "1 to 1000000"),
    ("GATEWAY_MAX_UPLOAD_BYTES", "-1", "1 to"),
    ("GATEWAY_UPLOADS_BYTES", "1000000", "1073741824 to"),
    ("GATEWAY_MAX_AUDIO_SECS", "0", "1 to"),
    ("GATEWAY_PATIENCE_SECS", "0", "0.1 to 3600"),
    ("GATEWAY_WYOMING_HOST", "a b", "a host name"),
    ("GATEWAY_WYOMING_PORT", "-2", "0 to 65535"),
    ("GATEWAY_TLS_CERT", "cert.pem", "GATEWAY_TLS_KEY"),
    ("GATEWAY_TLS_KEY", "key.pem", "GATEWAY_TLS_CERT"),
    ("SHUTDOWN_GRACE_SECS", "-1", "0 to"),
    ("NATS_URL", "http://host:4222", "nats://"),
]


@pytest.mark.parametrize(("name", "value", "allowed"), BAD)
def test_bad_value_is_refused_by_name_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingError) as error:
        settings.load({name: value})
    assert (error.value.name, error.value.value) == (name, value)
    assert allowed in error.value.allowed


@given(environ=st.dictionaries(st.sampled_from(sorted(settings.names())), st.text()))
def test_any_environment_gives_options_or_a_setting_error(environ: dict[str, str]) -> None:
    with contextlib.suppress(SettingError):
        assert settings.load(environ).max_connections > 0


def test_defaults_are_those_of_the_options() -> None:
    assert settings.load({}) == settings.load(dict.fromkeys(settings.names(), ""))
    plain, options = settings.load({}), GatewayOptions()
    assert (plain.host, plain.port, plain.max_connections) == ("127.0.0.1", 8081, 10_000)
    assert (plain.wyoming_port, plain.keys, plain.open) == (None, None, False)
    assert (plain.max_upload, plain.max_audio) == (options.max_upload, options.max_audio)
    assert plain.uploads == options.uploads
    large = settings.load({"GATEWAY_MAX_UPLOAD_BYTES": str(10**11)})
    assert large.uploads == large.max_upload  # there is room for one at least


def test_each_variable_reaches_the_options() -> None:
    given = settings.load(
        {
            "GATEWAY_HOST": "0.0.0.0",
            "GATEWAY_PORT": "0",
            "GATEWAY_KEYS": "/etc/keys",
            "GATEWAY_AUTH": "NONE",
            "GATEWAY_ORIGINS": "https://A.example/, https://b.example",
            "GATEWAY_WYOMING_PORT": "10300",
            "NATS_URL": "tls://a:4222",
            "LOG_LEVEL": "debug",
        }
    )
    assert (given.host, given.port, given.keys, given.open) == ("0.0.0.0", 0, Path("/etc/keys"), True)
    assert given.origins == {"https://a.example", "https://b.example"}
    assert (given.wyoming_port, given.broker.servers, given.log_level) == (10300, ["tls://a:4222"], "DEBUG")


def test_page_on_settings_has_every_variable() -> None:
    """And no other that begins like one of the gateway's."""
    page = (ROOT / "docs/settings.md").read_text()
    ours = {name for name in settings.names() if name.startswith("GATEWAY_")}
    assert set(re.findall(r"`(GATEWAY_[A-Z_]+)`", page)) == ours


def test_gateways_settings_are_no_misspelt_ones_of_the_daemon() -> None:
    """Both may run with the same environment."""
    assert daemon.misspelt(dict.fromkeys(settings.names(), "x")) == {}
    meant = {"GATEWAY_CONNECTIONS": "GATEWAY_MAX_CONNECTIONS"}
    assert daemon.misspelt(dict.fromkeys(meant, "x"), settings.names()) == meant
