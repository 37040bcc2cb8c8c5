"""Opens a CTranslate2 model on the hardware that was asked for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import ctranslate2
import numpy as np

from transcriber.domain.errors import ModelError, SettingError
from transcriber.worker.engine import LARGEST_BATCH, Device
from transcriber.worker.engines.cuda import load_cublas
from transcriber.worker.engines.features import FRAMES_A_POSITION, log_mel

if TYPE_CHECKING:
    from transcriber.models.ggml import ModelHeader
    from transcriber.worker.engine import WhisperOptions

log = logging.getLogger(__name__)

# The width of "base". Up to it a second thread makes the encoder faster and the decoder slower. A window takes as long
# with two threads as with one. Larger models could not be measured; there, all threads work on one window.
_NARROW = 512


def open_model(options: WhisperOptions, header: ModelHeader) -> Any:  # noqa: ANN401 - the library has no types
    """Load the model on the device that was asked for. With `auto`, a GPU that cannot be used is a warning.

    On a CPU, a narrow model has a worker for each thread, and each worker decodes windows of its own.

    Raises `SettingError` if `cuda` cannot be used, and `ModelError` if the model cannot be loaded on the CPU.
    """
    asked = options.device
    workers = _workers(options, header)
    if asked is Device.CPU or not _gpus(asked):
        return _load(options, Device.CPU, workers)
    try:
        load_cublas()
        model = _load(options, Device.CUDA)
        silence = log_mel(np.zeros(0, np.float32), header.n_mels, FRAMES_A_POSITION)
        model.encode(ctranslate2.StorageView.from_array(silence))
    except (OSError, RuntimeError, ModelError) as error:
        if asked is Device.CUDA:
            raise SettingError("WHISPER_DEVICE", str(asked), f"cpu or auto here, as the GPU fails: {error}") from error
        log.warning("the GPU cannot be used, so CTranslate2 computes on the CPU, which is much slower: %s", error)
        return _load(options, Device.CPU, workers)
    return model


def _workers(options: WhisperOptions, header: ModelHeader) -> int:
    """How many windows a CPU decodes at the same time: not more than may be in a pass."""
    if header.n_audio_state > _NARROW:
        return 1
    return min(options.threads, options.batch_size or LARGEST_BATCH)


def _gpus(asked: Device) -> int:
    """How many GPUs there are. Raises `SettingError` if `cuda` was asked for and there is none."""
    try:
        found, why = ctranslate2.get_cuda_device_count(), ""
    except RuntimeError as error:  # the driver is too old, or fails
        found, why = 0, f": {error}"
        log.warning("GPUs cannot be counted, so CTranslate2 computes on the CPU%s", why)
    if asked is Device.CUDA and not found:
        raise SettingError("WHISPER_DEVICE", str(asked), f"cpu or auto here, as CTranslate2 finds no GPU{why}")
    return int(found)


def _load(options: WhisperOptions, device: Device, workers: int = 1) -> Any:  # noqa: ANN401
    try:
        return ctranslate2.models.Whisper(
            str(options.path),
            device=str(device),
            compute_type=options.compute_type or _compute_type(device),
            inter_threads=workers,
            intra_threads=options.threads // workers,
        )
    except (RuntimeError, ValueError) as error:
        raise ModelError(str(options.path), f"cannot be loaded by CTranslate2: {error}") from error


def _compute_type(device: Device) -> str:
    """The cheapest type that keeps the words right, where the device has it."""
    wanted = "float16" if device is Device.CUDA else "int8"
    return wanted if wanted in ctranslate2.get_supported_compute_types(str(device)) else "float32"
