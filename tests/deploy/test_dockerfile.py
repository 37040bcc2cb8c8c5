"""The Dockerfile, checked as text. Its build stage is carried out for real, without a container engine."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from places import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
FOLDERS = ("base", "gateway/base")  # of the daemon and of the gateway

# Shared libraries that a Debian image always has: of glibc, and what dpkg and apt themselves are linked to.
SLIM_LIBRARIES = re.compile(r"(ld-linux.*|lib(c|m|mvec|pthread|dl|rt|util|gcc_s|stdc\+\+|z))\.so\.\d+")


class Instruction(NamedTuple):
    word: str
    text: str

    @property
    def flags(self):
        return dict(re.findall(r"--([\w-]+)=(\S+)", self.text)) if self.word == "COPY" else {}

    @property
    def words(self):
        return [word for word in self.text.split() if not word.startswith("--")]


def read(text):
    """The instructions of a Dockerfile, with continued lines joined and comments left out."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [Instruction(*line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def stages():
    found = [[]]
    for instruction in read((ROOT / "Dockerfile").read_text()):
        if instruction.word == "FROM":
            found.append([])
        found[-1].append(instruction)
    return found


@pytest.fixture
def build():
    return stages()[1]


@pytest.fixture
def last():
    return stages()[-1]


def only(stage, word):
    (instruction,) = (it for it in stage if it.word == word)
    return instruction.text


def environment(stage):
    return dict(pair.split("=", 1) for it in stage if it.word == "ENV" for pair in it.text.split())


def in_context(path):
    """Whether .dockerignore lets `path` (relative, with slashes) through, by Docker's rule that the last match wins."""
    inside = True
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        if line and not line.startswith("#"):
            pattern = re.escape(line.removeprefix("!").strip("/"))
            for glob, regex in ((r"\*\*/", "(.*/)?"), (r"\*", "[^/]*"), (r"\[", "["), (r"\]", "]")):
                pattern = pattern.replace(glob, regex)
            if re.fullmatch(f"{pattern}(/.*)?", path):
                inside = line.startswith("!")
    return inside


def context():
    """The files of the working tree that would be sent to the builder."""
    for folder, below, files in os.walk(ROOT):
        below[:] = [name for name in below if name not in {".git", ".venv"}]
        names = (Path(folder, name).relative_to(ROOT).as_posix() for name in files)
        yield from (name for name in names if in_context(name))


def copied(stage):
    return [source for it in stage if it.word == "COPY" and "from" not in it.flags for source in it.words[:-1]]


# The image


def test_the_last_stage_only_receives_what_the_first_built(build, last):
    """The image starts afresh from the slim base, runs no command and copies the virtual environment alone.

    So it holds no compiler, no package lists, no cache and no source tree.
    """
    assert len(stages()) == 3  # what stands before the first FROM, and two stages
    assert [it.text for it in (build[0], last[0])] == ["${PYTHON_IMAGE} AS build", "${PYTHON_IMAGE}"]
    assert not {"RUN", "ADD", "VOLUME", "ONBUILD"} & {it.word for it in last}
    (copy,) = (it for it in last if it.word == "COPY")
    assert copy.flags == {"from": "build"}
    assert copy.words == ["/opt/transcriber", "/opt/transcriber"]


def test_the_base_image_is_slim_tagged_and_new_enough():
    """The base is a slim image of a Python that the project supports, with a tag and never `latest`."""
    name, _, tag = only(stages()[0], "ARG").removeprefix("PYTHON_IMAGE=").partition(":")
    assert name == "python"
    version, _, variant = tag.partition("-")
    assert variant.startswith("slim")
    assert version in SpecifierSet(PROJECT["project"]["requires-python"])


def test_build_stage_has_no_compiler(build):
    """It installs no system package. It takes wheels only, but for packages of pure Python."""
    text = "\n".join(it.text for it in build)
    assert not re.search(r"\b(apt|apt-get|gcc|g\+\+|clang|cmake|build-essential|curl|wget)\b", text)
    assert "--only-binary :all:" in text
    assert re.findall(r"--no-binary (\S+)", text) == ["nkeys"]


def test_dependencies_are_hash_locked_and_the_project_adds_none(build):
    """Every package from an index has its hash in the lock file. The project comes from its own wheel."""
    installs = [part for it in build for part in it.text.split("&&") if it.word == "RUN" and " install " in part]
    locked, project = installs
    assert "--require-hashes" in locked
    assert "-r requirements.lock" in locked
    assert "--no-deps" in project
    assert "--no-index" in project


