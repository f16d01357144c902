"""Encrypted connections and passwords: good certificates are taken, bad ones are told, and no secret is in what is said. Real servers, started here."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from pydantic import ValidationError

from modelinscale.core.errors import SourceError, SpecError
from modelinscale.data.sources import Source
from modelinscale.data.sources._tls import Tls
from modelinscale.testing import brokers, databases
from modelinscale.testing.certificates import Authority

pytestmark = pytest.mark.slow

PASSWORD = databases.PASSWORD
FLAWS = ("expired", "another host")


class Made(NamedTuple):
    """An authority, one that nobody should trust, and files of a server and of a client."""

    ours: Authority
    other: Authority
    server: tuple[Path, Path, Path]
    client: tuple[Path, Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    try:
        ours, other = Authority(tmp_path_factory.mktemp("ours")), Authority(tmp_path_factory.mktemp("other"), "Somebody")
    except databases.NoServer as reason:
        pytest.skip(str(reason))
    return Made(ours, other, (*ours.sign("server"), ours.ca), ours.sign("client"))


@pytest.fixture(autouse=True)
def password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIS_TEST_PASSWORD", PASSWORD)


def ca(authority: Authority) -> str:
    return f"${{FILE:{authority.ca}}}"


def own(made: Made) -> dict[str, str]:
    """Settings of this client's certificate."""
    return {"certificate": f"${{FILE:{made.client[0]}}}", "certificate_key": f"${{FILE:{made.client[1]}}}"}


def refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SourceError, match=words) as told:
        Source.parse(settings).columns()
    assert PASSWORD not in str(told.value)
    assert "PRIVATE KEY" not in str(told.value)


def names(settings: dict[str, Any]) -> list[str]:
    return list(Source.parse(settings).columns().names)


# Databases.


@pytest.fixture(scope="module")
def pg(made: Made) -> Iterator[databases.Server]:
    try:
        with databases.postgres(made.server) as server:
            server.run(f"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); CREATE ROLE x509 SUPERUSER LOGIN PASSWORD '{PASSWORD}'")
            yield server
    except databases.NoServer as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="module")
def maria(made: Made) -> Iterator[databases.Server]:
    try:
        with databases.mariadb(made.server) as server:
            server.run("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)")
            yield server
    except databases.NoServer as reason:
        pytest.skip(str(reason))


@pytest.fixture(params=["pg", "maria"])
def database(request: pytest.FixtureRequest) -> databases.Server:
    found: databases.Server = request.getfixturevalue(request.param)
    return found


def sql(server: databases.Server, **more: Any) -> dict[str, Any]:
    return {"type": "sql", "url": server.url(), "table": "t", "timeout": "10s", **more}


def test_a_database_is_read_over_tls(database: databases.Server, made: Made) -> None:
    assert names(sql(database, ca=ca(made.ours))) == ["id"]
    which = "SELECT ssl::int AS on_ FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
    if database.scheme == "mariadb":
        which = "SELECT CASE WHEN variable_value = '' THEN 0 ELSE 1 END AS on_ FROM information_schema.session_status WHERE variable_name = 'Ssl_cipher'"
    source = Source.parse({**sql(database, ca=ca(made.ours)), "table": None, "query": which})
    chunks = list(source.read(None, source.columns()))
    assert [chunk.batch.column("on_").to_pylist() for chunk in chunks] == [[1]]


def test_a_database_whose_certificate_is_of_another_authority_is_refused(database: databases.Server, made: Made) -> None:
    refused(sql(database, ca=ca(made.other)), r"cannot connect: .*certificate.*Check `ca`")


def test_a_database_that_asks_for_certificates_gets_ours(database: databases.Server, made: Made) -> None:
    url = database.url().replace("mis:", "x509:")
    assert names(sql(database, url=url, ca=ca(made.ours), **own(made))) == ["id"]
    with pytest.raises(SourceError, match=r"certificate|[Aa]ccess denied"):
        Source.parse(sql(database, url=url, ca=ca(made.ours))).columns()


