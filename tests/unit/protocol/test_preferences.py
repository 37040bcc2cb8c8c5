"""What a producer may ask for by headers, and what becomes of values that are not allowed (P-34)."""

from __future__ import annotations

import pytest
from headers import NAMES

from transcriber.domain.chunks import AudioFormat, Encoding, Preferences
from transcriber.protocol.incoming import ChunkReader, InputOptions, parse
from transcriber.protocol.preferences import LONGEST_PROMPT, preferences_of

OPTIONS = InputOptions(AudioFormat(Encoding.S16LE, 16_000, 1))


@pytest.mark.parametrize(
    ("header", "value", "field", "wanted"),
    [
        ("Audio-Notify", "speech", "speech", True),
        ("Audio-Prompt", "Kiel, Ulm", "prompt", "Kiel, Ulm"),
        ("Audio-Prompt", "", "prompt", ""),
        ("Audio-Task", "translate", "translate", True),
        ("Audio-Task", "transcribe", "translate", False),
        ("Audio-Timeout", "1", "timeout", 1.0),
        ("Audio-Timeout", "86400", "timeout", 86_400.0),
        ("Audio-Timeout", "2.5", "timeout", 2.5),
        ("Audio-Endpointing-Ms", "0", "pause", 0.0),
        ("Audio-Endpointing-Ms", "750", "pause", 0.75),
        ("Audio-Partials", "off", "partials", False),
        ("Audio-Partials", "on", "partials", True),
    ],
)
def test_preference_is_read_from_its_header(header: str, value: str, field: str, wanted: object) -> None:
    """The other ones are left to the daemon."""
    found = preferences_of({header: value})
    assert found == Preferences(**{field: wanted})


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ("Audio-Notify", "silence"),
        ("Audio-Task", "summarise"),
        *(("Audio-Timeout", value) for value in ("0", "0.9", "86401", "-5", "1e3", "nan", "", "five")),
        *(("Audio-Endpointing-Ms", value) for value in ("-1", "0.5", "1234567", "", "fast")),
        ("Audio-Partials", "no"),
    ],
)
def test_value_that_is_not_allowed_is_left_out_and_named(header: str, value: str) -> None:
    """With what is allowed. The other preferences hold."""
    found = preferences_of({header: value, "Audio-Prompt": "names"})
    assert found is not None
    assert found.prompt == "names"
    ((name, repeated, allowed),) = found.ignored
    assert (name, repeated) == (header, value)
    assert allowed


def test_long_values_are_cut() -> None:
    """The end of a prompt counts, as Whisper itself takes it. A bad value is repeated up to a length."""
    text = "".join(chr(ord("a") + n % 26) for n in range(2 * LONGEST_PROMPT))
    found = preferences_of({"Audio-Prompt": text, "Audio-Task": "x" * 10_000})
    assert found is not None
    assert found.prompt == text[-LONGEST_PROMPT:]
    assert len(found.ignored[0].value) < 200


def test_headers_without_preferences_cost_nothing() -> None:
    """No object is made for a chunk whose headers ask for none, whichever else it has."""
    others = {name: "1" for name in NAMES if preferences_of({name: "1"}) is None}
    assert len(others) == 9
    assert preferences_of(others) is None
    assert parse("audio.s", {"Audio-Offset": "1"}, b"\0\0", OPTIONS).preferences is None


def test_equal_headers_give_the_same_object() -> None:
    """So a session sees at once that nothing has changed. A prompt of full length is remembered, too."""
    reader = ChunkReader(OPTIONS)
    chunks = [
        reader.read(
            b"audio.s",
            b"NATS/1.0\r\nAudio-Session: "
            + b"s" * 128
            + b"\r\nAudio-Tenant: "
            + b"t" * 128
            + b"\r\naudio-prompt: "
            + b"p" * LONGEST_PROMPT
            + b"\r\nAudio-Offset: %d\r\n\r\n" % at,
            b"\0\0",
        )
        for at in range(2)
    ]
    assert [chunk.offset for chunk in chunks] == [0, 1]
    assert chunks[0].preferences is chunks[1].preferences
    assert chunks[0].preferences == Preferences(prompt="p" * LONGEST_PROMPT)


def test_later_preferences_go_over_earlier_ones() -> None:
    """What a chunk does not name stays."""
    first = Preferences(prompt="a", timeout=5.0)
    assert Preferences(prompt="", partials=False).over(first) == Preferences(prompt="", timeout=5.0, partials=False)
