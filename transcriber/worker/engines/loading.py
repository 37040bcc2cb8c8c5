"""Loads the engine for a model's format."""

from __future__ import annotations

import importlib.util
import logging
from typing import TYPE_CHECKING

from transcriber.domain.errors import ModelError
from transcriber.worker.engine import EngineName

if TYPE_CHECKING:
    from transcriber.worker.engine import Engine, WhisperOptions

log = logging.getLogger(__name__)

_EXTRA = "pip install 'transcriber[ctranslate2]'"


def load_engine(options: WhisperOptions) -> Engine:
    """Load the model at `options.path`, which must have been verified. Raises `ModelError` if it cannot be loaded here.

    An engine's library is imported here, so only the chosen one needs to be installed and takes memory.
    """
    name = options.chosen_engine
    _check_format(options)
    why = "as WHISPER_ENGINE says" if options.engine else f"as the model is a {_format(options)}"
    log.info("engine: %s, %s", name, why)
    if name is EngineName.WHISPER_CPP:
        from transcriber.worker.engines.whispercpp import WhisperCppEngine  # noqa: PLC0415

        return WhisperCppEngine(options)
    try:
        from transcriber.worker.engines.ctranslate2 import CTranslate2Engine  # noqa: PLC0415
    except ModuleNotFoundError as error:
        reason = f"is for CTranslate2, which is not installed ({error.name}): {_EXTRA}"
        raise ModelError(str(options.path), reason) from None
    return CTranslate2Engine(options)


def installed(name: EngineName) -> bool:
    """Whether the engine's libraries are there; they are not loaded."""
    of_extra = ("ctranslate2", "threadpoolctl", "tokenizers")
    needed = of_extra if name is EngineName.CTRANSLATE2 else ("_pywhispercpp",)
    return all(importlib.util.find_spec(library) is not None for library in needed)


def _check_format(options: WhisperOptions) -> None:
    """Raise `ModelError` for a model in the other engine's format, which could crash this one."""
    needed = "folder" if options.chosen_engine is EngineName.CTRANSLATE2 else "file"
    if _format(options) != needed:
        made = "; make one with: transcriber models pull NAME --format ctranslate2" if needed == "folder" else ""
        reason = f"is a {_format(options)}, but WHISPER_ENGINE={options.chosen_engine} needs a {needed}{made}"
        raise ModelError(str(options.path), reason)


def _format(options: WhisperOptions) -> str:
    return "folder" if options.path.is_dir() else "file"
