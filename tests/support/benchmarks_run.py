"""A benchmark as a user runs it, and what its JSON always holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from places import ROOT

QUIET = ("NATS_", "AUDIO_", "WHISPER_", "OTEL_", "LOG_")


def bench(folder: Path, *arguments: str, code: int = 0) -> tuple[dict[str, Any], str]:
    """Run the command as a user would; returns its JSON and what it printed."""
    file = folder / "found.json"
    environ = {k: v for k, v in os.environ.items() if not k.startswith(QUIET)}
    command = [sys.executable, "-m", "benchmarks", *arguments, "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, env=environ, cwd=ROOT, check=False, timeout=240)
    assert done.returncode == code, done.stderr
    if code:
        return {}, done.stderr
    assert done.stderr == ""
    return json.loads(file.read_text()), done.stdout


def check_frame(found: dict[str, Any], name: str) -> None:
    """Check what every benchmark reports along with its figures."""
    assert found["benchmark"] == name
    assert {"cpu", "cores", "cpu_quota", "memory_bytes", "system", "python", "load_before", "time"} <= set(
        found["machine"]
    )
    assert {"transcriber", "pywhispercpp", "nats-py", "nats-server"} <= set(found["versions"])
    assert found["settings"]
    assert all(found["measured"].values())
