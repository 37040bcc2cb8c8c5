"""The whole code keeps its style, types, import contracts, spelling, sizes and names of tests."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from places import ROOT

BIN = Path(sys.executable).parent


def sources() -> Iterator[Path]:
    """Every module of the package, the benchmarks and the tools."""
    for folder in ("transcriber", "benchmarks", "tools"):
        yield from ROOT.glob(f"{folder}/**/*.py")


@pytest.mark.parametrize(
    "command",
    [
        ("ruff", "check", "."),
        ("ruff", "format", "--check", "."),
        ("mypy",),
        ("lint-imports", "--no-logo"),
        ("codespell",),
    ],
    ids=" ".join,
)
def test_the_tools_find_nothing(command: tuple[str, ...]) -> None:
    """Linter, formatter, strict type checker, import contracts and spelling find no fault."""
    done = subprocess.run([BIN / command[0], *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_stay_small() -> None:
    """A file over 300 lines should be two."""
    long = {str(p.relative_to(ROOT)): n for p in sources() if (n := len(p.read_text().splitlines())) > 300}
    assert long == {}


def test_functions_stay_small() -> None:
    """A function over 40 lines, its docstring included, does more than one thing."""
    long = {
        f"{path.relative_to(ROOT)}:{node.name}": length
        for path in sources()
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (length := (node.end_lineno or 0) - node.lineno + 1) > 40
    }
    assert long == {}


def test_names_of_tests_are_short_and_say_their_subject() -> None:
    """At most 60 characters, and no "who" or "what" in place of a subject."""
    tests = [
        (path, node.name)
        for path in ROOT.glob("tests/**/*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert tests
    bad = [
        f"{path.relative_to(ROOT)}: {name}"
        for path, name in tests
        if len(name) > 60 or name.startswith(("test_who_", "test_whoever_", "test_what_"))
    ]
    assert bad == []
