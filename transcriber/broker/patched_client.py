"""nats-py's client, with three bugs fixed and a fast path for audio.

It overrides private methods, so pyproject.toml pins nats-py's version.
"""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any

import nats.errors
import nkeys
from nats.aio.client import DEFAULT_BUFFER_SIZE, Client, Srv
from nats.aio.transport import TcpTransport
from nats.protocol.parser import Parser

from transcriber.protocol import incoming

if TYPE_CHECKING:
    from collections.abc import Callable

    from nats.aio.subscription import Subscription

    from transcriber.broker.credentials import Credentials

    Taker = Callable[[bytes, bytes, bytes], None]  # subject, header block or nothing, payload

_PING = b"PING\r\n"
_NO_GREETING = "expecting INFO message"  # nats-py's words when the server hangs up first
_STALE = "stale connection"
_ERROR = "-ERR "
# After these the server keeps the connection.
_HARMLESS = ("permissions violation", "invalid subject", "invalid publish subject", "maximum subscriptions exceeded")
# For so long the socket may collect data. When messages come faster, waking up for each one costs more than reading it.
# It is a tenth of the 50 ms that a final may take besides its pause and its decoding.
_GATHER_SECS = 0.005
# For so long audio may collect before it is written, if it comes faster: each write wakes the server and a worker.
_COLLECT_SECS = 0.001  # a fifth of the 5 ms that a chunk may take through the gateway


