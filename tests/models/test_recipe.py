"""The recipe of the bundled model: it runs from end to end, and stopping it changes nothing.

Needs the dependency group `recipe` and Debian's synthesizers (models/README.md); run with `pytest -m slow`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jiwer
import numpy as np
import pytest
from places import ROOT

RECIPE = ROOT / "tools" / "bundled_model"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # files that whisper leaves open
]
torch = pytest.importorskip("torch")
whisper = pytest.importorskip("whisper")


def script(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(RECIPE / name), *map(str, arguments)]


def train(folder: Path, name: str) -> list[str]:
    steps = ("--steps", 6, "--save-every", 2)
    return script("train.py", "--data", folder, "--out", folder / name, *steps)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if missing := [name for name in ("espeak-ng", "flite", "text2wave") if shutil.which(name) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    folder = tmp_path_factory.mktemp("recipe")
    subprocess.run(script("synthesize.py", "--out", folder, "--sentences", 200, "--word-voices", 2), check=True)
    return folder


@pytest.fixture(scope="module")
def unbroken(corpus: Path) -> Path:
    subprocess.run(train(corpus, "unbroken.pt"), check=True)
    return corpus / "unbroken.pt"


def weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)["trainee"]


def test_synthesis_knows_when_words_begin(corpus: Path) -> None:
    """Words that espeak-ng timed lie in order inside their utterance; a word spoken alone begins with it."""
    rows = json.loads((corpus / "sentences.json").read_text())
    assert len(rows) > 190
    timed = [row for row in rows if -1 not in row[3]]
    assert len(timed) > 60
    for _, length, text, starts, _ in timed:
        assert len(starts) == len(text.split())
        assert starts == sorted(starts)
        assert 0 <= starts[0] <= starts[-1] < length
    assert {row[3][0] for row in json.loads((corpus / "words.json").read_text())} == {0}


def test_training_resumed_after_a_kill_gives_the_same_weights(corpus: Path, unbroken: Path) -> None:
    """Killed after its first save, it goes on from there. Every weight equals that of the unbroken run."""
    with subprocess.Popen(train(corpus, "resumed.pt"), stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline().startswith("step 2,")
        process.kill()
    assert torch.load(corpus / "resumed.pt", weights_only=False)["step"] < 6
    subprocess.run(train(corpus, "resumed.pt"), check=True)
    resumed = weights(corpus / "resumed.pt")
    for name, tensor in weights(unbroken).items():
        assert torch.equal(tensor, resumed[name]), name


def test_both_exports_hold_what_was_trained(unbroken: Path, tmp_path: Path) -> None:
    """The ggml file passes the usual check.

    OpenAI's package loads the checkpoint made from it, with the same weights.
    """
    ggml, checkpoint = tmp_path / "ggml-probe.bin", tmp_path / "probe.pt"
    subprocess.run(script("export.py", unbroken, ggml), check=True)
    subprocess.run(script("export.py", ggml, checkpoint), check=True)
    verify = [sys.executable, "-m", "transcriber", "models", "verify", str(ggml)]
    assert "custom, f16" in subprocess.run(verify, check=True, capture_output=True, text=True).stdout
    model = whisper.load_model(str(checkpoint), device="cpu")
    trained = weights(unbroken)
    for name, tensor in model.state_dict().items():
        if f"model.{name}" in trained:
            np.testing.assert_allclose(tensor, trained[f"model.{name}"], atol=2e-3, err_msg=name)


def test_openai_package_hears_the_same_words_in_the_model(tmp_path: Path) -> None:
    """The bundled file, read back into a checkpoint, gives OpenAI's package the words that whisper.cpp hears."""
    checkpoint = tmp_path / "dispatch-mini.pt"
    subprocess.run(script("export.py", ROOT / "models" / "ggml-dispatch-mini.bin", checkpoint), check=True)
    model = whisper.load_model(str(checkpoint), device="cpu")
    sys.path.insert(0, str(RECIPE))
    import evaluate

    ours = evaluate.Recognizer(evaluate.MODEL, 2)
    spoken = evaluate.utterances("heldout")[:40]
    theirs = [model.transcribe(u.samples, language="en", temperature=0.0, fp16=False)["text"] for u in spoken]
    assert jiwer.wer(ours.texts((u.samples for u in spoken), evaluate.FULL), theirs) <= 0.05
