"""Who we are: files in every form, URLs as other clients read them, and what is renewed or refused in mid-run."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import pytest
from harness import Daemon, NatsServer, free_port
from identities import CERTIFICATE, KEY, PUBLIC, SEED
from jwts import Authority, creds, seed_for

from transcriber.broker.connection import Connection
from transcriber.broker.options import BrokerOptions
from transcriber.daemon.shutdown import ExitCode
from transcriber.domain.errors import BrokerError, BrokerLost

TEXT = SEED.decode()
JWT = "eyJ0.eyJq.c2ln"
ENCRYPTED = """\
-----BEGIN ENCRYPTED PRIVATE KEY-----
MIHsMFcGCSqGSIb3DQEFDTBKMCkGCSqGSIb3DQEFDDAcBAhOWo+09K1xxwICCAAw
DAYIKoZIhvcNAgkFADAdBglghkgBZQMEAQIEEDt0BgZsjIPUFT3FQjQWSG8EgZDL
Dm74w6g1LX52y0XBpAFZSfbkCaAUWKw/UGoT8EDl2bBlPQaniWkpAVaeD1fMKfXI
hOj9uf3nYcgME5I7W04zQYwwyQcpnbCNJwKLBJ0dpFVrJx6WXRYa6025T0Omd5WX
IrjlzygAaVJKHN2d+hKxtrQD7iBVIEGSJ62IaHoAA6OLaF8C2aFBTSVsvwVS/Ks=
-----END ENCRYPTED PRIVATE KEY-----
"""
DECORATED = f"-----BEGIN USER NKEY SEED-----\n{TEXT}\n------END USER NKEY SEED------\n"


async def opened(options: BrokerOptions) -> None:
    connection = Connection(options)
    await connection.open()
    await connection.close()


@pytest.mark.parametrize(
    "text",
    [TEXT, f"{TEXT}\n", f"  {TEXT}\r\n", f"\ufeff{TEXT}", DECORATED, DECORATED.replace("\n", "\r\n"), creds(JWT, TEXT)],
)
async def test_a_seed_may_be_decorated(tmp_path: Path, text: str) -> None:
    """As `nsc` writes it, as an editor saves it, or inside a credentials file."""
    seed = tmp_path / "seed"
    seed.write_text(text, newline="")
    with NatsServer(tmp_path / "nats", config=f"authorization {{ users: [ {{ nkey: {PUBLIC} }} ] }}") as server:
        await opened(BrokerOptions(url=server.url, nkey=str(seed)))


SEEDS = {
    "": "there are 0",
    TEXT[:-1]: "there are 57",
    TEXT + "A": "there are 59",
    TEXT.lower(): "SU and 56",
    TEXT[:20] + ("A" if TEXT[20] != "A" else "B") + TEXT[21:]: "checksum",
    TEXT[:-1] + ("A" if TEXT[-1] != "A" else "B"): "checksum",
    seed_for("account"): "begins with SA, not SU",
    PUBLIC: "no user's seed",
    "-----BEGIN USER NKEY SEED-----\n": "there are 0",
}


@pytest.mark.parametrize("text", SEEDS, ids=range(len(SEEDS)))  # one of them is new each time
def test_a_broken_seed_is_told_and_not_shown(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(BrokerError, match="NATS_NKEY=.*" + SEEDS[text]) as caught:
        BrokerOptions(nkey=str(path)).credentials()
    assert not text or text not in str(caught.value)
    path.write_text(creds(JWT, text.replace("-----BEGIN USER NKEY SEED-----\n", "")))
    with pytest.raises(BrokerError, match="NATS_CREDS=.*" + SEEDS[text]):
        BrokerOptions(creds=str(path)).credentials()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (creds(JWT, TEXT).replace("BEGIN NATS USER JWT", "BEGIN"), "holds no 'BEGIN NATS USER JWT'"),
        (creds(JWT, TEXT).replace("BEGIN USER NKEY SEED", "BEGIN"), "holds no 'BEGIN USER NKEY SEED'"),
        (creds("", TEXT), "holds no JWT"),
        (creds("eyJ0.eyJq", TEXT), "holds no JWT"),
        (creds("not a jwt", TEXT), "holds no JWT"),
        ("-----BEGIN NATS USER JWT-----", "holds no JWT"),
        ("\x00\xff", "holds no 'BEGIN NATS USER JWT'"),
    ],
)
def test_broken_credentials_are_told(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(BrokerError, match="NATS_CREDS=.*" + told):
        BrokerOptions(creds=str(path)).credentials()


def test_a_key_without_its_certificate_is_told(tmp_path: Path) -> None:
    """And one that needs a passphrase asks nobody for it."""
    with pytest.raises(BrokerError, match="NATS_KEY needs NATS_CERT"):
        BrokerOptions(key=str(tmp_path / "key")).credentials()
    cert, key = tmp_path / "cert", tmp_path / "key"
    cert.write_text(CERTIFICATE)
    key.write_text(ENCRYPTED)
    with pytest.raises(BrokerError, match="passphrase"):
        BrokerOptions(cert=str(cert), key=str(key)).credentials()


async def test_a_daemon_with_a_damaged_seed_ends_with_a_sentence(tmp_path: Path, nats_server: NatsServer) -> None:
    seed = tmp_path / "seed"
    seed.write_text(TEXT[:-1])
    async with Daemon(nats_server.url, wait=False, NATS_NKEY=str(seed), WHISPER_RTF="0.05") as daemon:
        assert await daemon.ended() == ExitCode.CANNOT_START
    assert "NATS_NKEY" in daemon.records[-1]["message"]
    assert "Traceback" not in daemon.stderr


@pytest.mark.parametrize(
    ("user", "password", "userinfo"),
    [
        ("bob", "p@ss:w/rd", "bob:p%40ss%3Aw%2Frd"),
        ("bob", "p@s#w?r/d%", "bob:p@s#w?r/d%"),
        ("b:b@corp", "100%", "b%3Ab%40corp:100%25"),
        ("bob", "", "bob:"),
    ],
)
async def test_user_and_password_in_a_url(tmp_path: Path, user: str, password: str, userinfo: str) -> None:
    """Percent-encoded, as other clients decode them, or as they are."""
    config = f'authorization {{ users: [ {{ user: "{user}", password: "{password}" }} ] }}'
    with NatsServer(tmp_path / "nats", config=config) as server:
        url = server.url.replace("//", f"//{userinfo}@")
        await opened(BrokerOptions(url=url, connect_timeout=3))
        assert password not in BrokerOptions(url=url).address or not password


@pytest.mark.parametrize(("token", "userinfo"), [("t@k#n", "t%40k%23n"), ("t@k#n", "t@k#n")])
async def test_a_token_in_a_url(tmp_path: Path, token: str, userinfo: str) -> None:
    with NatsServer(tmp_path / "nats", config=f'authorization {{ token: "{token}" }}') as server:
        await opened(BrokerOptions(url=server.url.replace("//", f"//{userinfo}@"), connect_timeout=3))


def test_each_server_gets_what_its_url_says() -> None:
    """Those that the cluster tells of get what the first one gets: nats-py alone would present nothing to them."""
    options = BrokerOptions(url="nats://bob:one@A:1,nats://eve:tw%6F@b,nats://[::1]:3")
    assert [(options.credentials(s).user, options.credentials(s).password) for s in ("a:1", "b:4222", "c:1", None)] == [
        ("bob", "one"),
        ("eve", "two"),
        ("bob", "one"),
        ("bob", "one"),
    ]
    assert options.servers == ["nats://A:1", "nats://b", "nats://[::1]:3"]


async def test_servers_that_a_cluster_tells_of_get_the_same_user(tmp_path: Path) -> None:
    """Only one is named in the URL. When it dies, another one is asked with the same user and password."""
    users = 'authorization { users: [ { user: "bob", password: "p@x" } ] }'
    routes = [free_port(), free_port()]
    with contextlib.ExitStack() as stack:
        servers = []
        for mine, other in (routes, routes[::-1]):
            cluster = f'name: c, listen: "127.0.0.1:{mine}", routes: ["nats://127.0.0.1:{other}"]'
            made = NatsServer(tmp_path / str(mine), config=f"{users}\ncluster {{ {cluster} }}")
            servers.append(stack.enter_context(made))
        connection = Connection(BrokerOptions(url=servers[0].url.replace("//", "//bob:p%40x@")))
        await connection.open()
        async with asyncio.timeout(20):
            while len(connection.client.servers) == 1:  # noqa: ASYNC110 - until the second one is told of
                await asyncio.sleep(0.02)
        servers[0].kill()
        await reconnected(connection)
        await connection.confirm()
        await connection.close()


async def reconnected(connection: Connection, times: int = 1) -> None:
    async with asyncio.timeout(20):
        while connection.reconnects < times:  # noqa: ASYNC110 - nobody else is told
            await asyncio.sleep(0.02)


async def logged(caplog: pytest.LogCaptureFixture, words: str) -> None:
    """Wait until the log has these words."""
    async with asyncio.timeout(20):
        while words not in caplog.text:  # noqa: ASYNC110 - nobody else is told
            await asyncio.sleep(0.02)


async def test_credentials_that_expire_are_read_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Renewed before the end or after it: a new connection with what the file holds then."""
    authority, path = Authority(), tmp_path / "user.creds"
    with NatsServer(tmp_path / "nats", config=authority.config) as server:
        authority.write(path, lasts=2)
        connection = Connection(BrokerOptions(url=server.url, creds=str(path)))
        await connection.open()
        authority.write(path, lasts=3)
        await reconnected(connection)
        await logged(caplog, "Authorization Violation")  # refused with the old ones
        path.write_text("half a fi")
        await logged(caplog, "holds no")
        authority.write(path, lasts=60)
        await reconnected(connection, 2)
        await connection.publish("a", b"b")
        assert await connection.flushed()
        assert not connection.lost.done()
        connection.check()
        await connection.close()


