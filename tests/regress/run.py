#!/usr/bin/env python3
"""Runs PostgreSQL's own regression suite directly and through Causeway, and compares the two outputs.

Not a check of PostgreSQL: the files in the suite's expected/ are not looked at. A test differs if psql
printed something else through Causeway than it did without. Each side has a fresh cluster of its own
on 127.0.0.1, in a temporary directory; the tests run one after the other in the order of the suite's
schedule, with the environment and the settings that pg_regress would make.

Ends with 0 if every difference is one that two direct runs have as well (only known with --twice),
with 1 if there are others, with 2 if it could not run at all.
"""

import argparse
import contextlib
import difflib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
WORK = ROOT / "target" / "regress"
PASSWORD = "regress"
TEST_TIMEOUT_SECONDS = 120
START_TIMEOUT_SECONDS = 60
# As pg_regress does for its temporary instance, and what makes the runs quick.
SETTINGS = """
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
max_prepared_transactions = 2
fsync = off
full_page_writes = off
"""
DATABASE_SETTINGS = {
    "lc_messages": "C",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    "bytea_output": "hex",
    "timezone_abbreviations": "Default",
}


def main():
    arguments = parse_arguments()
    suite = pathlib.Path(arguments.suite)
    if not (suite / "parallel_schedule").exists():
        sys.exit(f"regress: {suite} is not the directory of the suite; `make regress` fetches it")
    tests = scheduled(suite)
    if arguments.tests:
        tests = [test for test in tests if test in arguments.tests or test == "test_setup"]
    sides = ["direct", "proxy"] + (["again"] if arguments.twice else [])
    if arguments.only:
        sides = [side for side in sides if side == arguments.only]
    runs = {side: Run(side, suite, tests, arguments) for side in sides}
    # The sides have nothing in common, so they run at the same time.
    threads = [threading.Thread(target=run.all_tests) for run in runs.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    failures = [f"{side}: {run.failure}" for side, run in runs.items() if run.failure]
    if failures:
        print("regress: " + "\nregress: ".join(failures), file=sys.stderr)
        return 2
    return report(tests, arguments)


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tests", nargs="*", help="only these tests of the schedule, behind test_setup")
    parser.add_argument("--replicas", type=int, default=0, choices=range(0, 4))
    parser.add_argument("--twice", action="store_true", help="a second direct run tells what differs by itself")
    parser.add_argument("--only", choices=["direct", "proxy", "again"],
                        help="run this side only and compare with the others' last outputs")
    parser.add_argument("--suite", default=WORK / "suite", help="src/test/regress of PostgreSQL's source")
    parser.add_argument("--causeway", default=ROOT / "target" / "debug" / "causeway", type=pathlib.Path)
    parser.add_argument("--out", default=None, type=pathlib.Path, help="where outputs and diffs go")
    parser.add_argument("--shared", action="store_true",
                        help="share one server per node with clients that have other settings and that use it "
                        "between any two statements, so that whatever the session has must be set again")
    arguments = parser.parse_args()
    kind = "-shared" if arguments.shared else ""
    arguments.out = arguments.out or WORK / f"out-{arguments.replicas}{kind}"
    return arguments


def scheduled(suite):
    """The tests in the order of the schedule, those of a parallel group one after the other."""
    names = []
    for line in (suite / "parallel_schedule").read_text().splitlines():
        if line.startswith("test:"):
            names += line.removeprefix("test:").split()
    return names


class Run:
    """One pass over the tests, against a cluster of its own."""

    def __init__(self, side, suite, tests, arguments):
        self.side, self.suite, self.tests, self.arguments = side, suite, tests, arguments
        self.results = arguments.out / side
        self.failure = None

    def all_tests(self):
        shutil.rmtree(self.results, ignore_errors=True)
        self.results.mkdir(parents=True)
        # PostgreSQL does not run as root, and its user cannot look into every directory of ours.
        scratch = pathlib.Path(tempfile.mkdtemp(prefix="causeway-regress-"))
        scratch.chmod(0o755)
        processes = []
        try:
            self.run_in(scratch, processes)
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            self.failure = error
        finally:
            for process in reversed(processes):
                stop(process)
            for log in scratch.glob("*.log"):
                shutil.copy(log, self.results)
            shutil.rmtree(scratch, ignore_errors=True)

    def run_in(self, scratch, processes):
        environment = self.prepare(scratch)
        primary = start_primary(scratch, processes)
        create_database(primary)
        if self.side == "proxy":
            replicas = [start_replica(scratch, primary, number, processes)
                        for number in range(self.arguments.replicas)]
            port = start_causeway(self.arguments, scratch, primary, replicas, processes)
        else:
            port = primary
        environment |= {"PGPORT": str(port)}
        with contextlib.ExitStack() as neighbours:
            if self.side == "proxy" and self.arguments.shared:
                for _ in range(2):
                    neighbours.enter_context(Neighbour(environment))
            for test in self.tests:
                self.one_test(test, scratch, environment)
                if any(process.poll() is not None for process in processes):
                    raise RuntimeError(f"a server ended during {test}; its log is in {self.results}")

    def prepare(self, scratch):
        """Lays out what the tests read and write; gives the environment that pg_regress would make."""
        build = scratch / "build"
        for name in ("results", "testtablespace"):
            (build / name).mkdir(parents=True)
            (build / name).chmod(0o777)
        for name in ("sql", "data", "expected"):
            shutil.copytree(self.suite / name, build / name)
        libraries = pathlib.Path(pg_config("--pkglibdir"))
        for library in (WORK / "regress.so", libraries / "refint.so", libraries / "autoinc.so"):
            shutil.copy(library, build)
        return clean_environment() | {
            "PGHOST": "127.0.0.1",
            "PGUSER": "postgres",
            "PGPASSWORD": PASSWORD,
            "PGAPPNAME": "pg_regress",
            "PGTZ": "America/Los_Angeles",
            "PGDATESTYLE": "Postgres, MDY",
            "PGOPTIONS": "-c intervalstyle=postgres_verbose",
            "PG_ABS_SRCDIR": str(build),
            "PG_ABS_BUILDDIR": str(build),
            "PG_LIBDIR": str(build),
            "PG_DLSUFFIX": ".so",
        }

    def one_test(self, test, scratch, environment):
        build = scratch / "build"
        command = ["psql", "-X", "-a", "-q", "-v", "HIDE_TABLEAM=on", "-v", "HIDE_TOAST_COMPRESSION=on",
                   "-d", "regression"]
        with open(build / "sql" / f"{test}.sql") as script, open(self.results / f"{test}.out", "wb") as output:
            psql = subprocess.Popen(command, stdin=script, stdout=output, stderr=subprocess.STDOUT,
                                    env=environment | {"PGAPPNAME": f"pg_regress/{test}"}, cwd=build)
            try:
                psql.wait(TEST_TIMEOUT_SECONDS)
            except subprocess.TimeoutExpired:
                psql.kill()
                psql.wait()
                output.write(b"\n*** no end within the time that a test has ***\n")
                print(f"{self.side}: {test} does not end", file=sys.stderr, flush=True)
        # Paths differ between the sides, and are nobody's concern.
        written = (self.results / f"{test}.out").read_bytes()
        (self.results / f"{test}.out").write_bytes(written.replace(os.fsencode(scratch), b"SCRATCH"))


class Neighbour:
    """A client with settings of its own that keeps asking, and starts again when a test stops it."""

    def __init__(self, environment):
        self.environment = environment | {
            "PGOPTIONS": "-c work_mem=65kB -c search_path=nowhere -c role=pg_monitor -c statement_timeout=1min",
            "PGDATESTYLE": "German", "PGTZ": "UTC", "PGAPPNAME": "neighbour"}
        self.ended = threading.Event()
        self.thread = threading.Thread(target=self.ask)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def ask(self):
        while not self.ended.is_set():
            psql = subprocess.Popen(["psql", "-X", "-q", "-d", "regression"], stdin=subprocess.PIPE, text=True,
                                    stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=self.environment)
            with contextlib.suppress(BrokenPipeError), psql.stdin as script:
                # It answers for the primary, and takes no transaction number.
                script.write("SELECT pg_is_in_recovery(); SELECT pg_is_in_recovery() \\watch 0.001\n")
                script.flush()
                while psql.poll() is None and not self.ended.wait(0.1):
                    pass
                psql.kill()
            psql.wait()


def start_primary(scratch, processes):
    data = scratch / "primary"
    data.mkdir(mode=0o700)
    give_to_postgres(data)
    subprocess.run(as_postgres(program("initdb"), "-D", data, "-U", "postgres", "--auth=trust", "--no-locale",
                               "--encoding=UTF8", "--no-sync"),
                   check=True, stdout=subprocess.DEVNULL, env=clean_environment(), cwd="/")
    with open(data / "postgresql.conf", "a") as file:
        file.write(SETTINGS)
    return start_postgres(scratch, data, processes)


def start_replica(scratch, primary, number, processes):
    data = scratch / f"replica{number}"
    data.mkdir(mode=0o700)
    give_to_postgres(data)
    subprocess.run(as_postgres(program("pg_basebackup"), "-h", "127.0.0.1", "-p", primary, "-U", "postgres",
                               "-D", data, "-R", "-X", "stream", "-c", "fast", "--no-sync"),
                   check=True, env=clean_environment(), cwd="/")
    return start_postgres(scratch, data, processes)


def start_postgres(scratch, data, processes):
    port = free_port()
    with open(scratch / f"{data.name}.log", "wb") as log:
        processes.append(subprocess.Popen(as_postgres(program("postgres"), "-D", data, "-p", port),
                                          stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                          env=clean_environment(), cwd="/"))
    await_answer(processes[-1], port, "postgres")
    return port


def create_database(port):
    def run(database, *statements):
        commands = [word for statement in statements for word in ("-c", statement)]
        subprocess.run(["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", database,
                        "-v", "ON_ERROR_STOP=1", *commands], check=True, env=clean_environment())

    run("postgres", f"ALTER ROLE postgres PASSWORD '{PASSWORD}'",
        "CREATE DATABASE regression TEMPLATE = template0",
        *(f"ALTER DATABASE regression SET {name} TO '{value}'" for name, value in DATABASE_SETTINGS.items()))


def start_causeway(arguments, scratch, primary, replicas, processes):
    port = free_port()
    command = [arguments.causeway, "serve", "--listen", f"127.0.0.1:{port}", "--admin", "off",
               "--primary", f"postgres://postgres:{PASSWORD}@127.0.0.1:{primary}/postgres"]
    if arguments.shared:
        command += ["--pool-size", 1]
    for replica in replicas:
        command += ["--replica", f"postgres://127.0.0.1:{replica}/postgres"]
    with open(scratch / "causeway.log", "wb") as log:
        processes.append(subprocess.Popen(list(map(str, command)), stdin=subprocess.DEVNULL, stdout=log, stderr=log))
    await_answer(processes[-1], port, "causeway")
    return port


def await_answer(process, port, name):
    """Returns once a query is answered on `port`. There is no event to wait for but an answer."""
    query = ["psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "postgres", "-d", "postgres", "-c", "SELECT"]
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while subprocess.run(query, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                         env=clean_environment() | {"PGPASSWORD": PASSWORD}).returncode != 0:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"{name} does not answer on port {port}")
        time.sleep(0.1)


def stop(process):
    """SIGINT is a fast stop for PostgreSQL and a stop for Causeway. `process` is one that we started."""
    if process.poll() is None:
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


def give_to_postgres(directory):
    if os.geteuid() == 0:
        shutil.chown(directory, "postgres", "postgres")


def clean_environment():
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("PG", "LC_")) and name not in ("LANG", "LANGUAGE")}
    return kept | {"LC_MESSAGES": "C"}


