"""Rebuilds the bundled model: synthesize, train, export, evaluate. After a stop it continues where it was.

    apt-get install espeak-ng flite festival festvox-kallpc16k festvox-us-slt-hts && pip install --group recipe -e .
    python tools/bundled_model/rebuild.py --work WORK [--seed 1]

The model ends up at WORK/ggml-dispatch-mini.bin, its report at WORK/report.json. It needs 4 GB of disk.
On two cores with AVX-512 it takes two to two and a half hours, with AVX2 only five and a half.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def run(script: str, *arguments: object) -> None:
    subprocess.run([sys.executable, str(HERE / script), *map(str, arguments)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Rebuild the bundled model.")
    parser.add_argument("--work", type=Path, required=True, help="a folder of at least 4 GB")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    work, seed = options.work, options.seed
    checkpoint, model = work / "model.pt", work / "ggml-dispatch-mini.bin"
    if not (work / "sentences.json").exists():  # written last
        run("synthesize.py", "--out", work, "--seed", seed)
    run("train.py", "--data", work, "--out", checkpoint, "--seed", seed)
    run("export.py", checkpoint, model)
    run("evaluate.py", model, "--json", work / "report.json")


if __name__ == "__main__":
    main()
