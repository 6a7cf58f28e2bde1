"""A throw-away PostgreSQL cluster: one primary and, if wanted, one streaming replica.

Everything lives below one temporary directory and listens on 127.0.0.1 only. The servers are
children of this process and end with it. They run without fsync: the benchmark reads.
"""

import contextlib
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time

import client

USER = "bench"
PASSWORD = "secret"
DATABASE = "bench"
SUPERUSER = "postgres"
SETTINGS = {
    "listen_addresses": "'127.0.0.1'",
    "unix_socket_directories": "''",
    "max_connections": "400",
    "shared_buffers": "'256MB'",
    "wal_level": "replica",
    "fsync": "off",
    "password_encryption": "'scram-sha-256'",
}


class BenchError(Exception):
    """Something that the person who runs the benchmark has to know; printed without a trace."""


class Process:
    """A child that this program started, its log, and how it is asked to end."""

    def __init__(self, name, command, log_path, stop_signal=signal.SIGTERM, **options):
        self.name = name
        self._log_path = log_path
        self._stop_signal = stop_signal
        with open(log_path, "ab") as log:
            self._child = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **options,
            )

    @property
    def pid(self):
        return self._child.pid

    def check(self):
        """Raises BenchError with the end of the log if the process is no longer there."""
        status = self._child.poll()
        if status is not None:
            raise BenchError(f"{self.name} ended with status {status}:\n{self.log_tail()}")

    def log_tail(self, lines=20):
        text = pathlib.Path(self._log_path).read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def stop(self):
        if self._child.poll() is not None:
            return
        self._child.send_signal(self._stop_signal)
        try:
            self._child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


class Cluster:
    """A primary with the pgbench tables in it, and optionally a replica that has replayed them."""

    def __init__(self, directory, bin_directory, scale, with_replica):
        self.bin_directory = bin_directory
        self._directory = directory
        self._account = service_account()
        self._stack = contextlib.ExitStack()
        self.replica_port = None
        try:
            self.primary_port = self._start_primary()
            self._create_bench_database(scale)
            if with_replica:
                self.replica_port = self._start_replica()
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self._stack.close()

    def verifier(self):
        """The SCRAM verifier of the bench role as the primary keeps it."""
        with self._connect_as_superuser(self.primary_port) as connection:
            rows = connection.query(f"SELECT rolpassword FROM pg_authid WHERE rolname = '{USER}'")
        return rows[0][0]

    def _start_primary(self):
        data = self._directory / "primary"
        password_file = self._directory / "superuser-password"
        password_file.write_text(PASSWORD)
        give_to(password_file, self._account)
        self._tool(
            "initdb", "--no-sync", "--pgdata", data, "--username", SUPERUSER, "--pwfile", password_file,
            "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C",
        )  # fmt: skip
        return self._start_server("primary", data)

    def _start_replica(self):
        data = self._directory / "replica"
        source = f"host=127.0.0.1 port={self.primary_port} user={SUPERUSER} password={PASSWORD}"
        self._tool(
            "pg_basebackup", "--no-sync", "--pgdata", data, "--dbname", source, "--write-recovery-conf",
            "--wal-method", "stream", "--checkpoint", "fast",
        )  # fmt: skip
        return self._start_server("replica", data)

    def _start_server(self, name, data):
        port = free_port()
        command = [self.bin_directory / "postgres", "-D", data, "-c", f"port={port}"]
        for key, value in SETTINGS.items():
            command += ["-c", f"{key}={value.strip(chr(39))}"]
        server = Process(name, command, self._directory / f"{name}.log", signal.SIGINT, **self._account.popen_options())
        self._stack.callback(server.stop)
        wait_until_ready(server, lambda: self._connect_as_superuser(port))
        return port

    def _create_bench_database(self, scale):
        with self._connect_as_superuser(self.primary_port) as connection:
            connection.query(f"CREATE ROLE {USER} LOGIN PASSWORD '{PASSWORD}' IN ROLE pg_monitor")
            connection.query(f"CREATE DATABASE {DATABASE} OWNER {USER}")
        self._tool(
            "pgbench", "--initialize", "--quiet", "--scale", scale, "--host", "127.0.0.1",
            "--port", self.primary_port, "--username", USER, DATABASE,
        )  # fmt: skip

    def _connect_as_superuser(self, port):
        return client.Client(port, SUPERUSER, PASSWORD, "postgres")

    def _tool(self, name, *arguments):
        command = [str(part) for part in (self.bin_directory / name, *arguments)]
        environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable"}
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=300, **self._account.popen_options()
        )
        if done.returncode != 0:
            raise BenchError(f"{name} failed:\n{done.stderr.strip()}")


class Account:
    """The operating-system account for servers that refuse to run as root."""

    def __init__(self, entry):
        self.entry = entry

    def popen_options(self):
        if self.entry is None:
            return {}
        return {"user": self.entry.pw_uid, "group": self.entry.pw_gid, "extra_groups": [], "cwd": "/"}


def service_account():
    """`postgres` or `nobody` when we are root, otherwise ourselves."""
    if os.geteuid() != 0:
        return Account(None)
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return Account(pwd.getpwnam(name))
    raise BenchError("run as root, but there is no account postgres or nobody for the servers")


def give_to(path, account):
    if account.entry is not None:
        os.chown(path, account.entry.pw_uid, account.entry.pw_gid)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_ready(process, connect, timeout_seconds=30.0):
    """Returns once a login and a query succeed. There is no event to await: the port must be tried."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        process.check()
        try:
            with connect() as connection:
                connection.query("SELECT 1")
            return
        except (client.ServerError, OSError) as error:
            if time.monotonic() > deadline:
                raise BenchError(f"{process.name} is not ready: {error}\n{process.log_tail()}") from error
            time.sleep(0.05)


def find_bin_directory(wanted):
    """The directory with initdb and postgres: as told, else the newest that Debian installed, else PATH."""
    candidates = [pathlib.Path(wanted)] if wanted else debian_directories()
    on_path = shutil.which("initdb")
    if on_path and not wanted:
        candidates.append(pathlib.Path(on_path).resolve().parent)
    for candidate in candidates:
        if all((candidate / tool).exists() for tool in ("initdb", "postgres", "pgbench", "pg_basebackup")):
            return candidate
    raise BenchError("no PostgreSQL server binaries found; name their directory with --pg-bin")


def debian_directories():
    root = pathlib.Path("/usr/lib/postgresql")
    versions = [path for path in root.glob("*/bin") if path.parent.name.isdigit()]
    return sorted(versions, key=lambda path: int(path.parent.name), reverse=True)
