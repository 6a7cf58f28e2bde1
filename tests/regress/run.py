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
import subprocess
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from cluster import DEBUG_BUILD, ROOT, Cluster, clean_environment, pg_config  # noqa: E402

WORK = ROOT / "target" / "regress"
PASSWORD = "regress"
TEST_TIMEOUT_SECONDS = 120
# As pg_regress does for its temporary instance.
SETTINGS = "max_prepared_transactions = 2\n"
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
    parser.add_argument("--consistency", default="session", choices=["strong", "session"])
    parser.add_argument("--twice", action="store_true", help="a second direct run tells what differs by itself")
    parser.add_argument("--only", choices=["direct", "proxy", "again"],
                        help="run this side only and compare with the others' last outputs")
    parser.add_argument("--suite", default=WORK / "suite", help="src/test/regress of PostgreSQL's source")
    parser.add_argument("--causeway", default=DEBUG_BUILD, type=pathlib.Path)
    parser.add_argument("--out", default=None, type=pathlib.Path, help="where outputs and diffs go")
    parser.add_argument("--shared", action="store_true",
                        help="share one server per node with clients that have other settings and that use it "
                        "between any two statements, so that whatever the session has must be set again")
    arguments = parser.parse_args()
    kind = "-shared" if arguments.shared else ""
    arguments.out = arguments.out or WORK / f"out-{arguments.replicas}-{arguments.consistency}{kind}"
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
        try:
            with Cluster(PASSWORD, SETTINGS) as cluster:
                try:
                    self.run_in(cluster)
                finally:
                    cluster.keep_logs(self.results)
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            self.failure = error

    def run_in(self, cluster):
        scratch = cluster.scratch
        environment = self.prepare(scratch)
        port = cluster.start_primary()
        create_database(cluster)
        if self.side == "proxy":
            for _ in range(self.arguments.replicas):
                cluster.add_replica()
            shared = ["--pool-size", 1] if self.arguments.shared else []
            port = cluster.start_causeway("--consistency", self.arguments.consistency, *shared,
                                          program=self.arguments.causeway)
        environment |= {"PGPORT": str(port)}
        with contextlib.ExitStack() as neighbours:
            if self.side == "proxy" and self.arguments.shared:
                for _ in range(2):
                    neighbours.enter_context(Neighbour(environment))
            for test in self.tests:
                self.one_test(test, scratch, environment)
                if cluster.has_lost_one():
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


def create_database(cluster):
    cluster.run_sql("postgres", "CREATE DATABASE regression TEMPLATE = template0",
                    *(f"ALTER DATABASE regression SET {name} TO '{value}'"
                      for name, value in DATABASE_SETTINGS.items()))


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
