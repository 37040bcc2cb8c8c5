"""Plain English: what strangers read has short sentences and none of the words that are hard to follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


def prose(*files: Path) -> tuple[int, list[str]]:
    """The exit code and the complaints of the linter; without files it reads those that pyproject.toml lists."""
    command = [sys.executable, ROOT / "tools" / "docs" / "prose.py", *files]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return tmp_path / "page.md"


def test_prose_for_strangers_is_plain_english() -> None:
    """README, docs, runbook and the folders that are done: the paths of `[tool.prose]`."""
    code, found = prose()
    assert (code, found) == (0, [])


LONG = "one two three four five six seven eight nine ten " * 2 + "one two three four five six."
GOOD = """\
# A page

{limit}

- Names count as one: `a`, `b`, `c` and `d`, and the rest of this line is as long as a sentence may be.
- e.g. this, i.e. 0.48 s of whisper.cpp. Who may read it? "Nobody."

| who | cells may be long |
|---|---|
| a | {long} |

```sh
{long}
```

Tree
├── {long}
└── anew

They are too far behind. They fall behind.
"""


def test_good_prose_passes(page: Path) -> None:
    """Sentences of 25 words, long cells, code, trees, questions, and words that only look like others."""
    page.write_text(GOOD.format(limit=LONG.replace(" six.", "."), long=LONG))
    assert prose(page) == (0, [])


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (LONG, "1: 26 words, at most 25: one two three four five six seven eight ..."),
        (f"Short. And short.\n{LONG.title()}", "2: 26 words, at most 25: One Two Three Four Five Six Seven Eight ..."),
        (f"- An item\n- {LONG}", "2: 26 words, at most 25: one two three four five six seven eight ..."),
        ("The one\nbehind it.", "1: not 'behind', but after: The one behind it. ..."),
        ("It runs beside it.", "1: not 'beside', but next to, or besides: It runs beside it. ..."),
        ("It begins anew.", "1: not 'anew', but again: It begins anew. ..."),
        ("| a |\n|-|\n| anew |", "3: not 'anew', but again: anew ..."),
        ("Whoever reads it.", "1: not 'Whoever', but anyone who: Whoever reads it. ..."),
        ("Who takes nothing is dropped.", "1: not 'Who', but a noun before who: Who takes nothing is dropped. ..."),
        ("One gets 503; who takes nothing is dropped.", "1: not '; who', but a noun before who: "),
    ],
)
def test_bad_prose_is_found(page: Path, text: str, complaint: str) -> None:
    """With its line and its first words: long sentences, and each of the words."""
    page.write_text(text + "\n")
    code, (found,) = prose(page)
    assert code == 1
    assert found.startswith(f"{page}:{complaint}")


def test_docstrings_and_comments_are_read(tmp_path: Path) -> None:
    """Of modules, classes, functions and attributes; comments over several lines are one, directives are none."""
    module = tmp_path / "module.py"
    module.write_text(f'''\
"""A module.

{LONG}
"""

code = "{LONG}"  # beside the code
# One two three four five six seven eight nine ten.
"""Behind an attribute."""


# one two three four five six seven eight nine ten one two three four
# five six seven eight nine ten one two three four five six.
def f() -> None:  # noqa: ANN001, D103 - anew
    """Whoever calls it."""
''')
    code, found = prose(tmp_path)
    places = [(int(line.split(":")[1]), line.split(":")[2]) for line in found]
    assert code == 1
    assert sorted(places) == [
        (3, " 26 words, at most 25"),
        (6, " not 'beside', but next to, or besides"),
        (8, " not 'Behind', but after"),
        (11, " 26 words, at most 25"),
        (13, " not 'anew', but again"),
        (14, " not 'Whoever', but anyone who"),
    ]
