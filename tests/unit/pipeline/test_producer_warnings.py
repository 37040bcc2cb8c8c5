"""Warnings about a producer's mistakes, each logged once."""

from __future__ import annotations

import logging

import pytest

from transcriber.domain import languages
from transcriber.domain.timeline import Origin
from transcriber.pipeline.producer_warnings import ProducerWarnings


def test_an_unknown_language_is_told_once_a_stream(caplog: pytest.LogCaptureFixture) -> None:
    """Header, value and what is allowed; then nothing more, whatever the stream sends."""
    warnings = ProducerWarnings()
    for stream, value in (("a", "klingon"), ("a", "klingon"), ("b", "klingon"), ("a", "elvish")):
        warnings.unknown_language(stream, value)
    told = [(r.stream, r.header, r.value, r.allowed) for r in caplog.records]  # type: ignore[attr-defined]
    assert told == [(stream, "Audio-Language", "klingon", languages.ALLOWED) for stream in ("a", "b")]
    assert {r.levelno for r in caplog.records} == {logging.WARNING}


def test_unknown_header_is_logged_once_with_the_likely_one(caplog: pytest.LogCaptureFixture) -> None:
    """Also where its language was told before."""
    warnings = ProducerWarnings()
    warnings.unknown_language("a", "klingon")
    for stream, name, meant in (("a", "Audio-Sesion", "Audio-Session"), ("a", "Audio-X", None), ("b", "Audio-X", None)):
        warnings.unknown_header(stream, name, meant)
    told = [(r.stream, r.header, r.meant) for r in caplog.records[1:]]  # type: ignore[attr-defined]
    assert told == [("a", "Audio-Sesion", "Audio-Session"), ("b", "Audio-X", "none that we know")]


def test_sessions_are_told_in_order_and_taken_out(caplog: pytest.LogCaptureFixture) -> None:
    """A caller that hands the list over again finds it empty."""
    sessions = [Origin("a", "one"), Origin("a", "two")]
    for _ in range(2):
        ProducerWarnings().unmixed(sessions)
    assert [(r.stream, r.session) for r in caplog.records] == [("a", "one"), ("a", "two")]  # type: ignore[attr-defined]
