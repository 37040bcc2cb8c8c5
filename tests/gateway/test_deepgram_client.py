"""Deepgram's official client, unchanged, with recordings: words, order, times and channels."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator

import httpx
import numpy as np
import pytest
import soundfile
from deepgram import DeepgramClient
from deepgram.environment import DeepgramClientEnvironment
from deepgram.errors import BadRequestError
from harness import Speech, s16
from served import check_times, check_words

from transcriber.models import store

pytestmark = pytest.mark.filterwarnings("ignore:websockets:DeprecationWarning")  # which the client imports

DEMO = store.bundled("demo.flac").read_bytes()


@pytest.fixture
def client(address: str) -> Iterator[DeepgramClient]:
    socket = address.replace("http", "ws", 1)
    places = DeepgramClientEnvironment(base=address, production=socket, agent=socket, agent_rest=address)
    with httpx.Client(timeout=60) as connections:  # its own would stay open
        yield DeepgramClient(api_key="any", environment=places, httpx_client=connections)


def test_recording_comes_back_with_words_and_utterances(client: DeepgramClient, demo_speech: Speech) -> None:
    """With the times and confidences of each, and what it was that was heard."""
    answer = client.listen.v1.media.transcribe_file(request=DEMO, model="nova-3", utterances=True, smart_format=True)
    (channel,) = answer.results.channels
    (best,) = channel.alternatives
    assert best.transcript == demo_speech.words
    assert best.confidence > 0.8
    check_words([(word.word, word.start, word.end) for word in best.words], demo_speech)
    utterances = answer.results.utterances
    assert [utterance.transcript for utterance in utterances] == [row["words"] for row in demo_speech.rows]
    check_times([(utterance.start, utterance.end) for utterance in utterances], demo_speech)
    assert answer.metadata.sha256 == hashlib.sha256(DEMO).hexdigest()
    assert answer.metadata.duration == len(demo_speech.samples) / demo_speech.rate
    assert answer.metadata.channels == 1


def test_each_channel_has_a_text_of_its_own(client: DeepgramClient, demo_speech: Speech) -> None:
    """Two people on a call: the second speaks when the first is silent, and half a minute is two parts each."""
    first, second = demo_speech.samples, np.roll(demo_speech.samples, len(demo_speech.samples) // 2)
    file = io.BytesIO()
    soundfile.write(file, np.stack([first, second], axis=1), demo_speech.rate, format="FLAC")
    media = client.listen.v1.media
    answer = media.transcribe_file(request=file.getvalue(), model="nova-3", multichannel=True)
    left, right = (channel.alternatives[0] for channel in answer.results.channels)
    assert answer.metadata.channels == 2
    check_words([(word.word, word.start, word.end) for word in left.words], demo_speech)
    rows = [*demo_speech.rows[4:], *demo_speech.rows[:4]]  # the turn lies in the pause before the fifth
    assert right.transcript == " ".join(row["words"] for row in rows)


def test_pcm_without_a_head_is_heard_in_chunks(client: DeepgramClient, demo_speech: Speech) -> None:
    """As it comes from a recorder, without a length; its format is in the query."""
    speech = demo_speech.cut(2, 4)
    pcm = s16(speech.samples)
    answer = client.listen.v1.media.transcribe_file(
        request=(pcm[at : at + 10_000] for at in range(0, len(pcm), 10_000)),
        encoding="linear16",
        request_options={"additional_query_parameters": {"sample_rate": str(speech.rate)}},
    )
    (best,) = answer.results.channels[0].alternatives
    check_words([(word.word, word.start, word.end) for word in best.words], speech)


def test_address_in_place_of_audio_is_refused(client: DeepgramClient) -> None:
    """The gateway opens no connections for strangers."""
    with pytest.raises(BadRequestError) as caught:
        client.listen.v1.media.transcribe_url(url="http://127.0.0.1/secret.wav")
    assert caught.value.body["err_code"] == "INVALID_AUDIO_SOURCE"