def test_pip_leaves_no_cache_and_stays_out_of_the_environment(build):
    """Every pip runs without a cache, and the environment that is copied on has no pip."""
    pips = [part for it in build if it.word == "RUN" for part in it.text.split("&&") if re.match(r"\s*pip ", part)]
    assert len(pips) == 3
    assert all("--no-cache-dir" in part for part in pips)
    assert "python -m venv --without-pip /opt/transcriber" in [it.text for it in build if it.word == "RUN"]


def test_user_is_the_numeric_one_that_kubernetes_expects(last):
    """The process is provably not root, and runs as the user that the manifests name."""
    user, group = only(last, "USER").split(":")
    manifest = yaml.safe_load((ROOT / "k8s/base/deployment.yaml").read_text())
    security = manifest["spec"]["template"]["spec"]["containers"][0]["securityContext"]
    assert (int(user), int(group)) == (security["runAsUser"], security["runAsGroup"])
    assert int(user) >= 10000  # above every account of a host


def test_the_daemon_is_process_one_and_gets_the_signals(last):
    """Exec form, so that SIGTERM reaches the daemon and not a shell; the command is one that the project installs."""
    assert json.loads(only(last, "ENTRYPOINT")) == ["transcriber"]
    assert json.loads(only(last, "CMD")) == ["run"]
    assert only(last, "STOPSIGNAL") == "SIGTERM"
    assert "transcriber" in PROJECT["project"]["scripts"]
    assert environment(last)["PATH"].startswith("/opt/transcriber/bin:")


def test_image_works_with_a_read_only_root(last):
    """Python writes no bytecode and the home directory is the scratch volume of the manifests."""
    assert environment(last)["PYTHONDONTWRITEBYTECODE"] == "1"
    assert environment(last)["HOME"] == "/tmp"


def test_the_exposed_ports_are_those_of_the_manifests(last):
    """The daemon's health port, then the gateway's: 8080 and 8081, as their settings' defaults."""
    manifests = [yaml.safe_load((ROOT / "k8s" / folder / "deployment.yaml").read_text()) for folder in FOLDERS]
    ports = [it["spec"]["template"]["spec"]["containers"][0]["ports"] for it in manifests]
    assert only(last, "EXPOSE").split() == [str(port["containerPort"]) for (port,) in ports]


def test_the_labels_tell_what_it_is(last):
    """The OCI labels carry the version, licence and description of pyproject.toml."""
    arguments = dict(it.text.split("=", 1) for it in last if it.word == "ARG")
    found = {key: value.strip('"') for key, value in re.findall(r'([\w.]+)=("[^"]*")', only(last, "LABEL"))}
    labels = {key.removeprefix("org.opencontainers.image."): value for key, value in found.items()}
    assert labels["version"] == "${VERSION}"
    assert arguments["VERSION"] == PROJECT["project"]["version"]
    assert (labels["title"], labels["licenses"]) == (PROJECT["project"]["name"], PROJECT["project"]["license"])
    assert labels["description"] == PROJECT["project"]["description"]


# The context


def test_every_source_of_a_copy_is_there_and_not_ignored(build):
    """Every file that the Dockerfile copies exists and passes .dockerignore."""
    for source in copied(build):
        assert (ROOT / source).exists(), source
        assert in_context(source.removeprefix("./")), source


def test_context_holds_what_the_wheel_is_made_of(build):
    """The builder gets the bundled model and all else that hatchling reads, and copies it into the stage."""
    target = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*target["force-include"], *target["packages"], PROJECT["project"]["readme"], "pyproject.toml"]
    for path in [*needed, *PROJECT["project"]["license-files"]]:
        assert in_context(path), path
        assert path.split("/")[0] in copied(build), path


def test_the_context_is_small():
    """History, tests, environments and bytecode stay out. Most of what is sent is the model."""
    kept = list(context())
    assert "models/ggml-dispatch-mini.bin" in kept
    assert {name.split("/")[0] for name in kept} <= set(copied(stages()[1]))
    assert not [name for name in kept if "__pycache__" in name or name.endswith((".pyc", ".pyo"))]
    assert sum((ROOT / name).stat().st_size for name in kept) < 40e6
    for name in (".git/config", "tests/data/heldout.flac", "k8s/README.md", ".venv/bin/python", "Dockerfile"):
        assert not in_context(name), name


