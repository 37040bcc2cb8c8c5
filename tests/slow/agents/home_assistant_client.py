"""Run by a Python that has Home Assistant Core: `home_assistant_client.py CONFIG_FOLDER PORT WAV`.

Sets up the integration Wyoming Protocol by its own dialog, and has a recording transcribed by its entity for speech to
text. Prints what the integration and the entity say, as one JSON object.
"""

from __future__ import annotations

import asyncio
import json
import sys
import wave
from collections.abc import AsyncIterator

from homeassistant import bootstrap, config_entries, loader
from homeassistant.components import stt
from homeassistant.config_entries import ConfigEntries
from homeassistant.core import HomeAssistant
from homeassistant.core_config import async_process_ha_core_config
from homeassistant.helpers import entity_registry
from homeassistant.setup import async_setup_component

_CHUNK = 2048  # bytes, as voice satellites send


async def core(folder: str) -> HomeAssistant:
    """Home Assistant without its web pages, which nobody asks for here."""
    home = HomeAssistant(folder)
    loader.async_setup(home)
    home.config.skip_pip = True
    home.config_entries = ConfigEntries(home, {})
    await loader.async_get_custom_components(home)
    await bootstrap.async_load_base_functionality(home)
    await async_process_ha_core_config(home, {})  # its users, as the web server wants some
    for name in ("homeassistant", "stt"):
        assert await async_setup_component(home, name, {}), name
    return home


async def spoken(path: str) -> AsyncIterator[bytes]:
    with wave.open(path) as file:
        while chunk := file.readframes(_CHUNK // 2):
            yield chunk


async def main(folder: str, port: str, path: str) -> None:
    home = await core(folder)
    user = {"source": config_entries.SOURCE_USER}
    address = {"host": "127.0.0.1", "port": int(port)}
    dialog = await home.config_entries.flow.async_init("wyoming", context=user, data=address)
    await home.async_block_till_done()
    entry = dialog["result"]
    entities = entity_registry.async_entries_for_config_entry(entity_registry.async_get(home), entry.entry_id)
    (entity_id,) = [entity.entity_id for entity in entities if entity.domain == "stt"]
    entity = stt.async_get_speech_to_text_entity(home, entity_id)
    metadata = stt.SpeechMetadata(
        language="en",
        format=stt.AudioFormats.WAV,
        codec=stt.AudioCodecs.PCM,
        bit_rate=stt.AudioBitRates.BITRATE_16,
        sample_rate=stt.AudioSampleRates.SAMPLERATE_16000,
        channel=stt.AudioChannels.CHANNEL_MONO,
    )
    heard = await entity.internal_async_process_audio_stream(metadata, spoken(path))
    said = {"state": entry.state.value, "title": entry.title, "languages": entity.supported_languages}
    print(json.dumps(said | {"result": heard.result.value, "text": heard.text}), flush=True)
    await home.async_stop(force=True)


asyncio.run(main(*sys.argv[1:]))
