"""A thousand windows of every length, with second passes and beams: neither engine's memory grows."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
import real

from transcriber.models import store
from transcriber.models.catalogue import Format
from transcriber.worker.engine import EngineName

WINDOWS = 1000
WARM_UP = (
    300  # windows: by then every length, attempt and beam has occurred, and what is kept for each of them is there
)
# The bundled model's worker process has 120 MB and strays by 2 MB. A window of 5 s has 0.3 MB of samples alone, so
# one object of that size kept for every window would be 200 MB.
GROWTH_BYTES = 12_000_000

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3 * 3600)]


async def growth(model: Path, longest: float) -> int:
    """How much larger the process is at its end than after the warm-up."""
    script = Path(__file__).parent.parent / "support" / "endurance.py"
    command = [sys.executable, str(script), str(model), str(WINDOWS), f"{longest:g}"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == 0
    used = {int(n): int(size) for n, size in (line.split() for line in out.decode().splitlines())}
    print(f"\n{model.name}: " + ", ".join(f"{n}: {size / 1e6:.1f} MB" for n, size in used.items()))
    return used[WINDOWS] - used[WARM_UP]


@pytest.mark.parametrize("engine", list(EngineName))
async def test_the_bundled_model_does_not_grow(engine: EngineName, bundled_folder: Path) -> None:
    """In windows of up to 5 s, as it is used."""
    model = bundled_folder if engine is EngineName.CTRANSLATE2 else store.bundled_model_path()
    assert await growth(model, 5.0) < GROWTH_BYTES


@pytest.mark.parametrize("model_format", list(Format))
async def test_an_official_model_does_not_grow(model_format: Format) -> None:
    """tiny.en in windows of up to 15 s: as many contexts as there are."""
    assert await growth(real.model("tiny.en", model_format), 15.0) < 3 * GROWTH_BYTES
