"""A PostgreSQL cluster with Causeway in front, for the scripts that run other people's test suites.

On 127.0.0.1, in a temporary directory that goes with it. Not for Causeway's own tests: those have
src/lab, with simulated distance and faults.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
DEBUG_BUILD = ROOT / "target" / "debug" / "causeway"
USER = "postgres"
START_TIMEOUT_SECONDS = 60
# What every suite wants, and what makes the runs quick.
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
fsync = off
full_page_writes = off
"""


class Cluster:
    """A primary, replicas and Causeway, as far as they have been started. Leaving the context ends them all."""

    def __init__(self, password, settings="", auth="trust", hba=(), tls=None):
        """`auth` is how clients prove who they are, unless one of the lines `hba` says otherwise; `tls` is a
        certificate and its key."""
        self.password, self.settings, self.auth, self.hba, self.tls = password, SETTINGS + settings, auth, hba, tls
        self.processes = []
        self.primary, self.replicas = None, []

    def __enter__(self):
        # PostgreSQL does not run as root, and its user cannot look into every directory of ours.
        self.scratch = pathlib.Path(tempfile.mkdtemp(prefix="causeway-suite-"))
        self.scratch.chmod(0o755)
        return self

    def __exit__(self, *_):
        for process in reversed(self.processes):
            stop(process)
        shutil.rmtree(self.scratch, ignore_errors=True)

    def start_primary(self):
        data = self.data_directory("primary")
        secret = self.scratch / "password"
        secret.write_text(self.password)
        subprocess.run(as_postgres(program("initdb"), "-D", data, "-U", USER, f"--auth={self.auth}",
                                   "--pwfile", secret, "--no-locale", "--encoding=UTF8", "--no-sync"),
                       check=True, stdout=subprocess.DEVNULL, env=clean_environment(), cwd="/")
        with open(data / "postgresql.conf", "a") as file:
            file.write(self.settings)
        rules = data / "pg_hba.conf"
        rules.write_text("\n".join([*self.hba, rules.read_text()]))
        if self.tls:
            self.present(data, *self.tls)
        self.primary = self.start_postgres(data)
        return self.primary

    def add_replica(self):
        data = self.data_directory(f"replica{len(self.replicas)}")
        subprocess.run(as_postgres(program("pg_basebackup"), "-h", "127.0.0.1", "-p", self.primary, "-U", USER,
                                   "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync"),
                       check=True, env=self.client_environment(), cwd="/")
        self.replicas.append(self.start_postgres(data))

    def start_causeway(self, *arguments, program=DEBUG_BUILD):
        """Starts Causeway before all nodes, in the regions `primary` and `replica`; `arguments` are more of
        `causeway serve`. Gives its port."""
        port = free_port()
        command = [program, "serve", "--listen", f"127.0.0.1:{port}", "--admin", "off",
                   "--primary", f"postgres://{USER}:{self.password}@127.0.0.1:{self.primary}/postgres?region=primary", *arguments]
        for replica in self.replicas:
            command += ["--replica", f"postgres://127.0.0.1:{replica}/postgres?region=replica"]
        with open(self.scratch / f"causeway-{port}.log", "wb") as log:
            self.processes.append(subprocess.Popen(
                list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=clean_environment()))
        self.await_answer(self.processes[-1], port, "causeway")
        return port

    def run_sql(self, database, *statements, port=None):
        """Runs them one by one on the primary, or at `port`; gives what they answer."""
        commands = [word for statement in statements for word in ("-c", statement)]
        return subprocess.run(["psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(port or self.primary),
                               "-U", USER, "-d", database, "-v", "ON_ERROR_STOP=1", *commands], check=True,
                              stdout=subprocess.PIPE, text=True, env=self.client_environment()).stdout.strip()

    def client_environment(self):
        return clean_environment() | {"PGPASSWORD": self.password}

    def has_lost_one(self):
        return any(process.poll() is not None for process in self.processes)

    def keep_logs(self, directory):
        for log in self.scratch.glob("*.log"):
            shutil.copy(log, directory)

    def present(self, data, certificate, key):
        for name, file in (("server.crt", certificate), ("server.key", key)):
            shutil.copy(file, data / name)
            (data / name).chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(data / name, "postgres", "postgres")
        with open(data / "postgresql.conf", "a") as file:
            file.write("ssl = on\n")

    def data_directory(self, name):
        data = self.scratch / name
        data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            shutil.chown(data, "postgres", "postgres")
        return data

    def start_postgres(self, data):
        port = free_port()
        with open(self.scratch / f"{data.name}.log", "wb") as log:
            self.processes.append(subprocess.Popen(as_postgres(program("postgres"), "-D", data, "-p", port),
                                                   stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                                   env=clean_environment(), cwd="/"))
        self.await_answer(self.processes[-1], port, "postgres")
        return port

    def await_answer(self, process, port, name):
        """Returns once a query is answered on `port`. There is no event to wait for but an answer."""
        query = ["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", USER, "-d", "postgres", "-c", "SELECT"]
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while subprocess.run(query, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                             env=self.client_environment()).returncode != 0:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{name} does not answer on port {port}")
            time.sleep(0.1)


def stop(process):
    """SIGINT is a fast stop for PostgreSQL and a stop for Causeway. `process` is one that we started."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    try:
        process.wait(START_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def as_postgres(*command):
    words = [str(word) for word in command]
    if os.geteuid() != 0:
        return words
    # setpriv becomes the program, so that our signals reach it.
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]


def clean_environment():
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("PG", "LC_", "CAUSEWAY_")) and name not in ("LANG", "LANGUAGE")}
    return kept | {"LC_MESSAGES": "C"}


def program(name):
    return f"{pg_config('--bindir')}/{name}"


def pg_config(what):
    return subprocess.run(["pg_config", what], check=True, capture_output=True, text=True).stdout.strip()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]
