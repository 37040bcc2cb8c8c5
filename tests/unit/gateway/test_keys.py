"""Keys: their file, their limits, and tokens that stand for them."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transcriber.domain.errors import SettingError
from transcriber.gateway.keys import Key, Keys, Limits, digest_of, line_of, make, read
from transcriber.gateway.limits import Bucket
from transcriber.gateway.problems import Problem
from transcriber.gateway.tokens import Tokens


def test_file_gives_tenant_and_limits_of_each_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text(
        f"\n# ours\n{line_of('a', 'acme')} streams=3 requests=60 audio=1.5 # three\n{line_of('b', 'b-1')}\n"
    )
    assert read(path) == {digest_of("a"): ("acme", Limits(3, 60, 1.5)), digest_of("b"): ("b-1", Limits())}
    keys = Keys(path)
    assert keys.find("a").tenant == "acme"
    assert keys.find("c") is keys.find(None) is None


@pytest.mark.parametrize(
    "line",
    [
        "secret acme",
        "0" * 64,
        f"{'0' * 64} two words",
        f"{'0' * 64} acme streams",
        f"{'0' * 64} acme streams=0",
        f"{'0' * 64} acme streams=nan",
        f"{'0' * 64} acme lines=3",
        f"{'A' * 64} acme",
        f"{'0' * 64} {'x' * 33}",
    ],
)
def test_bad_line_is_refused_with_its_number(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# keys\n{line}\n")
    with pytest.raises(SettingError) as refused:
        read(path)
    assert refused.value.value == f"{path}:2"
    assert "--make-key" in refused.value.allowed


def test_keys_keep_what_they_used_when_the_file_is_read_again(tmp_path: Path) -> None:
    """A key that is gone is revoked; a new one is there; one with other limits is still itself."""
    path = tmp_path / "keys"
    path.write_text(f"{line_of('a', 'acme')} streams=1\n{line_of('b', 'b')}\n")
    keys = Keys(path)
    a, b = keys.find("a"), keys.find("b")
    a.open = 1
    path.write_text(f"{line_of('a', 'acme')} streams=2\n{line_of('c', 'c')}\n")
    assert keys.reload() == [b]
    assert b.revoked
    assert keys.find("a") is a
    a.check_place()
    assert keys.find("b") is None
    path.write_text("junk\n")
    with pytest.raises(SettingError):
        keys.reload()
    assert keys.find("c").tenant == "c"


def test_everybody_is_one_caller_without_a_file() -> None:
    keys = Keys(None)
    assert keys.find(None) is keys.find("any") is keys.by_digest("") is keys.anyone


def test_made_keys_are_long_and_never_the_same() -> None:
    assert len({make("acme") for _ in range(10)}) == 10
    assert len(make("acme")[0]) > 40


def test_requests_above_the_limit_are_told_when_to_come_back() -> None:
    key = Key("acme", Limits(requests=2))
    key.request()
    key.request()
    with pytest.raises(Problem) as refused:
        key.request()
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "30")


def test_recordings_above_the_allowance_wait_for_it() -> None:
    """One may go into debt, so that a long recording is not refused for ever."""
    key = Key("acme", Limits(audio=1.0))
    key.charge(100.0)
    assert not key.may_send
    with pytest.raises(Problem) as refused:
        key.charge(1.0)
    assert refused.value.headers["Retry-After"] in {"41", "42"}


@given(
    rate=st.floats(0.1, 100),
    size=st.floats(0.1, 100),
    steps=st.lists(st.tuples(st.floats(0, 10), st.floats(0, 10)), max_size=50),
)
def test_bucket_gives_no_more_than_its_size_and_its_rate(
    rate: float, size: float, steps: list[tuple[float, float]]
) -> None:
    """Whatever is asked and when, if nobody takes more than there is."""
    bucket, now, taken = Bucket(rate, size), 0.0, 0.0
    for pause, amount in steps:
        now += pause
        if bucket.wait(amount, now) == 0 and amount <= size:
            bucket.take(amount, now)
            taken += amount
        assert taken <= size + rate * now + 1e-6
        later = now + bucket.wait(amount, now)
        assert bucket.left(now) + (later - now) * rate >= min(amount, size) - 1e-6


def test_endless_bucket_never_runs_out() -> None:
    bucket = Bucket(math.inf, math.inf)
    bucket.take(1e12, 0.0)
    assert bucket.wait(1e12, 0.0) == 0


def test_token_stands_for_its_key_until_it_expires() -> None:
    tokens = Tokens(b"secret")
    token = tokens.make("digest", 1000.0)
    assert tokens.digest_of(token, 999.0) == "digest"
    assert tokens.digest_of(token, 1000.0) is None
    assert Tokens(b"other").digest_of(token, 0.0) is None


@given(st.text(max_size=80))
def test_text_that_is_no_token_stands_for_nothing(text: str) -> None:
    assert Tokens(b"secret").digest_of(f"ek_{text}", 0.0) is None


TOKEN = Tokens(b"secret").make("digest", 1000.0)


@given(place=st.integers(3, len(TOKEN) - 2), letter=st.sampled_from("aZ0-_."))
def test_changed_token_stands_for_nothing(place: int, letter: str) -> None:
    """Its last character is left alone: some of its bits say nothing."""
    changed = TOKEN[:place] + letter + TOKEN[place + 1 :]
    assert Tokens(b"secret").digest_of(changed, 0.0) == ("digest" if changed == TOKEN else None)
