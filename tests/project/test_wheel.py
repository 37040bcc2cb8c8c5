"""The wheel holds the program and the bundled files, and nothing that only a checkout needs."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from places import ROOT


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The files of a wheel that is built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [Path(sys.executable).with_name("hatchling"), "build", "-t", "wheel", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_the_package_alone(names: set[str]) -> None:
    """No benchmarks, no tools, no tests."""
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"transcriber"}


def test_the_wheel_holds_every_module_and_what_it_reads(names: set[str]) -> None:
    """Modules, status page, schema, marker for type checkers, bundled model and recordings."""
    files = (p for p in ROOT.glob("transcriber/**/*") if p.is_file() and "__pycache__" not in p.parts)
    assert {p.relative_to(ROOT).as_posix() for p in files} <= names
    assert {"transcriber/bundled/ggml-dispatch-mini.bin", "transcriber/bundled/demo.flac"} <= names
