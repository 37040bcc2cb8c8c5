"""What a contributor runs, each in an environment of its own: `nox`, `nox -s tests`, `nox -s slow -- -k soak`.

In an environment that has everything already, as CI's, `nox --no-venv` builds none and runs the same commands.
"""

from __future__ import annotations

import nox

nox.needs_version = ">=2025.2.9"
nox.options.sessions = ["lint", "tests"]
nox.options.reuse_existing_virtualenvs = True


def _install(session: nox.Session) -> None:
    """Install what is locked, and the package from this checkout. Without environments there is nothing to do."""
    if session.virtualenv.is_sandboxed:
        session.install("--quiet", "--require-hashes", "-r", "requirements-dev.lock")
        session.install("--quiet", "--no-deps", "-e", ".")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types, who may import whom, spelling, and plain English."""
    _install(session)
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("mypy")
    session.run("lint-imports", "--no-logo")
    session.run("codespell")
    session.run("python", "tools/docs/prose.py")


@nox.session
def tests(session: nox.Session) -> None:
    """The suite, as README.md has it: 12 minutes on two cores."""
    _install(session)
    session.run("pytest", "-n", "2", *session.posargs)


@nox.session
def real(session: nox.Session) -> None:
    """Official models, pulled where they are not there yet, on real speech where TRANSCRIBER_REAL_SPEECH names some."""
    _install(session)
    session.run("pytest", "-m", "real", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """What runs for long: soak, chaos, whole corpora; an hour."""
    _install(session)
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """Build the pages of docs/ into site/; a warning is an error."""
    _install(session)
    session.run("mkdocs", "build", "--strict", *session.posargs)
