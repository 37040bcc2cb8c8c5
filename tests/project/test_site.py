"""The site of the docs: built strictly, loads nothing from elsewhere, and a broken link ends the build."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from places import ROOT


def build(project: Path, site: Path) -> subprocess.CompletedProcess[str]:
    """What `nox -s docs` runs, for a project in any folder."""
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", site]
    environ = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=project, env=environ, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = build(ROOT, folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that the site is made of, to be broken."""
    for path in ("docs", "k8s", "tools/docs", "transcriber/protocol"):
        shutil.copytree(ROOT / path, tmp_path / "project" / path)
    for path in ROOT.glob("*"):
        if path.is_file():
            shutil.copy(path, tmp_path / "project")
    return tmp_path / "project"


def test_every_page_is_in_the_site(site: Path) -> None:
    """Those of docs/, README.md as the first one, and those elsewhere that the navigation names."""
    pages = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert pages | {"index", "CONTRIBUTING", "SECURITY", "CHANGELOG", "404"} == {
        path.stem for path in site.glob("*.html")
    }
    assert {path.name for path in (site / "k8s").glob("*.html")} == {"index.html", "RUNBOOK.html"}
    assert "Run the tests" in (site / "index.html").read_text()


def test_the_site_loads_nothing_from_elsewhere(site: Path) -> None:
    """Scripts, styles, fonts and images are its own. Links may lead out."""
    for path in site.rglob("*.html"):
        loaded = re.findall(r"<(?:script|img|iframe|source)[^>]* src=\"?([^\s\">]+)", path.read_text())
        loaded += re.findall(r"<link[^>]* href=\"?([^\s\">]+)", path.read_text())
        assert loaded
        assert not [url for url in loaded if re.match(r"(https?:)?//", url)], path
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*[\"']?(https?:)?//", path.read_text()), path


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ("docs/settings.md", "operations.md#no-such-heading"),
        ("docs/settings.md", "../k8s/RUNBOOK.md#no-such-heading"),
        ("k8s/README.md", "../docs/no-such-page.md"),
        ("README.md", "docs/settings.md#no-such-heading"),
    ],
)
def test_a_broken_link_ends_the_build(copy: Path, tmp_path: Path, page: str, link: str) -> None:
    """A page or a heading that is not there, inside docs/ and outside, is named in the one warning."""
    with (copy / page).open("a") as file:
        file.write(f"\n[a link]({link})\n")
    done = build(copy, tmp_path / "site")
    (warning,) = re.findall(r"^WARNING - (.*)$", done.stderr, re.MULTILINE)
    assert done.returncode == 1
    assert link.rpartition("/")[2].partition("#")[2] in warning
