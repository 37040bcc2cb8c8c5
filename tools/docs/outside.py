"""A hook of mkdocs: takes pages outside docs/ into the site, and makes every link fit the place that a page has there.

README.md becomes the first page. From it, links are followed: each file that a page names joins the site. A Markdown
file becomes a page, and any other stays as it is. So a link has one form, the one that works on the code host.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

_FIRST = "README.md"
_LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)#\s]+)")


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the files outside docs/ that can be reached by links from README.md, and no others."""
    root = Path(config.config_file_path).parent
    seen = {_FIRST}
    todo = [_FIRST]
    while todo:
        path = todo.pop()
        if files.get_file_from_path(_in_site(path)) is None:
            files.append(File.generated(config, _in_site(path), abs_src_path=str(root / path)))
        if path.endswith(".md"):
            linked = {_target(path, link) for link in _LINK.findall((root / path).read_text())}
            found = {link for link in linked - seen if (root / link).is_file()}
            seen |= found
            todo += sorted(found)
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point the page's links to where their targets are in the site. A target that is not there is left to mkdocs."""
    del config
    here = page.file.src_uri
    path = _in_repository(here, files)

    def moved(link: re.Match[str]) -> str:
        target = _in_site(_target(path, link[0]))
        return (
            posixpath.relpath(target, posixpath.dirname(here) or ".") if files.get_file_from_path(target) else link[0]
        )

    return _LINK.sub(moved, markdown)


def _target(page: str, link: str) -> str:
    """The file that a link on `page` names; both count from the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _in_site(path: str) -> str:
    return "index.md" if path == _FIRST else path.removeprefix("docs/")


def _in_repository(uri: str, files: Files) -> str:
    if uri == "index.md":
        return _FIRST
    file = files.get_file_from_path(uri)
    return uri if file is not None and file.generated_by else f"docs/{uri}"
