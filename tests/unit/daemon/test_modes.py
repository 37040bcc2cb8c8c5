"""What a daemon without a fleet loads."""

from __future__ import annotations

import subprocess
import sys


def test_daemon_without_a_fleet_loads_nothing_of_it() -> None:
    """Modules of a fleet cost a start and memory; one daemon alone needs none of them."""
    script = (
        "import sys, transcriber.daemon.service; "
        "rooms = ('transcriber.fleet', 'transcriber.daemon.fleet', 'transcriber.broker.fleet'); "
        "print([name for name in sys.modules if name.startswith(rooms)])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
