"""Real databases for tests and benchmarks: a server of one's own on a free port of this machine, gone at the end."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "s3cr3t-of-the-tests"
"""Of the user ``mis`` of every server."""


class NoServer(Exception):
    """The server's programs are not on this machine."""


@dataclass
class Server:
    """A database server that answers."""

    process: "subprocess.Popen[bytes]"
    port: int
    folder: Path
    scheme: str

    def url(self, password: str = "${ENV:MIS_TEST_PASSWORD}", database: str = "shop") -> str:
        """Its address, by default with a reference to the password."""
        return f"{self.scheme}://mis:{password}@127.0.0.1:{self.port}/{database}"

    def run(self, sql: str) -> str:
        """Runs statements as the user ``mis``; gives what they answer, a row a line, cells between tabs."""
        if self.scheme == "postgresql":
            command = ["psql", "-X", "-q", "-A", "-t", "-F", "\t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-p", str(self.port), "-U", "mis", "shop"]
        else:
            command = ["mariadb", "--no-defaults", "-N", "-B", "-h", "127.0.0.1", "-P", str(self.port), "-u", "mis", "shop"]
        done = subprocess.run(
            command, input=sql, capture_output=True, text=True, env={**os.environ, "PGPASSWORD": PASSWORD, "MYSQL_PWD": PASSWORD}, timeout=600, check=False
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        return done.stdout

    def live_through(self, epochs: int) -> None:
        """Stops a PostgreSQL, sets its count of transactions forward by so many times 2^32, and starts it again."""
        command = list(map(str, self.process.args))  # type: ignore[arg-type]
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        _as_user([str(Path(command[0]).parent / "pg_resetwal"), "--epoch", str(epochs), "-D", str(self.folder / "data")], self.folder)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(command, user=_user(), cwd=self.folder, env={**os.environ, "HOME": str(self.folder)}, stdout=log, stderr=log)
        _wait(self)

    def kill(self) -> None:
        """Ends it at once, as a machine that loses its power would."""
        subprocess.run(["pkill", "-KILL", "-P", str(self.process.pid)], check=False)
        self.process.kill()
        self.process.wait()


@contextmanager
def postgres(tls: tuple[Path, Path, Path] | None = None) -> Iterator[Server]:
    """PostgreSQL with a database ``shop``. Raises `NoServer`.

    ``tls``: its certificate and key, and the authority; then it lets in nobody who does not encrypt, and the user ``x509`` with a certificate only.
    """
    programs = [Path(p).parent for p in (shutil.which("initdb"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True))) if p]
    if not programs or not shutil.which("psql"):
        raise NoServer("PostgreSQL's programs are not installed (Debian: postgresql)")
    at = programs[0].resolve()
    with _folder() as folder:
        (folder / "password").write_text(PASSWORD)
        _as_user(
            [
                str(at / "initdb"),
                "-D",
                str(folder / "data"),
                "-A",
                "scram-sha-256",
                "-U",
                "mis",
                f"--pwfile={folder / 'password'}",
                "--no-sync",
                "-E",
                "UTF8",
                "--locale=C",
            ],
            folder,
        )
        settings = ["listen_addresses=127.0.0.1", "fsync=off", "autovacuum=off", "max_prepared_transactions=10", f"unix_socket_directories={folder}"]
        if tls is not None:
            files = zip(("ssl_cert_file", "ssl_key_file", "ssl_ca_file"), tls, strict=True)
            settings += ["ssl=on", *(f"{name}={_copied(path, folder)}" for name, path in files)]
            rules = "hostssl all x509 127.0.0.1/32 scram-sha-256 clientcert=verify-ca\nhostssl all all 127.0.0.1/32 scram-sha-256\n"
            (folder / "data" / "pg_hba.conf").write_text(rules)
        program = (at / "initdb").resolve().parent / "postgres"
        with _running([str(program), "-D", str(folder / "data"), *(x for s in settings for x in ("-c", s))], "-p", "postgresql", folder) as server:
            _create_shop(server)
            yield server


