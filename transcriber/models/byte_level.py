"""GPT-2's alphabet, in which Whisper's vocabularies spell bytes. Pure. Source: `bytes_to_unicode` in OpenAI's GPT-2."""

from __future__ import annotations


def spelled(token: str) -> bytes:
    """Return the bytes of a token. Raises `KeyError` for a character outside the alphabet."""
    return bytes(_ALPHABET[character] for character in token)


def spell(token: bytes) -> str:
    """Return the token's bytes, spelled in the alphabet."""
    return "".join(_LETTERS[byte] for byte in token)


def _alphabet() -> dict[str, int]:
    """A letter for each byte: visible characters of Latin-1 stand for themselves, the others begin at U+0100."""
    own = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = (byte for byte in range(256) if byte not in own)
    return {chr(byte): byte for byte in own} | {chr(256 + number): byte for number, byte in enumerate(others)}


_ALPHABET = _alphabet()
_LETTERS = {byte: letter for letter, byte in _ALPHABET.items()}
