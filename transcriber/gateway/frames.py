"""The frames that nearly all of live speech comes in, read without the codec. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from websockets.frames import apply_mask  # type: ignore[attr-defined] # compiled where there is a wheel
from websockets.protocol import State
from websockets.streams import StreamReader

if TYPE_CHECKING:
    from types import GeneratorType

    from websockets.server import ServerProtocol

    _Parser = GeneratorType[None, None, None]

_WHOLE_BINARY = 0x82  # the first byte of a binary message in one frame, as it is without extensions (RFC 6455, 5.2)
_MASKED = 0x80
_MEDIUM, _LONG = 126, 127  # in place of a size: two or eight bytes of it follow
_SHORT_HEAD, _MEDIUM_HEAD = 2 + 4, 2 + 2 + 4  # bytes: with the mask
_BETWEEN_FRAMES = StreamReader.at_eof.__code__  # where the codec waits when it holds nothing of a frame


def next_binary(codec: ServerProtocol, data: bytes, start: int = 0) -> tuple[bytes, int] | None:
    """Read a whole binary message of less than 64 KiB. Returns its payload and its end; None: ask the codec.

    The codec needs not know of such a message, as it changes nothing in it. With the codec it costs ten times as much.
    """
    if len(data) - start < _MEDIUM_HEAD or data[start] != _WHOLE_BINARY or codec.state is not State.OPEN:
        return None
    size, begin = data[start + 1] - _MASKED, start + _SHORT_HEAD
    if size < 0 or size == _LONG:
        return None
    if size == _MEDIUM:
        size, begin = data[start + 2] << 8 | data[start + 3], start + _MEDIUM_HEAD
    end = begin + size
    if end > len(data) or codec.current_size is not None or not _is_between_frames(codec):
        return None
    if codec.max_message_size is not None and size > codec.max_message_size:
        return None
    return apply_mask(data[begin:end], data[begin - 4 : begin]), end


def _is_between_frames(codec: ServerProtocol) -> bool:
    parser = cast("_Parser", codec.parser)
    while (inner := parser.gi_yieldfrom) is not None:
        parser = cast("_Parser", inner)
    return parser.gi_code is _BETWEEN_FRAMES
