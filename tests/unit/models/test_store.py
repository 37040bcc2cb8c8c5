"""Names, places and checksums of models, with the real bundled model."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from transcriber.domain.errors import ModelError
from transcriber.models import store
from transcriber.models.ggml import check_model_file
from transcriber.models.store import (
    MODELS,
    Published,
    bundled,
    bundled_model_path,
    listing,
    models_dir,
    resolve,
    verify,
)

if TYPE_CHECKING:
    pass

BODY = bundled_model_path().read_bytes()
PROBE = Published("probe", len(BODY), hashlib.sha256(BODY).hexdigest())
KNOWN = {"probe": PROBE}


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
def test_table_entry_is_well_formed(model):
    """Every entry has its own name, a plausible size and a whole checksum."""
    assert MODELS[model.name] is model
    assert re.fullmatch(r"[a-z0-9._-]+", model.name)
    assert re.fullmatch(r"[0-9a-f]{64}", model.sha256)
    assert 10_000_000 < model.size < 4_000_000_000
    assert [m.name for m in MODELS.values() if m.sha256 == model.sha256] == [model.name]


def test_bundled_model_has_the_checksum_of_the_table():
    """The shipped model is complete, has the table's checksum, and is found by name."""
    found = verify(bundled_model_path())
    assert (found.sha256, found.header) == (MODELS["dispatch-mini"].sha256, check_model_file(bundled_model_path()))
    assert len(BODY) == MODELS["dispatch-mini"].size
    assert resolve("dispatch-mini", Path("/nowhere")) == bundled_model_path()


@pytest.mark.parametrize("name", ["ggml-dispatch-mini.bin", "demo.flac", "demo.json", "talk.flac", "talk.json"])
def test_bundled_files_are_found_in_the_wheel_first(name, tmp_path, monkeypatch):
    """An installed package has the files inside itself. A working copy has them in models/."""
    assert bundled(name).is_file()
    package = tmp_path / "transcriber"
    (package / "bundled").mkdir(parents=True)
    monkeypatch.setattr(store, "__file__", str(package / "models" / "store.py"))
    assert bundled(name) == tmp_path / "models" / name
    (package / "bundled" / name).touch()
    assert bundled(name) == package / "bundled" / name


def test_pulled_models_live_in_the_users_cache(tmp_path, monkeypatch):
    """That is ~/.cache, or where XDG_CACHE_HOME says. By the XDG rules a relative path there does not count."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    usual = tmp_path / "home" / ".cache" / "transcriber" / "models"
    assert models_dir() == usual
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    assert models_dir() == tmp_path / "elsewhere" / "transcriber" / "models"
    for nowhere in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", nowhere)
        assert models_dir() == usual
    assert not list(tmp_path.iterdir())


def test_a_user_without_a_home_has_no_place_for_models(homeless):
    """Callers can tell, and no folder is called `~` by mistake."""
    with pytest.raises(RuntimeError, match="home"):
        models_dir()


def test_listing_tells_what_is_there(tmp_path):
    """A model counts as present when its file has the right size. A part does not count."""
    with (tmp_path / "ggml-tiny.en.bin").open("wb") as file:
        file.truncate(MODELS["tiny.en"].size)
    (tmp_path / "ggml-base.en.bin").write_bytes(b"part")
    lines = listing(tmp_path)
    assert [line.model.name for line in lines] == list(MODELS)
    assert {line.model.name for line in lines if line.present} == {"dispatch-mini", "tiny.en"}
    assert {line.path for line in lines} >= {bundled_model_path(), tmp_path / "ggml-base.en.bin"}


def test_resolve_takes_a_path_before_a_name(tmp_path, monkeypatch):
    """A file called like a model is that file. Otherwise the name means the pulled model."""
    pulled = tmp_path / "models" / "ggml-tiny.bin"
    pulled.parent.mkdir()
    pulled.touch()
    monkeypatch.chdir(tmp_path)
    assert resolve("tiny", pulled.parent) == pulled
    Path("tiny").touch()
    assert resolve("tiny", pulled.parent) == Path("tiny")
    assert resolve(str(pulled), Path("/nowhere")) == pulled


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ("base.en", "model {dir}/ggml-base.en.bin: no such file; get it with: transcriber models pull base.en"),
        ("./x", "model ./x: no such file"),
        ("x.bin", "model x.bin: no such file"),
        ("{dir}/pipe", "model {dir}/pipe: is not a file"),
        ("bsae", "model bsae: neither a file nor a known name; known are dispatch-mini, tiny, tiny-q5_1"),
    ],
)
def test_resolve_says_what_is_missing_and_how_to_get_it(tmp_path, asked, sentence):
    """The error has the full path, and the command or the names that help."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ModelError) as caught:
        resolve(asked.format(dir=tmp_path), tmp_path)
    assert str(caught.value).startswith(sentence.format(dir=tmp_path))


def test_verify_hashes_only_when_a_checksum_is_known(tmp_path, monkeypatch):
    """The user's own model under its own name is checked for completeness and not hashed."""
    own = shutil.copy(bundled_model_path(), tmp_path / "own.bin")
    monkeypatch.setattr(store, "digest", pytest.fail)
    assert verify(own).sha256 is None


def test_verify_holds_the_file_against_the_expected_checksum(tmp_path):
    """The given checksum decides, in upper or lower case. The error has both checksums."""
    own = Path(shutil.copy(bundled_model_path(), tmp_path / "ggml-tiny.en.bin"))
    assert verify(own, PROBE.sha256.upper()).sha256 == PROBE.sha256
    with pytest.raises(ModelError, match=f"its sha256 is {PROBE.sha256}, expected is {'0' * 64}$"):
        verify(own, "0" * 64)
    with pytest.raises(ModelError, match="the expected sha256 must be 64 hex digits, not 'beef'"):
        verify(own, "beef")


def test_verify_knows_official_files_by_name(tmp_path):
    """Another model under an official name is refused, although no checksum was given."""
    fake = shutil.copy(bundled_model_path(), tmp_path / "ggml-tiny.en.bin")
    published = f"published for tiny.en is {MODELS['tiny.en'].sha256}"
    with pytest.raises(ModelError, match=f"its sha256 is {PROBE.sha256}, {published}"):
        verify(fake)


def test_verify_looks_at_the_format_before_the_checksum(tmp_path):
    """A damaged file is called damaged, not merely different."""
    torn = tmp_path / "ggml-tiny.en.bin"
    torn.write_bytes(BODY[:1_000_000])
    with pytest.raises(ModelError, match="truncated: ends at byte 1000000"):
        verify(torn, PROBE.sha256)
