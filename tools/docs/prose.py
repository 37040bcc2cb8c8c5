"""Reports sentences that are too long, and words that are not used here: `python tools/docs/prose.py [FILE ...]`.

Without arguments it reads `[tool.prose]` in pyproject.toml: `paths` are Markdown files, Python files and folders of
both, and `max-words` is the limit. In Python it reads docstrings and comments. A run of code spans counts as one word;
code blocks and drawings do not count, and cells of tables may be long. The exit code is 1 when anything is reported.

Vale fetches its program when it first runs, and proselint has no limit on sentences. So neither could do this here.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import io
import re
import sys
import tokenize
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from markdown_it import MarkdownIt

if TYPE_CHECKING:
    from markdown_it.token import Token

ROOT = Path(__file__).parents[2]

_CODE = "\N{OBJECT REPLACEMENT CHARACTER}"
_RUN_OF_CODE = re.compile(f"{_CODE}(?:(?:,|/|,? and|,? or)?\\s*{_CODE})+")
_END = re.compile(rf"(?<!\be\.g)(?<!\bi\.e)[.!?][\"')\]]*(?=\s+[\"'(\[]*[A-Z0-9{_CODE}])")
_DRAWING = re.compile("[\u2500-\u257f]")  # a tree or a picture of lines
_DIRECTIVE = re.compile(r"(?:noqa|type: ignore|pragma|fmt:|ruff:|!)[^-\n]*(?:- )?")

# What not to write, and what reads better.
BANNED = (
    (re.compile(r"(?<!far )(?<!further )(?<!fall )(?<!falls )(?<!lags )(?<!left )\bbehind\b", re.IGNORECASE), "after"),
    (re.compile(r"\bbeside\b", re.IGNORECASE), "next to, or besides"),
    (re.compile(r"\banew\b", re.IGNORECASE), "again"),
    (re.compile(r"\bwho(?:m|so)?ever\b", re.IGNORECASE), "anyone who"),
    (re.compile(r"^who (?=[^?]*$)", re.IGNORECASE), "a noun before who"),
    (re.compile(r"(?:[;:]|\b(?:of|for|from|than|to|with)) who\b(?=[^?]*$)"), "a noun before who"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A paragraph, a heading or a cell, with its first line's number. Lines of `text` are lines of the file."""

    line: int
    text: str
    is_cell: bool = False

    def sentences(self) -> Iterator[tuple[int, str]]:
        """Each sentence and the line on which it begins."""
        begin = 0
        for end in [*(match.end() for match in _END.finditer(self.text)), len(self.text)]:
            sentence = self.text[begin:end]
            blank = len(sentence) - len(sentence.lstrip())
            yield self.line + self.text.count("\n", 0, begin + blank), sentence.strip()
            begin = end


def of_markdown(text: str, first: int = 1) -> Iterator[Block]:
    """Split a Markdown text into blocks; its first line is number `first`."""
    is_cell = False
    for token in MarkdownIt("commonmark").enable("table").parse(text):
        if token.type == "inline" and token.map and not _DRAWING.search(token.content):
            yield Block(first + token.map[0], _plain(token.children or []), is_cell)
        is_cell = token.type in {"th_open", "td_open"}


def _plain(children: list[Token]) -> str:
    """The words of a block, with a placeholder for each code span."""
    parts = {"code_inline": _CODE, "softbreak": "\n", "hardbreak": "\n"}
    return "".join(parts.get(child.type, child.content) for child in children)


def of_python(text: str) -> Iterator[Block]:
    """Split the docstrings and comments of a Python file into blocks."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield from of_markdown(inspect.cleandoc(node.value.value), node.lineno)
    for line, comment in _comments(text):
        yield from of_markdown(comment, line)


def _comments(text: str) -> Iterator[tuple[int, str]]:
    """Comments with their first lines' numbers. Those that stand alone on successive lines are one."""
    block: list[str] = []
    begin = (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, column = token.start
        alone = not token.line[:column].strip()
        if block and (not alone or (line - len(block), column) != begin):
            yield begin[0], "\n".join(block)
            block = []
        begin = begin if block else token.start
        block.append(_DIRECTIVE.sub("", token.string[1:].strip(), count=1))
    if block:
        yield begin[0], "\n".join(block)


def complaints(block: Block, most: int) -> Iterator[str]:
    """What is wrong in a block, one line for each."""
    for line, sentence in block.sentences():
        words = [
            word
            for word in _RUN_OF_CODE.sub(_CODE, sentence).split()
            if word == _CODE or re.search(r"\w|" + _CODE, word)
        ]
        begin = " ".join(sentence.replace(_CODE, "`...`").split()[:8])
        if len(words) > most and not block.is_cell:
            yield f"{line}: {len(words)} words, at most {most}: {begin} ..."
        for pattern, instead in BANNED:
            for match in pattern.finditer(sentence):
                yield f"{line}: not {match[0].strip()!r}, but {instead}: {begin} ..."


def files(paths: list[str]) -> Iterator[Path]:
    """The Markdown and Python files that are named, or are in folders that are."""
    for name in paths:
        path = ROOT / name
        yield from sorted(p for p in path.rglob("*") if p.suffix in {".md", ".py"}) if path.is_dir() else [path]


def main() -> int:
    """Read the files, print what is wrong in them; 1 if there was anything."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["prose"]
    parser = argparse.ArgumentParser(
        description="Report sentences that are too long, and words that are not used here."
    )
    parser.add_argument("files", nargs="*", default=settings["paths"], help="Markdown, Python, or folders [tool.prose]")
    found = [
        f"{path.relative_to(ROOT) if path.is_relative_to(ROOT) else path}:{complaint}"
        for path in files(parser.parse_args().files)
        for block in (of_python if path.suffix == ".py" else of_markdown)(path.read_text())
        for complaint in complaints(block, settings["max-words"])
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