@pytest.mark.parametrize(
    ("path", "inside"),
    [("transcriber/__pycache__/cli.pyc", False), ("transcriber/audio/pcm.py", True), ("transcriber.egg-info", False)],
)
def test_dockerignore_reader_follows_dockers_rules(path, inside):
    """The reader of .dockerignore above takes folders, exceptions and double stars as Docker does."""
    assert in_context(path) == inside


# The lock file


def test_lock_file_holds_every_dependency_and_no_tool(build):
    """Every dependency is in the lock file with a hash, and no tool of development is."""
    assert "requirements.lock" in copied(build)
    text = re.sub(r"\\\n", " ", (ROOT / "requirements.lock").read_text())
    entries = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith(("#", "-"))]
    assert all("--hash=sha256:" in line for line in entries)
    locked = {name_of(line.split("--hash")[0].split(" #")[0]) for line in entries}
    assert {name_of(it) for it in PROJECT["project"]["dependencies"]} <= locked
    tools = (it for group in PROJECT["dependency-groups"].values() for it in group if isinstance(it, str))
    assert not {name_of(it) for it in tools} & locked


def name_of(requirement):
    return re.sub(r"[-_.]+", "-", Requirement(requirement.strip()).name).lower()


# The build itself


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(sys.platform != "linux", reason="the image is a Linux image")
def test_build_stage_gives_an_environment_that_works(tmp_path, build, last):
    """The first stage, carried out here step by step, gives an environment that runs the command and writes nothing.

    Its shared libraries need nothing that a slim image lacks, so the last stage needs no apt-get.
    """
    places = {"/src": tmp_path / "src", "/opt/transcriber": tmp_path / "opt/transcriber", "/tmp": tmp_path / "tmp"}
    environ = {"HOME": str(tmp_path), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    settings = re.compile(r"PIP_|SSL_|REQUESTS_|https?_proxy", re.IGNORECASE)
    environ |= {key: value for key, value in os.environ.items() if settings.match(key)}
    carry_out(build, places, environ)

    venv = places["/opt/transcriber"]
    assert not (venv / "bin/pip").exists()
    (places["/tmp"]).mkdir()
    before = snapshot(tmp_path)
    image = {key: here(value, places) for key, value in environment(last).items()}
    image["PATH"] = image["PATH"].replace("$PATH", "/usr/bin:/bin")
    command = [shutil.which(json.loads(only(last, "ENTRYPOINT"))[0], path=image["PATH"]), "--version"]
    done = subprocess.run(command, env=image, cwd="/", check=True, capture_output=True, text=True)
    assert PROJECT["project"]["version"] in done.stdout
    imports = "import numpy, soxr, soundfile, webrtcvad, _pywhispercpp, nats, grpc, psutil, websockets"
    subprocess.run([venv / "bin/python", "-c", imports], env=image, cwd="/", check=True)
    assert snapshot(tmp_path) == before

    site = Path(sysconfig.get_path("platlib", vars={"platbase": str(venv), "base": str(venv)}))
    assert (site / "transcriber/bundled/ggml-dispatch-mini.bin").is_file()
    libraries = {name for path in site.rglob("*.so*") for name in needs(path, site)}
    assert libraries
    assert not {name for name in libraries if not SLIM_LIBRARIES.fullmatch(name)}


def here(text, places):
    """`text` with the image's folders, and what lies in them, replaced by those that stand for them here."""
    folders = "|".join(map(re.escape, places))
    return re.sub(rf"(?<![\w./])({folders})(?![\w.])", lambda match: str(places[match[1]]), text)


def carry_out(stage, places, environ):
    folder = places["/src"]
    for it in stage[1:]:
        if it.word == "WORKDIR":
            folder = Path(here(it.text, places))
            folder.mkdir(parents=True)
        elif it.word == "COPY":
            *sources, target = it.words
            for source in sources:
                copy(source, folder / target, several=target.endswith("/"))
        elif it.word == "RUN":
            subprocess.run(["/bin/sh", "-c", here(it.text, places)], cwd=folder, env=environ, check=True)
        else:
            raise NotImplementedError(it.word)


def copy(source, target, *, several):
    for name in context():
        if name == source or name.startswith(f"{source}/"):
            path = target / (name if several else name.removeprefix(f"{source}/"))
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, path)


def snapshot(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def needs(path, site):
    """The system's libraries that a shared library is linked to; those in the wheels are left out."""
    done = subprocess.run(["ldd", path], check=False, capture_output=True, text=True)
    for name, where in re.findall(r"^\s*(\S+) => (not found|\S+)", done.stdout, re.MULTILINE):
        if not where.startswith(str(site)):
            yield name
