"""The program's packages are locked, listed, linted and looked up by the commands of k8s/README.md."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
from manifests import K8S, ROOT
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT, GROUPS = PYPROJECT["project"], PYPROJECT["dependency-groups"]
SHIPPED, DEVELOPMENT = "requirements.lock", "requirements-dev.lock"


class Locked(NamedTuple):
    name: str
    version: str
    marker: str
    hashes: frozenset[str]


def locked(name):
    """The entries of a lock file."""
    text = re.sub(r"\\\n", " ", (ROOT / name).read_text())
    for line in text.splitlines():
        if line.strip() and not line.lstrip().startswith("#"):
            requirement = Requirement(line.partition("--hash")[0])
            (only,) = requirement.specifier
            assert only.operator == "==", line
            hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", line))
            yield Locked(canonicalize_name(requirement.name), only.version, str(requirement.marker or ""), hashes)


def group(name):
    """The requirements of a dependency group, with those of the groups that it includes (PEP 735)."""
    for entry in GROUPS[name]:
        yield from group(entry["include-group"]) if isinstance(entry, dict) else [entry]


def documented(program):
    """The command of k8s/README.md that runs `program`, in words."""
    lines = (K8S / "README.md").read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(f"{program} "))
    return shlex.split(line)


def run(words, folder=ROOT):
    """Run a command with the tools that were installed together with the one that runs the tests."""
    tools = Path(sys.executable).parent
    if not (tools / words[0]).exists():
        pytest.fail(f"{words[0]} is not installed: pip install --require-hashes -r {DEVELOPMENT}")
    environ = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run([tools / words[0], *words[1:]], cwd=folder, env=environ, check=False, capture_output=True)


# Locked


@pytest.mark.parametrize("name", [SHIPPED, DEVELOPMENT])
def test_every_package_is_locked_to_a_version_and_its_hashes(name):
    """No package can differ from the one that was locked."""
    entries = list(locked(name))
    assert len(entries) > 30
    assert not [entry.name for entry in entries if not entry.hashes]
    assert len({entry[:3] for entry in entries}) == len(entries)


def test_the_tests_run_what_is_shipped():
    """Each package of the image is in the lock for development too, in the same version with the same hashes.

    On the same platforms or, where a tool of development asks for more, on all of them.
    """
    tested = set(locked(DEVELOPMENT))
    assert [it for it in locked(SHIPPED) if it not in tested and it._replace(marker="") not in tested] == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (SHIPPED, PROJECT["dependencies"]),
        (SHIPPED, PROJECT["optional-dependencies"]["gateway"]),
        (DEVELOPMENT, [*PROJECT["dependencies"], *group("dev")]),
        (DEVELOPMENT, PROJECT["optional-dependencies"]["embedded"]),
    ],
    ids=["shipped", "gateway", "development", "embedded"],
)
def test_the_locks_hold_what_the_project_asks_for(name, wanted):
    """Every requirement of pyproject.toml is locked in a version that it allows. No lock was forgotten."""
    versions = {}
    for entry in locked(name):
        versions.setdefault(entry.name, set()).add(entry.version)
    for requirement in map(Requirement, wanted):
        found = versions[canonicalize_name(requirement.name)]
        assert all(requirement.specifier.contains(version) for version in found), str(requirement)


def test_the_commands_that_make_the_locks_say_where_they_go():
    """Both locks are made by a command of the README, for the same lowest Python that the project supports."""
    lines = [line for line in (K8S / "README.md").read_text().splitlines() if line.startswith("uv pip compile ")]
    assert [shlex.split(line)[-1] for line in lines] == [SHIPPED, DEVELOPMENT]
    for words in map(shlex.split, lines):
        assert PROJECT["requires-python"] == f">={words[words.index('--python-version') + 1]}"
        assert "--generate-hashes" in words


# Listed


def write_sbom(folder, *more):
    words = documented("cyclonedx-py")
    at = words.index("--output-file") + 1
    words[at] = str(folder / Path(words[at]).name)
    done = run([*words, *more])
    assert done.returncode == 0, done.stderr.decode()
    return Path(words[at]).read_bytes()


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """The list that the documented command writes. It checks its own work against CycloneDX's schema."""
    return write_sbom(tmp_path_factory.mktemp("sbom"))


def test_the_sbom_lists_every_locked_package_and_no_other(written):
    """The documented command gives a CycloneDX list of exactly what the image may hold, hashes included."""
    sbom = json.loads(written)
    assert sbom["bomFormat"] == "CycloneDX"
    found = set()
    for part in sbom["components"]:
        hashes = {it["content"] for source in part["externalReferences"] for it in source["hashes"]}
        assert part["purl"] == f"pkg:pypi/{canonicalize_name(part['name'])}@{part['version']}"
        found.add((canonicalize_name(part["name"]), part["version"], frozenset(hashes)))
    assert found == {(entry.name, entry.version, entry.hashes) for entry in locked(SHIPPED)}
    root = sbom["metadata"]["component"]
    assert (root["name"], root["version"], root["type"]) == (PROJECT["name"], PROJECT["version"], "application")


def test_the_sbom_is_the_same_each_time(written, tmp_path):
    """Two runs give the same bytes. A difference between two lists is one between two programs."""
    assert write_sbom(tmp_path, "--no-validate") == written


# Linted


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint has no wheel for Windows")
def test_the_dockerfile_has_nothing_that_hadolint_objects_to():
    """No rule is switched off."""
    done = run(documented("hadolint"))
    assert done.returncode == 0, done.stdout.decode()
    assert "hadolint ignore" not in (ROOT / "Dockerfile").read_text()
    assert not list(ROOT.glob(".hadolint*"))


@pytest.mark.skipif(sys.platform == "win32", reason="hadolint has no wheel for Windows")
def test_hadolint_finds_an_image_without_a_tag(tmp_path):
    """An image without a tag would be found."""
    text = (ROOT / "Dockerfile").read_text().replace("FROM ${PYTHON_IMAGE} AS build", "FROM python AS build")
    (tmp_path / "Dockerfile").write_text(text)
    done = run(documented("hadolint"), tmp_path)
    assert done.returncode != 0
    assert b"DL3006" in done.stdout


# Looked up


@pytest.mark.network
def test_no_shipped_package_has_a_known_vulnerability():
    """PyPI's advisories name no locked version. Skipped where they cannot be reached."""
    words = [word for word in documented("pip-audit") if word != "--strict"]  # to tell why a package was not found
    done = run([*words, "--format", "json", "--progress-spinner", "off"])
    if not done.stdout:
        pytest.skip(f"the advisories cannot be reached: {done.stderr.decode().strip().splitlines()[-1]}")
    packages = json.loads(done.stdout)["dependencies"]
    if all("skip_reason" in package for package in packages):
        pytest.skip(f"the advisories cannot be reached: {packages[0]['skip_reason']}")
    assert not [package for package in packages if package.get("vulns") or "skip_reason" in package]
