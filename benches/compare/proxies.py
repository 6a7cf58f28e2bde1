"""What is compared: PgBouncer, Causeway, and for orientation no proxy at all.

Each has `name`, `pid` (None without a proxy), `port`, `database(mode)` and `stop()`.
"""

import pathlib
import shutil

import client
from cluster import DATABASE, PASSWORD, USER, BenchError, Process, free_port, give_to, service_account, wait_until_ready

SESSION_DATABASE = f"{DATABASE}_session"
SERVERS_PER_POOL = 20
MAX_CLIENTS = 10_000


class Direct:
    """No proxy: how fast clients and PostgreSQL are by themselves on this machine."""

    pid = None

    def __init__(self, name, cluster):
        self.name = name
        self.port = cluster.primary_port

    def database(self, _mode):
        return DATABASE

    def check(self):
        pass

    def stop(self):
        pass


class PgBouncer:
    """Debian's PgBouncer in transaction mode, in front of the primary only.

    Version 1.18 cannot run prepared statements in transaction mode, so that case has a database in
    session mode. The user list holds the SCRAM verifier of the primary: with the plain password this
    version derives a key at every login, twenty times the cost, and the comparison would flatter us.
    """

    def __init__(self, name, cluster, directory):
        self.name = name
        self.port = free_port()
        account = service_account()
        users = directory / f"{name}-users.txt"
        users.write_text(f'"{USER}" "{cluster.verifier()}"\n')
        settings = directory / f"{name}.ini"
        settings.write_text(self._settings(cluster.primary_port, users))
        for path in (users, settings):
            give_to(path, account)
        self._process = Process(
            name, [pgbouncer_program(), settings], directory / f"{name}.log", **account.popen_options()
        )
        self._wait()

    @property
    def pid(self):
        return self._process.pid

    def database(self, mode):
        return SESSION_DATABASE if mode == "prepared" else DATABASE

    def check(self):
        self._process.check()

    def stop(self):
        self._process.stop()

    def _wait(self):
        try:
            wait_until_ready(self._process, lambda: client.Client(self.port, USER, PASSWORD, DATABASE))
        except BaseException:
            self.stop()
            raise

    def _settings(self, primary_port, users):
        server = f"host=127.0.0.1 port={primary_port} dbname={DATABASE}"
        return "\n".join(
            [
                "[databases]",
                f"{DATABASE} = {server} pool_size={SERVERS_PER_POOL}",
                f"{SESSION_DATABASE} = {server} pool_mode=session pool_size=100",
                "[pgbouncer]",
                "listen_addr = 127.0.0.1",
                f"listen_port = {self.port}",
                "unix_socket_dir =",
                "auth_type = scram-sha-256",
                f"auth_file = {users}",
                "pool_mode = transaction",
                f"max_client_conn = {MAX_CLIENTS}",
                "log_connections = 0",
                "log_disconnections = 0",
                "ignore_startup_parameters = extra_float_digits",
                "",
            ]
        )


def pgbouncer_program():
    program = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise BenchError("pgbouncer is not installed (Debian package pgbouncer)")
    return program


class Causeway:
    """The release binary with flags only. With a replica, reads and writes are split."""

    def __init__(self, name, cluster, directory, program):
        if not pathlib.Path(program).exists():
            raise BenchError(f"{program} does not exist; build it with `cargo build --release`")
        self.name = name
        self.port = free_port()
        command = [program, "serve", "--primary", self._url(cluster.primary_port)]
        if cluster.replica_port is not None:
            command += ["--replica", self._url(cluster.replica_port)]
        command += ["--listen", f"127.0.0.1:{self.port}", "--admin", "off"]
        self._process = Process(name, command, directory / f"{name}.log")
        try:
            wait_until_ready(self._process, lambda: client.Client(self.port, USER, PASSWORD, DATABASE))
        except BaseException:
            self.stop()
            raise

    @property
    def pid(self):
        return self._process.pid

    def database(self, _mode):
        return DATABASE

    def check(self):
        self._process.check()

    def stop(self):
        self._process.stop()

    @staticmethod
    def _url(port):
        return f"postgres://{USER}:{PASSWORD}@127.0.0.1:{port}/{DATABASE}?sslmode=disable"
