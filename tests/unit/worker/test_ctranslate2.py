"""CTranslate2's devices: what it does without a GPU, and with one that fails."""

from __future__ import annotations

import logging
import shutil
import sys
from pathlib import Path

import ctranslate2
import pytest
from harness import Speech
from threadpoolctl import threadpool_info, threadpool_limits

from transcriber.domain.errors import SettingError
from transcriber.worker.engine import Device, WhisperOptions
from transcriber.worker.engine import Speech as Heard
from transcriber.worker.engines import ct2_device
from transcriber.worker.engines import ctranslate2 as engine_module
from transcriber.worker.engines.ctranslate2 import CTranslate2Engine
from transcriber.worker.engines.cuda import load_cublas


@pytest.fixture
def with_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose GPU is counted. Everything after that really fails, as this one has none."""
    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", lambda: 1)


@pytest.fixture
def with_cublas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ct2_device, "load_cublas", lambda: None)


def options(folder: Path, device: Device, **named: object) -> WhisperOptions:
    return WhisperOptions(path=folder, threads=1, device=device, **named)


def test_auto_without_a_gpu_is_the_cpu(bundled_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The log says where it computes and in what. That is no warning."""
    with caplog.at_level(logging.INFO):
        engine = CTranslate2Engine(options(bundled_folder, Device.AUTO))
    assert (engine.device, engine.batch_sizes) == (Device.CPU, (1, 2, 3, 4))
    assert [r.levelname for r in caplog.records if r.name.startswith("transcriber")] == ["INFO"]
    assert "computes on cpu in int8" in caplog.text


def test_engine_leaves_numpy_one_thread(bundled_folder: Path) -> None:
    """Features are a small product of matrices. Helpers of numpy's would turn in place between two of them."""
    with threadpool_limits(2, user_api="blas"):
        CTranslate2Engine(options(bundled_folder, Device.CPU))
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}


@pytest.mark.parametrize(("threads", "batch", "workers"), [(1, None, 1), (2, None, 2), (4, 2, 2), (4, 1, 1)])
def test_a_narrow_model_has_a_worker_for_each_thread(
    bundled_folder: Path, threads: int, batch: int | None, workers: int
) -> None:
    """But no more than windows in a pass: where there is one at a time, it has all threads."""
    engine = CTranslate2Engine(
        WhisperOptions(path=bundled_folder, threads=threads, device=Device.CPU, batch_size=batch)
    )
    assert engine.workers == workers


def test_workers_decode_windows_as_one_by_one(bundled_folder: Path, heldout: Speech) -> None:
    """Also where a long and a short one share a pass."""
    engine = CTranslate2Engine(WhisperOptions(path=bundled_folder, threads=2, device=Device.CPU))
    windows = [Heard(heldout.cut(begin, begin + n).samples, None) for begin, n in ((1, 2), (3, 1), (0, 2), (4, 1))]
    together = engine.transcribe_many(windows, quick=True)
    alone = [engine.transcribe(samples, None, quick=True) for samples, *_ in windows]
    assert [[s.text for s in one.segments] for one in together] == [[s.text for s in one.segments] for one in alone]
    assert any(one.segments for one in alone)


def test_cuda_without_a_gpu_is_refused(bundled_folder: Path) -> None:
    """The message names the setting and what works."""
    with pytest.raises(SettingError, match=r"WHISPER_DEVICE='cuda'.*cpu or auto here, as CTranslate2 finds no GPU"):
        CTranslate2Engine(options(bundled_folder, Device.CUDA))


@pytest.mark.usefixtures("with_gpu")
def test_gpu_without_cublas_is_a_loud_fallback(
    bundled_folder: Path, heldout: Speech, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine works on the CPU, and a warning says why."""
    engine = CTranslate2Engine(options(bundled_folder, Device.AUTO))
    assert engine.device is Device.CPU
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "computes on the CPU, which is much slower" in warning
    assert "libcublas" in warning
    assert engine.transcribe(heldout.cut(2, 3).samples, None).segments


@pytest.mark.usefixtures("with_gpu", "with_cublas")
def test_gpu_that_fails_is_a_loud_fallback(bundled_folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Here the driver is missing: CTranslate2's own error."""
    assert CTranslate2Engine(options(bundled_folder, Device.AUTO)).device is Device.CPU
    (warning,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "CUDA" in warning


@pytest.mark.usefixtures("with_gpu", "with_cublas")
def test_gpu_that_fails_is_refused_where_it_was_asked_for(bundled_folder: Path) -> None:
    """`cuda` never computes on the CPU."""
    with pytest.raises(SettingError, match=r"cpu or auto here, as the GPU fails: .*CUDA"):
        CTranslate2Engine(options(bundled_folder, Device.CUDA))


def test_a_driver_that_fails_is_a_loud_fallback(
    bundled_folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An old driver raises already when GPUs are counted."""

    def fails() -> int:
        raise RuntimeError("CUDA failed with error CUDA driver version is insufficient for CUDA runtime version")

    monkeypatch.setattr(ctranslate2, "get_cuda_device_count", fails)
    assert CTranslate2Engine(options(bundled_folder, Device.AUTO)).device is Device.CPU
    assert "driver version is insufficient" in caplog.text
    with pytest.raises(SettingError, match="driver version is insufficient"):
        CTranslate2Engine(options(bundled_folder, Device.CUDA))


def test_cublas_is_found_in_its_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any library stands in for it: the wheel has 600 MB. Without the wheel and on no path, it is an `OSError`."""
    with pytest.raises(OSError, match="libcublas"):
        load_cublas()
    folder = tmp_path / "nvidia" / "cublas" / "lib"
    folder.mkdir(parents=True)
    (folder.parent / "__init__.py").touch()
    some = next(Path(ctranslate2.__file__).parent.parent.glob("ctranslate2.libs/libgomp*"))
    for name in ("libcublasLt.so.12", "libcublas.so.12"):
        shutil.copy(some, folder / name)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "nvidia"]:
        monkeypatch.delitem(sys.modules, name)
    load_cublas()


@pytest.mark.parametrize("quick", [False, True])
def test_a_pass_ends_at_its_bound(
    bundled_folder: Path, heldout: Speech, monkeypatch: pytest.MonkeyPatch, quick: bool
) -> None:
    """No pass can be stopped, so its tokens are bounded. One that says more is marked, and gives no more words."""
    engine, samples = CTranslate2Engine(options(bundled_folder, Device.CPU)), heldout.cut(1, 3).samples
    whole = engine.transcribe(samples, None, quick=quick)
    assert not whole.endless
    monkeypatch.setattr(engine_module, "most_tokens", lambda _seconds, _language: 4)
    cut = engine.transcribe(samples, None, quick=quick)
    assert cut.endless
    assert sum(len(segment.words) for segment in cut.segments) <= 4
    assert len(whole.segments[0].words) > 4


def test_batch_and_beam_sizes_are_settings(bundled_folder: Path) -> None:
    """On a CPU, too: whether passes over three windows are used is measured."""
    engine = CTranslate2Engine(options(bundled_folder, Device.CPU, batch_size=3, beam_size=1))
    assert (engine.batch_sizes, engine.beams) == ((3,), False)
    assert CTranslate2Engine(options(bundled_folder, Device.CPU)).beams
