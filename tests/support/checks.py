"""Checks that hold for everything published: the schema and the account."""

from __future__ import annotations

import functools
import itertools
import json
from collections import Counter
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jsonschema


@functools.cache
def schema() -> jsonschema.Draft202012Validator:
    text = resources.files("transcriber.protocol").joinpath("schema.json").read_text()
    return jsonschema.Draft202012Validator(json.loads(text))


def check_account(ended: Mapping[str, Any]) -> None:
    """The invariant, in samples: received = transcribed + silent + gap + pending, and nothing is pending."""
    samples = {k: round(ended[k] * 16000) for k in ("received", "transcribed", "silent", "pending")}
    gaps = sum(round(seconds * 16000) for seconds in ended["gap"].values())
    assert samples["pending"] == 0
    assert samples["received"] == samples["transcribed"] + samples["silent"] + gaps


def check_tiles(heard: list[dict[str, Any]], ended: Mapping[str, Any]) -> None:
    """A session's finals and gaps agree with its account: disjoint, and sample for sample."""
    check_account(ended)
    name = (ended["stream"], ended["session"])
    mine = [b for b in heard if b["type"] in {"final", "gap"} and (b["stream"], b["session"]) == name]
    spans = sorted((round(b["start"] * 16000), round(b["end"] * 16000), b.get("reason", "final")) for b in mine)
    for (_, end, _), (start, _, _) in itertools.pairwise(spans):
        assert end <= start, f"overlap at sample {start} in {spans}"
    sums: Counter[str] = Counter()
    for start, end, kind in spans:
        sums[kind] += end - start
    assert sums.pop("final", 0) == round(ended["transcribed"] * 16000)
    assert sums == {reason: round(seconds * 16000) for reason, seconds in ended["gap"].items()}
