"""OpenAI's official client, unchanged, and curl: words, order and times through gateway, server and daemon."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai
import pytest
from audio_files import encoded
from cues import parse_srt, parse_vtt
from harness import Speech
from media_files import KINDS, media_file
from openai import OpenAI
from openai.types.audio import TranscriptionTextDeltaEvent, TranscriptionTextDoneEvent, TranscriptionVerbose
from served import check_times, check_words

from transcriber.models import store

DEMO = store.bundled("demo.flac")


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{address}/v1", api_key="any", max_retries=0) as made:
        yield made


def test_verbose_json_has_the_words_at_their_times(client: OpenAI, demo_speech: Speech) -> None:
    """The recording is longer than a request may be: its last sentence comes from the second part."""
    text = client.audio.transcriptions.create(
        model="whisper-1",
        file=DEMO,
        response_format="verbose_json",
        timestamp_granularities=["word", "segment"],
    )
    TranscriptionVerbose.model_validate(text.to_dict())  # what the client itself does not check: no field is missing
    assert text.text == demo_speech.words
    assert (text.language, text.duration) == ("english", len(demo_speech.samples) / demo_speech.rate)
    assert text.words is not None
    check_words([(word.word, word.start, word.end) for word in text.words], demo_speech)
    assert text.segments is not None
    assert [segment.text for segment in text.segments] == [row["words"] for row in demo_speech.rows]
    check_times([(segment.start, segment.end) for segment in text.segments], demo_speech)
    assert [segment.id for segment in text.segments] == list(range(8))
    assert all(-1 < segment.avg_logprob <= 0 and segment.tokens == [] for segment in text.segments)
    assert text.usage is not None
    assert text.usage.seconds == 31


def test_each_form_says_the_same(client: OpenAI, demo_speech: Speech) -> None:
    """JSON, text and subtitles, as the types that the client promises."""
    create = client.audio.transcriptions.create
    assert create(model="gpt-4o-transcribe", file=DEMO).text == demo_speech.words
    assert create(model="x", file=DEMO, response_format="text") == f"{demo_speech.words}\n"
    rows = [row["words"] for row in demo_speech.rows]
    for cues in (
        parse_srt(create(model="x", file=DEMO, response_format="srt")),
        parse_vtt(create(model="x", file=DEMO, response_format="vtt")),
    ):
        assert [text for _, _, text in cues] == rows
        check_times([(start, end) for start, end, _ in cues], demo_speech)


def test_granularities_choose_what_is_there(client: OpenAI) -> None:
    """Words alone, segments alone, and log probabilities in JSON."""
    create = client.audio.transcriptions.create
    only = create(model="x", file=DEMO, response_format="verbose_json", timestamp_granularities=["word"])
    assert only.segments is None
    assert only.words
    default = create(model="x", file=DEMO, response_format="verbose_json")
    assert default.words is None
    assert default.segments
    text = create(model="x", file=DEMO, response_format="json", include=["logprobs"])
    assert text.logprobs is not None
    assert [one.token for one in text.logprobs] == text.text.split()


def test_streamed_deltas_are_the_text(client: OpenAI, demo_speech: Speech) -> None:
    """One for each part, in order, and then the whole."""
    events = list(client.audio.transcriptions.create(model="x", file=DEMO, stream=True))
    deltas = [event.delta for event in events if isinstance(event, TranscriptionTextDeltaEvent)]
    assert len(deltas) == 2
    assert "".join(deltas) == demo_speech.words
    assert isinstance(events[-1], TranscriptionTextDoneEvent)
    assert events[-1].text == demo_speech.words


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # of whisper-1, which this path is made for
def test_translation_by_a_model_that_cannot_is_refused(client: OpenAI) -> None:
    """The bundled model knows English alone."""
    with pytest.raises(openai.BadRequestError, match="translate"):
        client.audio.translations.create(model="x", file=DEMO)


def test_mistake_is_the_error_that_the_client_knows(client: OpenAI) -> None:
    """With the status, the field and the code."""
    create = client.audio.transcriptions.create
    with pytest.raises(openai.BadRequestError) as caught:
        create(model="x", file=DEMO, response_format="diarized_json")
    assert (caught.value.param, caught.value.code) == ("response_format", "unsupported_value")
    with pytest.raises(openai.BadRequestError) as caught:
        create(model="x", file=DEMO, language="klingon")
    assert (caught.value.param, caught.value.code) == ("language", "unsupported_language")
    with pytest.raises(openai.BadRequestError, match="the file is text; allowed"):
        create(model="x", file=Path(__file__))
    with pytest.raises(openai.NotFoundError, match="no model 'large-v9'"):
        client.models.retrieve("large-v9")


def test_models_are_listed(client: OpenAI) -> None:
    """Those that existing clients ask for are among them."""
    listed = [model.id for model in client.models.list()]
    assert "whisper-1" in listed
    assert client.models.retrieve("whisper-1").id == "whisper-1"


def test_many_at_once_are_not_mixed_up(client: OpenAI, demo_speech: Speech) -> None:
    """Eight sentences at the same time, each in another kind of file, which its name need not tell."""

    def ask(row: int) -> str:
        speech = demo_speech.cut(row, row + 1)
        kind = ("WAV", "FLAC", "OGG", "MP3", *KINDS)[row]
        data = media_file(speech, kind) if kind in KINDS else encoded(speech.samples, speech.rate, None, kind)
        return client.audio.transcriptions.create(model="x", file=("talk.mp3", data)).text

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(8))) == [row["words"] for row in demo_speech.rows]


def test_curl_may_send_the_file_first(address: str, demo_speech: Speech) -> None:
    """The options are known only after the recording."""
    command = ["curl", "-sS", "-F", f"file=@{DEMO}", "-F", "model=x", "-F", "response_format=verbose_json"]
    done = subprocess.run([*command, f"{address}/v1/audio/transcriptions"], capture_output=True, check=True)
    body = json.loads(done.stdout)
    assert (body["text"], body["task"]) == (demo_speech.words, "transcribe")