@contextmanager
def mariadb(tls: tuple[Path, Path, Path] | None = None) -> Iterator[Server]:
    """MariaDB with a database ``shop``. Raises `NoServer`. ``tls``: as for `postgres`; who must encrypt is the user ``ssl``."""
    if not shutil.which("mariadbd") or not shutil.which("mariadb-install-db") or not shutil.which("mariadb"):
        raise NoServer("MariaDB's programs are not installed (Debian: mariadb-server)")
    program = str(shutil.which("mariadbd"))
    with _folder() as folder:
        data = folder / "data"
        _as_user(["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--auth-root-authentication-method=normal", "--skip-test-db"], folder)
        first = folder / "first.sql"
        first.write_text(
            f"CREATE DATABASE shop;\nCREATE USER mis@'%' IDENTIFIED BY '{PASSWORD}';\nGRANT ALL ON *.* TO mis@'%';\nDROP USER IF EXISTS ''@'localhost';\n"
        )
        options = [f"--datadir={data}", f"--socket={folder / 'socket'}", "--bind-address=127.0.0.1", f"--pid-file={folder / 'pid'}", f"--init-file={first}"]
        if tls is not None:
            options += [f"--{name}={_copied(path, folder)}" for name, path in zip(("ssl-cert", "ssl-key", "ssl-ca"), tls, strict=True)]
            users = "".join(f"CREATE USER `{n}`@'%' IDENTIFIED BY '{PASSWORD}' REQUIRE {n};\nGRANT ALL ON *.* TO `{n}`@'%';\n" for n in ("ssl", "x509"))
            first.write_text(first.read_text() + users)
        with _running([program, "--no-defaults", *options, "--innodb-flush-log-at-trx-commit=0"], "--port", "mariadb", folder) as server:
            yield server


def _copied(path: Path, folder: Path) -> Path:
    """A file that the server's user alone can read."""
    copy = folder / path.name
    shutil.copy(path, copy)
    copy.chmod(0o600)
    user = _user()
    if user:
        shutil.chown(copy, user)
    return copy


def _create_shop(server: Server) -> None:
    subprocess.run(
        ["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(server.port), "-U", "mis", "postgres", "-c", "CREATE DATABASE shop"],
        env={**os.environ, "PGPASSWORD": PASSWORD},
        check=True,
        capture_output=True,
    )


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that a server which refuses to run as root can write to."""
    with tempfile.TemporaryDirectory(prefix="mis-db-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        user = _user()
        if user:
            shutil.chown(folder, user)
        yield folder


def _user() -> str | None:
    """Whom to run servers as: they refuse root."""
    return "nobody" if os.geteuid() == 0 else None


def _as_user(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, user=_user(), cwd=folder, env={**os.environ, "HOME": str(folder)}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr[-2000:]}")


@contextmanager
def _running(command: list[str], port_option: str, scheme: str, folder: Path) -> Iterator[Server]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (folder / "log").open("wb") as log:
        option = [port_option, str(port)] if port_option == "-p" else [f"{port_option}={port}"]
        process = subprocess.Popen([*command, *option], user=_user(), cwd=folder, env={**os.environ, "HOME": str(folder)}, stdout=log, stderr=log)
        server = Server(process, port, folder, scheme)
        try:
            _wait(server)
            yield server
        finally:
            process = server.process
            process.send_signal(signal.SIGINT if scheme == "postgresql" else signal.SIGTERM)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                server.kill()


def _wait(server: Server) -> None:
    """Until it answers a statement. Raises `RuntimeError` with its log."""
    database = ["psql", "-X", "-h", "127.0.0.1", "-p", str(server.port), "-U", "mis", "postgres", "-c", "select 1"]
    if server.scheme == "mariadb":
        database = ["mariadb", "--no-defaults", "-h", "127.0.0.1", "-P", str(server.port), "-u", "mis", "shop", "-e", "select 1"]
    for _ in range(300):
        done = subprocess.run(database, env={**os.environ, "PGPASSWORD": PASSWORD, "MYSQL_PWD": PASSWORD}, capture_output=True, check=False)
        if done.returncode == 0:
            return
        if server.process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError((server.folder / "log").read_text(errors="replace")[-2000:])