async def test_credentials_that_stay_expired_are_what_is_told(tmp_path: Path) -> None:
    """Not before NATS_RECONNECT_TIMEOUT_SECS is over."""
    authority, path = Authority(), tmp_path / "user.creds"
    with NatsServer(tmp_path / "nats", config=authority.config) as server:
        authority.write(path, lasts=2)
        connection = Connection(BrokerOptions(url=server.url, creds=str(path), reconnect_timeout=1.5))
        await connection.open()
        await connection._interrupted
        begin = asyncio.get_running_loop().time()
        with pytest.raises(BrokerLost, match=r"SECS=1\.5 \(nats: 'Authorization Violation'\)"):
            await connection.lost
        assert asyncio.get_running_loop().time() - begin > 1.4
        await connection.close()


async def test_a_user_who_is_taken_out_and_put_back_is_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As when an operator edits accounts: refused until then, and not for ever."""
    allowed = 'authorization { users: [ { user: "bob", password: "x" } ] }'
    with NatsServer(tmp_path / "nats", config=allowed) as server:
        connection = Connection(BrokerOptions(url=server.url, user="bob", password="x"))
        await connection.open()
        server.reload(allowed.replace("bob", "eve"))
        await logged(caplog, "Authorization Violation")
        server.reload(allowed)
        await reconnected(connection)
        await connection.confirm()  # nothing remembers the refusal
        assert not connection.lost.done()
        await connection.close()


async def test_a_client_certificate_that_is_renewed_is_presented(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """nats-py loads it once: a new one, in the same place, would count from the next start on only."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(CERTIFICATE)
    key.write_text(KEY)
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}", ca_file: "{cert}", verify: true }}'
    with NatsServer(tmp_path / "nats", config=config) as server:
        mine = tmp_path / "mine.pem"
        mine.write_text(KEY + CERTIFICATE)
        connection = Connection(BrokerOptions(url=server.url, ca=str(cert), cert=str(mine)))
        await connection.open()
        mine.write_text("damaged")
        server.kill()
        server.start()
        await logged(caplog, "NATS_CERT")  # so the file is read
        mine.write_text(KEY + CERTIFICATE)
        await reconnected(connection)
        await connection.close()


