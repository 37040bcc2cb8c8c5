"""Remembers the names of ended sessions, which no later session may have."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from transcriber.domain.timeline import Origin

_REMEMBERED = 10_000  # ended session ids, about 2 MB: enough for MAX_STREAMS streams with ten restarts each
_CARRIED = 8  # ids of a stream that its records carry to the next daemon: more producers do not take turns on a stream


class UsedNames:
    """How often each id was used, by stream. The sessions of one id are called `id`, `id.2`, `id.3` and so on."""

    def __init__(self) -> None:
        self._times: OrderedDict[tuple[str, str], int] = OrderedDict()
        self._newest: OrderedDict[str, OrderedDict[str, int]] = OrderedDict()  # the ids of each stream to carry

    def unused(self, stream: str, requested_id: str, taken: Iterable[tuple[str, str]]) -> str:
        """Return the id that a chunk requests, with a number appended if a session of that name has ended.

        No name is used twice, even if a producer itself calls a session `<session>.2` or takes a generated name.
        `taken`: streams and names of the sessions that are not settled yet.
        """
        times = self._times.get((stream, requested_id), 0)
        name = f"{requested_id}.{times + 1}" if times else requested_id
        while self._is_used(stream, name) or (stream, name) in taken:
            times += 1
            name = f"{requested_id}.{times + 1}"
        return name

    def _is_used(self, stream: str, name: str) -> bool:
        base, dot, number = name.rpartition(".")
        numbered = dot and number.isdecimal() and int(number) <= self._times.get((stream, base), 0)
        return (stream, name) in self._times or bool(numbered)

    def remember(self, origin: Origin, requested_id: str | None) -> None:
        """Note that a session is over: its name and the one that its chunks asked for are used."""
        stream, name = origin.stream, origin.session
        if requested_id is None or not name.startswith(requested_id):  # a generated name, which nobody gets again
            self._note(stream, name, 1)
            return
        number = name[len(requested_id) + 1 :]
        times = self._times.get((stream, requested_id), 0) + 1
        self._note(stream, requested_id, max(times, int(number)) if number.isdecimal() else times)
        self._note(stream, name, 1)
        self._carry(stream, requested_id)

    def carried(self, stream: str) -> Mapping[str, int]:
        """The ids that producers chose most recently, and how often each was used."""
        return dict(self._newest.get(stream, {}))

    def resume(self, stream: str, carried: Mapping[str, int]) -> None:
        """Take over what an earlier daemon carried."""
        for requested_id, times in carried.items():
            self._note(stream, requested_id, times)
            self._carry(stream, requested_id)

    def _note(self, stream: str, name: str, times: int) -> None:
        self._times[stream, name] = max(times, self._times.pop((stream, name), 0))
        while len(self._times) > _REMEMBERED:
            self._times.popitem(last=False)

    def _carry(self, stream: str, requested_id: str) -> None:
        newest = self._newest.pop(stream, OrderedDict())
        newest.pop(requested_id, None)
        newest[requested_id] = self._times[stream, requested_id]
        self._newest[stream] = newest
        while len(newest) > _CARRIED:
            newest.popitem(last=False)
        while len(self._newest) > _REMEMBERED // _CARRIED:
            self._newest.popitem(last=False)
