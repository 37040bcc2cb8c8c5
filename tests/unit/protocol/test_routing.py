"""A model's name makes the subject of its requests (P-39)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.errors import Rejection
from transcriber.protocol.routing import model_subject, request_name


@pytest.mark.parametrize(
    ("model", "subject"),
    [
        ("ggml-base.en", "transcribe.base-en"),
        ("ct2-base.en", "transcribe.base-en"),
        ("base.en", "transcribe.base-en"),
        ("ggml-large-v3-turbo-q5_0", "transcribe.large-v3-turbo-q5_0"),
        ("My Model (2)", "transcribe.my-model--2-"),
        ("ggml-", None),
        ("...", None),
    ],
)
def test_both_formats_of_a_model_have_one_subject(model: str, subject: str | None) -> None:
    """Also its plain name, as people write it."""
    assert model_subject(model) == subject


@given(st.text(max_size=200))
def test_subject_is_one_whatever_the_model_is_called(model: str) -> None:
    """It has two tokens and no wildcard, so a name can be added."""
    subject = model_subject(model)
    assert subject is None or re.fullmatch(r"transcribe\.[a-z0-9_-]{1,64}", subject)


def test_name_of_a_request_is_the_last_token() -> None:
    """With a model in the subject or without."""
    assert request_name("transcribe.call") == request_name("transcribe.base-en.call") == "call"
    with pytest.raises(Rejection):
        request_name("transcribe.base-en.a b")
