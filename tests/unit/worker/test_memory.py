"""The memory that a second model needs and the memory there is, from files as Linux writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from transcriber.models import store
from transcriber.models.ggml import check_model_file
from transcriber.worker import memory

MEMINFO = "MemTotal:       24682656 kB\nMemFree:        15616832 kB\nMemAvailable:   22000000 kB\n"
HOST = 22_000_000 * 1024


def written(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        path = folder / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return folder


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    path = tmp_path / "meminfo"
    path.write_text(MEMINFO)
    return path


def test_container_limit_leaves_out_files_that_were_read(tmp_path: Path, meminfo: Path) -> None:
    """cgroup v2: 1 GB is allowed and 900 MB used, 400 MB of them by a file that nobody reads any more."""
    stat = "anon 500000000\nfile 400000000\ninactive_file 400000000\nactive_file 0\n"
    cgroup = written(tmp_path, memory_DOT_max="1000000000\n", memory_DOT_current="900000000\n", memory_DOT_stat=stat)
    assert memory.available(cgroup, meminfo) == 500_000_000


def test_the_older_cgroups_are_read_too(tmp_path: Path, meminfo: Path) -> None:
    """They are cgroup v1. One of them is over its limit."""
    cgroup = written(
        tmp_path,
        memory__memory_DOT_limit_in_bytes="1000\n",
        memory__memory_DOT_usage_in_bytes="1500\n",
        memory__memory_DOT_stat="total_inactive_file 200\n",
    )
    assert memory.available(cgroup, meminfo) == 0


def test_memory_of_the_host_counts_without_a_limit(tmp_path: Path, meminfo: Path) -> None:
    """There is no cgroup, or it says "max", or its limit is more than the host has."""
    assert memory.available(tmp_path / "none", meminfo) == HOST
    cgroup = written(tmp_path / "max", memory_DOT_max="max\n", memory_DOT_current="5\n", memory_DOT_stat="")
    assert memory.available(cgroup, meminfo) == HOST
    cgroup = written(tmp_path / "much", memory_DOT_max=f"{2 * HOST}\n", memory_DOT_current="5\n", memory_DOT_stat="")
    assert memory.available(cgroup, meminfo) == HOST


def test_available_memory_is_unknown_without_its_files(tmp_path: Path) -> None:
    """Another operating system has none of them."""
    assert memory.available(tmp_path, tmp_path / "none") is None


LOAD = """
import sys
import psutil
from pathlib import Path
from transcriber.daemon.reference import reference_speech
from transcriber.worker.engine import WhisperOptions
from transcriber.worker.engines.whispercpp import WhisperCppEngine
samples, process, used = reference_speech(30), psutil.Process(), []
for _ in range(4):
    before = process.memory_info().rss
    engine = WhisperCppEngine(WhisperOptions(path=Path(sys.argv[1]), threads=1))
    engine.transcribe(samples, None, attempt=2)
    used.append(process.memory_info().rss - before)
    engine.close()
    used.append(process.memory_info().rss - before)
print(*used)
"""


def test_need_covers_the_memory_used_and_closing_frees_it() -> None:
    """The model is really loaded and run at full context, and really freed, time after time."""
    path = store.bundled_model_path()
    need = memory.needed(check_model_file(path), path.stat().st_size)
    done = subprocess.run([sys.executable, "-c", LOAD, path], capture_output=True, text=True, check=True)
    used = [int(figure) for figure in done.stdout.split()]
    assert max(used[::2]) <= need <= 2 * max(used[::2])
    assert max(used[1::2]) < 16 * 2**20  # the first one leaves code pages and tables; without closing it is 80 MiB