@pytest.mark.filterwarnings("ignore:parameter 'timeout' of type 'float':DeprecationWarning")  # by nats-py
@pytest.mark.parametrize("scheme", ["ws", "wss"])
async def test_a_server_behind_websockets(tmp_path: Path, scheme: str) -> None:
    """As a proxy for HTTP lets them through; it comes back as over TCP."""
    pytest.importorskip("aiohttp")
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(CERTIFICATE)
    key.write_text(KEY)
    tls = f'tls {{ cert_file: "{cert}", key_file: "{key}" }}' if scheme == "wss" else "no_tls: true"
    port = free_port()
    users = 'authorization { users: [ { user: "bob", password: "p@x" } ] }'
    config = f'{users}\nwebsocket {{ listen: "127.0.0.1:{port}", {tls} }}'
    with NatsServer(tmp_path / "nats", config=config) as server:
        ca = str(cert) if scheme == "wss" else ""
        connection = Connection(BrokerOptions(url=f"{scheme}://bob:p%40x@127.0.0.1:{port}", ca=ca))
        await connection.open()
        await connection.publish("a", b"b" * 10_000)
        assert await connection.flushed()
        server.kill()
        server.start()
        await reconnected(connection)
        assert await connection.flushed()
        await connection.close()


@pytest.mark.parametrize("mode", ["true", "auto"])
async def test_a_server_that_wants_tls_before_anything_else(tmp_path: Path, mode: str) -> None:
    """`handshake_first`: such a server does not greet, which is how it is known."""
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.write_text(CERTIFICATE)
    key.write_text(KEY)
    config = f'tls {{ cert_file: "{cert}", key_file: "{key}", handshake_first: {mode} }}'
    with NatsServer(tmp_path / "nats", config=config) as server:
        await opened(BrokerOptions(url=server.url, ca=str(cert), connect_timeout=10))