class MendedClient(Client):
    """nats-py's client without a fatal bug: its read loop ends for good, and silently, at the first exception in it.

    Any publisher can cause one, because the server checks neither that a subject is UTF-8 nor the content of headers.
    A PONG that nobody waits for any more causes one too.
    """

    def __init__(self, credentials: Callable[[str], Credentials]) -> None:
        """`credentials` says who we are to a server, `host:port`, at the moment of connecting."""
        super().__init__()
        self._credentials = credentials
        self._tls_first: set[str] = set()  # servers that say nothing before TLS
        self._takers: dict[int, Taker] = {}
        self._nobody: asyncio.Future[None] | None = None
        self._loop = asyncio.get_running_loop()
        self._writing = False  # whether `_write` is about to be called
        self._collecting = False  # the same, in a while
        self._written = 0.0  # when it was called
        self._taken = False  # whether a taker got a message since the last `gather`
        self._last_taken = 0.0  # when reading went on after the last `gather`
        self._ps = _GatheringParser(self)

    @property
    def clustered(self) -> bool:
        """Whether the server is one of several."""
        return bool(self._server_info.get("cluster"))

    async def _connect_to_server(self, s: Srv) -> None:
        """With the credentials as they are now: nats-py reads some of the files at start alone."""
        self._present(self._credentials(_place(s)))
        if self._transport:
            self._transport.close()  # type: ignore[no-untyped-call] # of an attempt that was refused, which nats-py leaves open
        await super()._connect_to_server(s)

    def _present(self, who: Credentials) -> None:
        self.options |= {"user": who.user, "password": who.password, "token": who.token}
        self.options.pop("tls", None)
        if who.tls is not None:
            self.options["tls"] = who.tls
        if who.seed is not None:
            pair = nkeys.from_seed(bytearray(who.seed.encode()))
            self._public_nkey = pair.public_key.decode()
            self._signature_cb = lambda nonce: base64.b64encode(pair.sign(nonce.encode()))
        if who.jwt is not None:
            jwt = bytearray(who.jwt.encode())
            self._user_jwt_cb = lambda: jwt

    async def _process_connect_init(self) -> None:
        """Find out whether the server wants TLS before anything else: it says nothing then, where others greet."""
        server = self._current_server
        assert server is not None  # noqa: S101 - it has been selected
        secure, place = server.uri.scheme == "tls" or "tls" in self.options, _place(server)
        self.options["tls_handshake_first"] = first = place in self._tls_first
        try:
            await super()._process_connect_init()
        except (OSError, TimeoutError, nats.errors.Error) as error:
            if first:
                self._tls_first.discard(place)  # it may be another one by now
            elif secure and (isinstance(error, TimeoutError) or _NO_GREETING in str(error)):
                self._tls_first.add(place)
            if isinstance(error, ConnectionError) and (told := self._last_words()):
                raise nats.errors.Error(f"nats: {told}") from error
            raise

    def _last_words(self) -> str | None:
        """What the server told before it hung up. Once sending fails, asyncio hands out nothing that has arrived."""
        if not isinstance(self._transport, TcpTransport):
            return None
        arrived: Any = self._transport._io_reader._buffer  # type: ignore[union-attr] # noqa: SLF001 - connected
        lines = bytes(arrived).decode(errors="replace").splitlines()
        return next((line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)), None)

    async def _process_err(self, err_msg: str) -> None:
        """Reconnect after an error that the server has told, where nats-py closes for good.

        Credentials may have been renewed, or there may be room again. A subject that is refused costs no connection.
        """
        text = err_msg.strip().strip("'")
        if _STALE in err_msg.lower():
            await super()._process_err(err_msg)
            return
        self._err = error = nats.errors.Error(f"nats: {text}")
        await self._error_cb(error)
        if not text.lower().startswith(_HARMLESS):
            await self._process_op_err(error)

    def put(self, command: bytes) -> None:
        """Queue a command of the protocol for the socket, without waiting. Look at `backlog` before."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._writing:
            self._writing = True
            self._loop.call_soon(self._write)

    def collect(self, command: bytes) -> None:
        """Queue a command as `put` does. If another one was written just before, more of them may collect first."""
        if self._loop.time() - self._written >= _COLLECT_SECS:
            self.put(command)
            return
        self._pending.append(command)
        self._pending_data_size += len(command)
        if not self._writing and not self._collecting:
            self._collecting = True
            self._loop.call_later(_COLLECT_SECS, self._write)

    def _write(self) -> None:
        """Write what the present turn of the event loop has queued, at once: to wake nats-py's flusher costs more.

        The flusher is left what needs it: a socket that takes no more, and a connection that is not there.
        """
        self._writing = self._collecting = False
        if not self._pending:  # an earlier call has written it
            return
        self._written = self._loop.time()
        transport = self._transport
        if isinstance(transport, TcpTransport) and self.is_connected:
            writer: Any = transport._io_writer  # noqa: SLF001 - connected
            if not writer.transport.is_closing() and not writer.transport.get_write_buffer_size():
                writer.writelines(self._pending)
                self._pending, self._pending_data_size = [], 0
                return
        if self._flush_queue is not None and self._flush_queue.empty():
            self._flush_queue.put_nowait(self._settled())

    def ask(self, subject: bytes, reply: bytes, block: bytes, payload: bytes) -> None:
        """Publish a request, with a whole header block or nothing in its place. Look at `backlog` before."""
        size = len(block)
        if size:
            head = b"HPUB %b %b %d %d\r\n" % (subject, reply, size, size + len(payload))
        else:
            head = b"PUB %b %b %d\r\n" % (subject, reply, len(payload))
        self.put(b"%b%b%b\r\n" % (head, block, payload))

    @property
    def backlog(self) -> int:
        """Bytes that wait for the socket."""
        return self._pending_data_size

    def listen(self, subject: str, take: Taker) -> int:
        """Subscribe as `hand_over` does, at a tenth of its memory, and without letting messages collect.

        Returns a number for `ignore`. Nothing tells when the server forbids the subject.
        """
        self._sid += 1
        self._subs[self._sid] = _Interest(subject, take)  # type: ignore[assignment] # all that nats-py asks of one without a queue
        self.put(b"SUB %b %d\r\n" % (subject.encode(), self._sid))  # a reconnect may say it again, which does no harm
        return self._sid

    def ignore(self, number: int) -> None:
        """End a subscription of `listen`."""
        if self._subs.pop(number, None) is not None:
            self.put(b"UNSUB %d\r\n" % number)

    def _settled(self) -> asyncio.Future[None]:
        """What wakes nats-py's flusher, which would tell a future that somebody waits for."""
        if self._nobody is None:
            self._nobody = asyncio.get_running_loop().create_future()
            self._nobody.set_result(None)
        return self._nobody

    async def hand_over(self, subject: str, take: Taker) -> Subscription:
        """Subscribe; the read loop passes every message directly to `take`, which must neither wait nor raise.

        nats-py would make an object of each message, queue it and wake a task. That is an eighth of the whole cost of a
        live stream in chunks of 20 ms. And when its queue is full, it drops messages without saying which audio.
        """
        self._takers[self._sid + 1] = take  # before the first message can arrive
        return await self.subscribe(subject, cb=_never)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        interest: object = self._subs.get(sid)
        if isinstance(interest, _Interest):
            interest.take(bytes(subject), headers or b"", data)
            return
        take = self._takers.get(sid)
        if take is None or sid not in self._subs:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            self._taken = True
            take(bytes(subject), headers or b"", data)

    async def gather(self) -> None:
        """Let audio collect in the socket if it comes in quick succession."""
        if not self._taken:
            return
        self._taken = False
        loop, transport = asyncio.get_running_loop(), self._transport
        if loop.time() - self._last_taken < _GATHER_SECS and isinstance(transport, TcpTransport):
            socket: Any = transport._io_writer.transport  # type: ignore[union-attr] # noqa: SLF001 - connected
            socket.pause_reading()
            try:
                await asyncio.sleep(_GATHER_SECS)
            finally:
                socket.resume_reading()
        self._last_taken = loop.time()

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        try:
            return await super()._process_headers(headers)
        except Exception:  # noqa: BLE001 - any error is the sender's fault and must affect only this message
            return {incoming.UNREADABLE: ""}

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Any:  # noqa: ANN401
        return super()._build_message(sid, _decodable(subject), _decodable(reply), data, headers)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        """Send the PING after what is queued already. nats-py sends it first, so the PONG would confirm nothing."""
        self._pongs.append(asyncio.get_running_loop().create_future() if future is None else future)
        await self._send_command(_PING)
        await self._flush_pending()

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _read_loop(self) -> None:
        await super()._read_loop()
        if self.is_connected:  # it ended unasked: make a new connection, as this one receives nothing
            await self._process_op_err(nats.errors.ProtocolError())


class _Interest:
    """A subscription whose messages nats-py never sees."""

    __slots__ = ("_subject", "take")
    _queue = ""
    _max_msgs = 0
    _received = 0
    _wait_for_msgs_task = None
    _message_iterator = None
    _pending_next_msgs_calls = None

    def __init__(self, subject: str, take: Taker) -> None:
        self._subject = subject
        self.take = take


class _GatheringParser(Parser):
    """nats-py's parser, which parses what has arrived and then lets more data collect."""

    async def parse(self, data: bytes = b"") -> None:
        await super().parse(data)
        if len(data) < DEFAULT_BUFFER_SIZE:  # otherwise more data is waiting already
            await self.nc.gather()


def _place(server: Srv) -> str:
    return f"{server.uri.hostname}:{server.uri.port}"


async def _never(_message: object) -> None:
    """A callback for nats-py that is never called: the messages go to a taker."""


def _decodable(subject: bytes) -> bytes:
    return bytes(subject).decode("utf-8", "replace").encode()