def test_postgresql_refuses_who_does_not_encrypt_and_a_wrong_password(pg: databases.Server, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    refused(sql(pg, url=pg.url() + "?sslmode=disable"), "cannot connect: .*no encryption|pg_hba")
    verified = pg.url() + f"?sslmode=verify-full&sslrootcert={made.ours.ca}"
    assert names(sql(pg, url=verified)) == ["id"], "as the parameters of libpq"
    monkeypatch.setenv("MIS_TEST_PASSWORD", "hush-hush-wrong")
    refused(sql(pg, ca=ca(made.ours)), "password authentication failed")


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_database_with_a_bad_certificate_is_refused(flaw: Any, made: Made) -> None:
    bad = (*made.ours.sign(f"database {flaw}".replace(" ", "-"), flaw), made.ours.ca)
    try:
        with databases.postgres(bad) as server:
            refused(sql(server, ca=ca(made.ours)), r"cannot connect: .*certificate.*Check `ca`")
        with databases.mariadb(bad) as server:
            refused(sql(server, ca=ca(made.ours)), r"cannot connect: .*certificate.*Check `ca`")
    except databases.NoServer as reason:
        pytest.skip(str(reason))


# Streams.


def words_of_redis(files: tuple[Path, Path, Path], folder: Path, port: int) -> tuple[str, ...]:
    (folder / "users").write_text(
        f"user default off\nuser mis on >{PASSWORD} ~payments +@read +xinfo +multi +exec +client\nuser writer on >{PASSWORD} ~* +@all\n"
    )
    more = ["--tls-port", str(port), "--port", "0", "--tls-cert-file", files[0], "--tls-key-file", files[1], "--tls-ca-cert-file", files[2]]
    return tuple(map(str, [*more, "--tls-auth-clients", "optional", "--aclfile", folder / "users"]))


def redis(port: int, user: str = "mis", **more: Any) -> dict[str, Any]:
    return {"type": "redis", "url": f"rediss://{user}:${{ENV:MIS_TEST_PASSWORD}}@127.0.0.1:{port}/0", "stream": "payments", "timeout": "10s", **more}


@pytest.fixture(scope="module")
def redis_port(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    client = pytest.importorskip("redis", reason="the extra `redis` is not installed")
    folder, port = tmp_path_factory.mktemp("redis"), brokers.free_port()
    try:
        with brokers.redis(folder, port=port, more=words_of_redis(made.server, folder, port)):
            with client.Redis(port=port, ssl=True, ssl_ca_certs=str(made.ours.ca), username="writer", password=PASSWORD) as link:
                link.xadd("payments", {"card": "a", "amount": "1"})
            yield port
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")


def test_redis_is_read_over_tls_by_a_user_with_few_rights(redis_port: int, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(redis(redis_port, ca=ca(made.ours))) == ["card", "amount"]
    assert names(redis(redis_port, ca=ca(made.ours), **own(made))) == ["card", "amount"]
    source = Source.parse(redis(redis_port, ca=ca(made.ours)))
    assert sum(len(chunk.batch) for chunk in source.read(None, source.columns())) == 1
    refused(redis(redis_port, ca=ca(made.ours), stream="others"), "refuses this client")
    refused(redis(redis_port, ca=ca(made.other)), "no encrypted connection: certificate verify failed.*Check `ca`")
    refused(redis(redis_port), "no encrypted connection: certificate verify failed")
    monkeypatch.setenv("MIS_TEST_PASSWORD", "hush-hush-wrong")
    refused(redis(redis_port, ca=ca(made.ours)), "refuses this client")


@pytest.mark.parametrize("flaw", FLAWS)
def test_redis_with_a_bad_certificate_is_refused(flaw: Any, made: Made, tmp_path: Path) -> None:
    pytest.importorskip("redis", reason="the extra `redis` is not installed")
    bad, port = (*made.ours.sign(f"redis-{flaw}".replace(" ", "-"), flaw), made.ours.ca), brokers.free_port()
    try:
        with brokers.redis(tmp_path, port=port, more=words_of_redis(bad, tmp_path, port)):
            refused(redis(port, ca=ca(made.ours)), "expired" if flaw == "expired" else "mismatch|not valid for")
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")


def nats(address: str, **more: Any) -> dict[str, Any]:
    return {"type": "nats", "servers": [address], "stream": "PAYMENTS", "timeout": "10s", **more}


def send(address: str, **more: Any) -> None:
    from nats.aio.client import Client

    async def work() -> None:
        client = Client()
        await client.connect([address], allow_reconnect=False, **more)
        stream = client.jetstream()
        await stream.add_stream(name="PAYMENTS", subjects=["payments"])
        await stream.publish("payments", json.dumps({"card": "a", "amount": 1}).encode())
        await client.close()

    asyncio.run(work())


def nats_words(made: Made, files: tuple[Path, Path, Path] | None = None) -> tuple[str, ...]:
    found = files or made.server
    return tuple(map(str, ["--tls", "--tlscert", found[0], "--tlskey", found[1]]))


def test_nats_is_read_over_tls_with_user_and_password(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nats", reason="the extra `nats` is not installed")
    from modelinscale.data.sources._tls import Tls

    more = (*nats_words(made), "--tlsverify", "--tlscacert", str(made.ours.ca), "--user", "mis", "--pass", PASSWORD)
    try:
        with brokers.nats(tmp_path, more=more) as plain:
            host = plain.rpartition("/")[2]
            address = f"tls://mis:${{ENV:MIS_TEST_PASSWORD}}@{host}"
            send(f"tls://mis:{PASSWORD}@{host}", tls=Tls(ca(made.ours), *own(made).values()).context())
            assert names(nats(address, ca=ca(made.ours), **own(made))) == ["card", "amount"]
            refused(nats(address, ca=ca(made.other), **own(made)), "no encrypted connection: certificate verify failed.*Check `ca`")
            refused(nats(address, ca=ca(made.ours)), "certificate required|cannot be reached|no encrypted connection")
            monkeypatch.setenv("MIS_TEST_PASSWORD", "hush-hush-wrong")
            refused(nats(address, ca=ca(made.ours), **own(made)), "refuses this client")
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")


@pytest.mark.parametrize("flaw", FLAWS)
def test_nats_with_a_bad_certificate_is_refused(flaw: Any, made: Made, tmp_path: Path) -> None:
    pytest.importorskip("nats", reason="the extra `nats` is not installed")
    bad = (*made.ours.sign(f"nats-{flaw}".replace(" ", "-"), flaw), made.ours.ca)
    try:
        with brokers.nats(tmp_path, more=nats_words(made, bad)) as plain:
            refused(nats(plain.replace("nats://", "tls://"), ca=ca(made.ours)), "expired" if flaw == "expired" else "mismatch|not valid for")
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")


def test_nats_that_does_not_encrypt_is_refused_by_who_asks_for_it(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("nats", reason="the extra `nats` is not installed")
    try:
        with brokers.nats(tmp_path) as plain:
            refused(nats(plain.replace("nats://", "tls://"), ca=ca(made.ours)), "no encrypted connection: .*the server does not speak TLS")
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")


def test_nats_knows_a_client_by_its_nkey(made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("nats", reason="the extra `nats` is not installed")
    keys = pytest.importorskip("nkeys", reason="the package `nkeys` is not installed")
    import base64
    import os

    def seed() -> str:
        raw = bytes([(18 << 3) | (20 << 3 >> 5), (20 << 3 & 31) << 3]) + os.urandom(32)
        crc = 0
        for byte in raw:
            crc ^= byte << 8
            for _ in range(8):
                crc = (crc << 1 ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
        return base64.b32encode(raw + crc.to_bytes(2, "little")).decode().rstrip("=")

    good, wrong = seed(), seed()
    known = keys.from_seed(good.encode()).public_key.decode()
    (tmp_path / "conf").write_text(f"authorization {{ users = [ {{ nkey: {known} }} ] }}\n")
    try:
        with brokers.nats(tmp_path, more=("-c", str(tmp_path / "conf"))) as address:
            send(address, nkeys_seed_str=good)
            monkeypatch.setenv("MIS_TEST_SEED", good)
            assert names(nats(address, nkey="${ENV:MIS_TEST_SEED}")) == ["card", "amount"]
            monkeypatch.setenv("MIS_TEST_SEED", wrong)
            with pytest.raises(SourceError, match="refuses this client") as told:
                Source.parse(nats(address, nkey="${ENV:MIS_TEST_SEED}")).columns()
            assert wrong not in str(told.value)
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")


# Kafka: the mock cluster knows neither TLS nor passwords, so only what is asked of librdkafka and what it says of a server that cannot do it.


def test_kafka_settings_reach_the_client_whole(made: Made) -> None:
    from modelinscale.data.sources.kafka import Security

    both = {"tls": True, "ca": ca(made.ours), **own(made), "username": "mis", "password": "${ENV:MIS_TEST_PASSWORD}", "mechanism": "SCRAM-SHA-512"}
    found = Security.model_validate(both).settings()
    assert found == {
        "security.protocol": "SASL_SSL",
        "ssl.ca.pem": made.ours.ca.read_text().rstrip("\n"),
        "ssl.certificate.pem": made.client[0].read_text().rstrip("\n"),
        "ssl.key.pem": made.client[1].read_text().rstrip("\n"),
        "sasl.mechanism": "SCRAM-SHA-512",
        "sasl.username": "mis",
        "sasl.password": PASSWORD,
    }


@pytest.mark.parametrize("more", [{"tls": True}, {"username": "mis", "password": "${ENV:MIS_TEST_PASSWORD}"}], ids=["tls", "password"])
def test_kafka_that_cannot_do_what_security_asks_is_told_soon(more: dict[str, Any], made: Made) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
    try:
        with brokers.kafka({"payments": 1}) as address:
            refused({"type": "kafka", "servers": [address], "topic": "payments", "timeout": "5s", "security": more}, "refuses this client|cannot be reached")
    except brokers.NoServer as reason:
        pytest.skip(f"no server to test with: {reason}")


def test_kafka_with_files_that_hold_no_certificate_is_told(made: Made, tmp_path: Path) -> None:
    pytest.importorskip("confluent_kafka", reason="the extra `kafka` is not installed")
    (tmp_path / "none").write_text("hush-hush nothing")
    with pytest.raises(SourceError, match="librdkafka refuses the settings") as told:
        Source.parse({"type": "kafka", "servers": ["127.0.0.1:1"], "topic": "t", "security": {"tls": True, "ca": f"${{FILE:{tmp_path / 'none'}}}"}}).columns()
    assert "hush" not in str(told.value)


def test_what_would_go_unencrypted_unsaid_is_refused(made: Made) -> None:
    for settings, words in (
        ({"type": "redis", "url": "redis://h/0", "stream": "s", "ca": ca(made.ours)}, "rediss://"),
        ({"type": "nats", "servers": ["nats://h"], "stream": "s", "ca": ca(made.ours)}, "tls://"),
        ({"type": "nats", "servers": ["nats://h"], "stream": "s", "token": "${ENV:A}", "nkey": "${ENV:B}"}, "one at a time"),
        ({"type": "kafka", "servers": ["h:1"], "topic": "t", "security": {"ca": ca(made.ours)}}, "`tls` is off"),
        ({"type": "kafka", "servers": ["h:1"], "topic": "t", "security": {"username": "mis"}}, "go together"),
        ({"type": "sql", "url": "sqlite:///a.db", "table": "t", "ca": ca(made.ours)}, "no connection to encrypt"),
    ):
        with pytest.raises((SpecError, ValidationError), match=words):
            Source.parse(settings)


def test_a_file_that_holds_no_certificate_is_told(made: Made, tmp_path: Path) -> None:
    (tmp_path / "none").write_text("hush-hush nothing")
    none = f"${{FILE:{tmp_path / 'none'}}}"
    refused({"type": "redis", "url": "rediss://127.0.0.1:1/0", "stream": "s", "ca": none}, "`ca` holds no certificate")
    refused({"type": "redis", "url": "rediss://127.0.0.1:1/0", "stream": "s", "certificate": none}, "hold no certificate with its key")


def test_a_key_that_a_killed_process_left_in_a_file_goes_with_the_next_connection(made: Made, tmp_path: Path) -> None:
    tls = Tls(None, *(f"${{FILE:{path}}}" for path in made.client))
    code = f"import os, signal\nfrom modelinscale.data.sources._tls import Tls\nwith Tls(*{tuple(tls)!r}).files():\n    os.kill(os.getpid(), signal.SIGKILL)"
    where = {**os.environ, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=where, check=False)
    assert len(list(tmp_path.glob("mis-tls-*/key.pem"))) == 1
    subprocess.run([sys.executable, "-c", code.replace("os.kill(os.getpid(), signal.SIGKILL)", "pass")], env=where, check=True)
    assert list(tmp_path.glob("mis-tls-*")) == []