def program(name):
    return f"{pg_config('--bindir')}/{name}"


def pg_config(what):
    return subprocess.run(["pg_config", what], check=True, capture_output=True, text=True).stdout.strip()


def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return taken.getsockname()[1]


def report(tests, arguments):
    """Prints the table, leaves a diff per differing test, and tells the exit status."""
    diffs = arguments.out / "diffs"
    shutil.rmtree(diffs, ignore_errors=True)
    diffs.mkdir(parents=True)
    counts = {"same": 0, "differs": 0, "differs by itself": 0}
    for test in tests:
        outputs = [arguments.out / side / f"{test}.out" for side in ("direct", "proxy", "again")]
        if not all(output.exists() for output in outputs[:2]):
            continue
        direct, proxy = (lines_of(output) for output in outputs[:2])
        changed = difference(direct, proxy)
        verdict = "same"
        if changed:
            (diffs / f"{test}.diff").write_text("".join(changed))
            by_itself = outputs[2].exists() and difference(direct, lines_of(outputs[2]))
            verdict = "differs by itself" if by_itself else "differs"
        counts[verdict] += 1
        number = sum(line[0] in "+-" and not line.startswith(("---", "+++")) for line in changed)
        print(f"{test:<28} {verdict:<18} {number or '':>6}")
    print(f"\n{counts['same']} the same, {counts['differs']} differ, {counts['differs by itself']} differ "
          f"between two direct runs as well; diffs in {diffs}")
    return 1 if counts["differs"] else 0


def lines_of(output):
    return output.read_text(errors="surrogateescape").splitlines(keepends=True)


def difference(direct, proxy):
    return [line.encode(errors="replace").decode() for line in
            difflib.unified_diff(direct, proxy, "direct", "proxy")] if direct != proxy else []


if __name__ == "__main__":
    sys.exit(main())
