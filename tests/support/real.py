"""Official models and real speech, for the tests that want them: where they are, and a recording's words."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from transcriber.domain.errors import ModelError
from transcriber.models import store
from transcriber.models.catalogue import Format

SPEECH = os.environ.get("TRANSCRIBER_REAL_SPEECH")  # a folder with a manifest.json, as `benchmarks fidelity` takes it


@dataclass(frozen=True)
class Row:
    """One recording; `text` is None where nobody speaks."""

    path: Path
    kind: str
    text: str | None


def model(name: str, model_format: Format = Format.GGML) -> Path:
    """The official model, from where tests keep it; pulled if need be. Skips the test where that cannot be done."""
    folder = Path(os.environ.get("TRANSCRIBER_REAL_MODELS") or store.models_dir())
    try:
        pulled = store.pull(name, folder)
        return (pulled if model_format is Format.GGML else store.pull_folder(name, folder, pulled)).path
    except ModelError as error:
        pytest.skip(f"{name} cannot be had: {error}")


def rows() -> list[Row]:
    """Every recording of the folder. Skips the test without one."""
    if SPEECH is None:
        pytest.skip("TRANSCRIBER_REAL_SPEECH names no folder with speech")
    folder = Path(SPEECH)
    manifest = json.loads((folder / "manifest.json").read_text())
    return [Row(folder / row["file"], row["kind"], row["text"]) for row in manifest]
