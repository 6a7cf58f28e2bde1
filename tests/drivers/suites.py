"""The suites: where each comes from, in which version, what it wants to find, how it runs, how it tells.

All are fetched from the package registries by name, below target/drivers. A suite's `run` gives the
outcome of each test (passed, failed, skipped) by its name, with the reason of a failure.
"""

import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
import xml.etree.ElementTree

from cluster import ROOT, USER, Cluster

HERE = pathlib.Path(__file__).resolve().parent
WORK = ROOT / "target" / "drivers"
PYTHON = WORK / "venv" / "bin" / "python"
# Debian's place for the driver, which is no part of Java.
JDBC = pathlib.Path("/usr/share/java/postgresql.jar")
PASSWORD = "drivers"
SUITE_TIMEOUT_SECONDS = 3600
TEST_TIMEOUT_SECONDS = 120


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """Where a suite connects, and an environment in which nothing else points elsewhere."""

    port: int
    environment: dict
    # The directory of the primary's Unix socket.
    sockets: pathlib.Path

    def url(self, database, scheme="postgresql"):
        return f"{scheme}://{USER}:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    def libpq(self, database):
        return self.environment | {"PGHOST": "127.0.0.1", "PGPORT": str(self.port), "PGUSER": USER,
                                   "PGPASSWORD": PASSWORD, "PGDATABASE": database}


class Suite:
    """What the suites have in common: nothing to lay out, one user."""

    name = None
    layout = {}
    users = {USER: PASSWORD}
    # More for postgresql.conf and pg_hba.conf; certificate and key of who is connected to.
    settings, hba, tls = "", (), None

    def prepare(self):
        prepare_python()


class Asyncpg(Suite):
    """The tests stand in the sdist; the driver itself is the wheel of the same version."""

    name = "asyncpg"

    def prepare(self):
        super().prepare()
        source = fetch_sdist("asyncpg", pinned("asyncpg"))
        # Away from the sdist's own package, which is not compiled.
        self.directory = WORK / "asyncpg-tests"
        shutil.copytree(source / "tests", self.directory / "tests", dirs_exist_ok=True)

    def run(self, endpoint, results):
        return pytest(["--import-mode=importlib", "tests", "--deselect", "tests/test__sourcecode.py"],
                      self.directory, endpoint.libpq("postgres"), results)


class Psycopg2(Suite):
    """The predecessor of psycopg 3, and by the same authors. Its sdist has its tests; psycopg 3's has not."""

    name = "psycopg2"
    layout = {"postgres": ["CREATE DATABASE psycopg2_test"], "psycopg2_test": ["CREATE EXTENSION hstore"]}

    def prepare(self):
        super().prepare()
        source = fetch_sdist("psycopg2", pinned("psycopg2-binary"))
        self.directory = WORK / "psycopg2-tests"
        shutil.copytree(source / "tests", self.directory / "tests", dirs_exist_ok=True)

    def run(self, endpoint, results):
        environment = endpoint.libpq("psycopg2_test") | {"PSYCOPG2_TEST_REPL_DSN": ""}
        return pytest(["tests"], self.directory, environment, results)


class Psycopg3(Suite):
    """psycopg 3's own tests, which are in no registry: out of the tree of its sources that PSYCOPG_SOURCE names."""

    name = "psycopg3"
    source = os.environ.get("PSYCOPG_SOURCE")
    others = ["pytest==7.4.4", "pytest-timeout==2.4.0", "anyio==3.7.1", "pproxy==2.7.9", "dnspython==2.6.1"]

    def prepare(self):
        tree = pathlib.Path(self.source)
        told = (tree / "psycopg" / "psycopg" / "version.py").read_text()
        version = re.search(r'^__version__ = "(.*)"', told, re.M)[1]
        self.directory = WORK / f"psycopg3-{version}"
        shutil.copytree(tree / "tests", self.directory / "tests", dirs_exist_ok=True)
        shutil.copy(tree / "pyproject.toml", self.directory)
        self.python = self.directory / "venv" / "bin" / "python"
        if not self.python.exists():
            subprocess.run([sys.executable, "-m", "venv", self.directory / "venv"], check=True)
        # The pool of a tree may lie between two releases.
        subprocess.run([self.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                        f"psycopg[binary]=={version}", tree / "psycopg_pool", *self.others], check=True)

    def run(self, endpoint, results):
        dsn = f"host=127.0.0.1 port={endpoint.port} user={USER} password={PASSWORD} dbname=postgres"
        # Those of types want a compiler of types, those of crdb another database; the slow look for leaks of memory.
        return pytest(["tests", "--test-dsn", dsn, "--ignore=tests/crdb", "-k", "not mypy", "-m", "not timing and not slow"],
                      self.directory, endpoint.environment, results, self.python)


class Sqlalchemy(Suite):
    """Its PostgreSQL dialect and the suite for dialects over one driver, and whatever more is named."""

    version = "2.1.9"
    parts = ["test/dialect/postgresql", "test/dialect/test_suite.py"]
    layout = {"postgres": ["CREATE DATABASE test"],
              "test": ["CREATE SCHEMA test_schema", "CREATE SCHEMA test_schema_2",
                       "CREATE EXTENSION hstore", "CREATE EXTENSION citext"]}

    def __init__(self, driver, *more):
        self.driver, self.name, self.more = driver, f"sqlalchemy-{driver}", more

    def prepare(self):
        super().prepare()
        self.directory = fetch_sdist("SQLAlchemy", self.version)

    def run(self, endpoint, results):
        arguments = ["--maxfail", 100000, "--dburi", endpoint.url("test", f"postgresql+{self.driver}"),
                     *self.parts, *self.more]
        return pytest(arguments, self.directory, endpoint.environment, results)


class Django(Suite):
    """Those of its tests that are about the database, over psycopg 3."""

    name = "django"
    version = "5.2.19"
    parts = """
        aggregation annotations async backends bulk_create constraints delete distinct_on_fields expressions
        get_or_create indexes inspectdb introspection lookup model_fields postgres_tests queries raw_query schema
        select_for_update transaction_hooks transactions update
    """.split()

    def prepare(self):
        super().prepare()
        self.directory = fetch_sdist("Django", self.version)

    def run(self, endpoint, results):
        told = results / "told.tsv"
        environment = endpoint.environment | {
            "PYTHONPATH": os.pathsep.join(map(str, (self.directory, HERE / "django"))),
            "CAUSEWAY_TEST_PORT": str(endpoint.port), "CAUSEWAY_TEST_PASSWORD": PASSWORD,
            "CAUSEWAY_TEST_OUTCOMES": str(told)}
        run_logged([PYTHON, "-W", "ignore", "runtests.py", "--settings=settings", "--parallel=1", "--noinput",
                    *self.parts], self.directory / "tests", environment, results)
        return read_told(told)


class TokioPostgres(Suite):
    """The tests stand in the crate, with the address written into them."""

    name = "tokio-postgres"
    version = "0.7.18"
    roles = {f"{method}_user": "password" for method in ("pass", "md5", "scram")}
    users = {USER: PASSWORD} | roles
    # A user for each way to prove it. Causeway asks all of its clients for SCRAM.
    hba = [f"host all {method}_user 127.0.0.1/32 {rule}"
           for method, rule in (("pass", "password"), ("md5", "md5"), ("scram", "scram-sha-256"))]
    layout = {"postgres": ["CREATE EXTENSION hstore", "CREATE EXTENSION citext", "CREATE EXTENSION ltree",
                           "CREATE ROLE pass_user LOGIN PASSWORD 'password'; "
                           "CREATE ROLE scram_user LOGIN PASSWORD 'password'",
                           # Last: it is one session, and all behind it have MD5.
                           "SET password_encryption = md5; CREATE ROLE md5_user LOGIN PASSWORD 'password'"]}

    def prepare(self):
        self.directory = fetch_crate("tokio-postgres", self.version)

    def run(self, endpoint, results):
        copy = WORK / "tokio-postgres-tests"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.directory, copy)
        for file in (copy / "tests").rglob("*.rs"):
            text = file.read_text().replace("5433", str(endpoint.port))
            file.write_text(text.replace("user=postgres", f"user={USER} password={PASSWORD}"))
        features = re.findall(r"^(with-\S+|array-impls) =", (copy / "Cargo.toml").read_text(), re.M)
        run_logged(["cargo", "test", "--test", "test", "--features", ",".join(features), "--target-dir",
                    WORK / "tokio-postgres-target", "--", "--test-threads=4"], copy, endpoint.environment, results)
        lines = (results / "output.txt").read_text(errors="replace")
        words = {"ok": "passed", "FAILED": "failed", "ignored": "skipped"}
        whys = dict(re.findall(r"^thread '(\S+)' .*panicked at .*\n(.*)", lines, re.M))
        return {test: (words[word], one_line(whys.get(test, "")) if word == "FAILED" else "")
                for test, word in re.findall(r"^test (\S+) \.\.\. (ok|FAILED|ignored)", lines, re.M)}


class Go(Suite):
    """Packages of the distribution, which come with their tests; without modules, since those have no registry here."""

    debian = None
    packages = ()
    place = pathlib.Path("/usr/share/gocode")

    def prepare(self):
        if not (shutil.which("go") and (self.place / "src" / self.packages[0]).is_dir()):
            raise RuntimeError(f"golang-go and {self.debian} are wanted")

    def run(self, endpoint, results):
        told = results / "output.txt"
        # One package after the other: they make and drop the same tables.
        run_logged(["go", "test", "-json", "-count=1", "-p=1", f"-timeout={SUITE_TIMEOUT_SECONDS // 4}s", *self.packages],
                   WORK, go_environment(endpoint.environment) | self.environment(endpoint), results)
        outcomes, said = {}, {}
        for line in told.read_text().splitlines():
            # The compiler speaks plainly.
            event = json.loads(line) if line.startswith("{") else {}
            package = event.get("Package", "").removeprefix("github.com/")
            test = one_line(f"{package}: {event.get('Test', '(all)')}")
            if event.get("Action") == "output":
                said[test] = said.get(test, "") + event["Output"]
            elif event.get("Action") == "fail":
                outcomes[test] = ("failed", one_line(said.get(test, "")))
            elif "Test" in event and event["Action"] in ("pass", "skip"):
                outcomes[test] = ({"pass": "passed", "skip": "skipped"}[event["Action"]], "")
        # A package fails with each of its tests. That is told once, unless it has ended before them.
        return {test: outcome for test, outcome in outcomes.items()
                if not test.endswith(": (all)") or ended_early(said[test])}


class Pgx(Go):
    """The driver, its pool, its face for database/sql, and pgconn, over which they work."""

    name = "pgx"
    debian = "golang-github-jackc-pgx-v4-dev"
    packages = [f"github.com/jackc/{package}"
                for package in ("pgx/v4", "pgx/v4/pgxpool", "pgx/v4/stdlib", "pgconn", "pgconn/stmtcache")]
    layout = {"postgres": ["CREATE EXTENSION hstore", "CREATE DOMAIN uint64 AS numeric(20, 0)"]}

    def environment(self, endpoint):
        url = endpoint.url("postgres")
        # The one for a pooler has settings of its own, which PostgreSQL has to bear as well.
        return {f"PGX_TEST_{name}": url
                for name in ("DATABASE", "CONN_STRING", "TCP_CONN_STRING", "PGBOUNCER_CONN_STRING")}


class LibPq(Go):
    """The other driver for Go: database/sql alone, and notifications."""

    name = "lib-pq"
    debian = "golang-github-lib-pq-dev"
    packages = ["github.com/lib/pq", "github.com/lib/pq/hstore"]

    def environment(self, endpoint):
        return endpoint.libpq("postgres") | {"PGSSLMODE": "disable"}


class NodePostgres(Suite):
    """The tests of its packages, from the last versions that were published with them, over the packages of today."""

    name = "node-postgres"
    # Each stands beside a module through which its tests find what they test.
    parts = {"pg-pool": "2.0.10", "pg-cursor": "2.12.0", "pg-query-stream": "3.2.3"}
    # Its tests call it as it was then; each file is one test.
    version = "4.5.7"
    modules = ["client", "connection", "connection-parameters", "defaults", "query", "utils"]

    def prepare(self):
        prepare_node()
        for package, version in self.parts.items():
            directory = unpack_npm(package, version)
            (directory / "index.js").write_text(f"module.exports = require('{package}')\n")
        self.directory = unpack_npm("pg", self.version)
        for module in self.modules:
            (self.directory / "lib" / f"{module}.js").write_text(f"module.exports = require('pg/lib/{module}')\n")
        shutil.copy(HERE / "node" / "pg.cjs", self.directory / "lib" / "index.js")

    def run(self, endpoint, results):
        environment = endpoint.libpq("postgres")
        outcomes = {}
        for package, version in self.parts.items():
            outcomes |= self.mocha(package, version, environment, results)
        url = endpoint.url("postgres", "postgres")
        run_logged(["node", "script/create-test-tables.js", url], self.directory, environment, results)
        for file in sorted((self.directory / "test" / "integration").glob("*/*-tests.js")):
            # Those want a host of their own, or a log-in by no password or MD5.
            if file.name.startswith("heroku-") or file.parent.name == "connection":
                continue
            test = str(file.relative_to(self.directory))
            log = results / f"{file.parent.name}-{file.stem}.txt"
            with open(log, "wb") as output:
                try:
                    status = subprocess.run(["node", test, url], cwd=self.directory, env=environment,
                                            stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                            timeout=TEST_TIMEOUT_SECONDS / 4).returncode
                except subprocess.TimeoutExpired:
                    status = "no end"
            outcomes[f"pg: {test}"] = ("passed", "") if status == 0 else ("failed", failure_of(log.read_text(), status))
        return outcomes

    def mocha(self, package, version, environment, results):
        told = results / f"{package}.json"
        directory = NODE_SUITES / f"{package}-{version}"
        run_logged([WORK / "node" / "node_modules" / ".bin" / "mocha", "--exit", "--timeout", 10000, "--reporter", "json",
                    "--reporter-option", f"output={told}",
                    # The one ends Node at any warning, the other needs a package that is in no registry.
                    "--ignore", "test/setup.js", "--ignore", "test/pauses.js", "test/*.js"], directory, environment, results)
        outcomes = {}
        report = json.loads(told.read_text())
        for word, kind in (("passed", "passes"), ("skipped", "pending"), ("failed", "failures")):
            for test in report[kind]:
                why = one_line(test["err"].get("message", "")) if word == "failed" else ""
                outcomes[one_line(f"{package}: {test['fullTitle']}")] = (word, why)
        return outcomes


class PostgresJs(Suite):
    """postgres.js's own tests, which are in no registry: out of the tree of its sources that POSTGRES_JS_SOURCE names,
    over the package of today. Its runner ends at the first failure; `node/postgres_js` stands in its place."""

    name = "postgres.js"
    source = os.environ.get("POSTGRES_JS_SOURCE")
    users = {USER: PASSWORD, "postgres_js_test": PASSWORD, "postgres_js_test_md5": "postgres_js_test_md5",
             "postgres_js_test_scram": "postgres_js_test_scram"}
    settings = "wal_level = logical\nunix_socket_directories = '.'\n"
    hba = ["local all postgres_js_test trust", "host all postgres_js_test 127.0.0.1/32 trust",
           "host all postgres_js_test_md5 127.0.0.1/32 md5"]
    layout = {"postgres": ["CREATE ROLE postgres_js_test LOGIN",
                           "CREATE ROLE postgres_js_test_scram LOGIN PASSWORD 'postgres_js_test_scram'",
                           "SET password_encryption = md5; "
                           "CREATE ROLE postgres_js_test_md5 LOGIN PASSWORD 'postgres_js_test_md5'",
                           "CREATE DATABASE postgres_js_test OWNER postgres_js_test"]}

    def prepare(self):
        prepare_node()
        self.directory = WORK / "postgres-js-tests"
        shutil.rmtree(self.directory, ignore_errors=True)
        shutil.copytree(WORK / "node" / "node_modules" / "postgres", self.directory)
        self.tls = self_signed(self.directory)

    def run(self, endpoint, results):
        tests = self.directory / "tests"
        shutil.copytree(pathlib.Path(self.source) / "tests", tests, dirs_exist_ok=True)
        shutil.copytree(HERE / "node" / "postgres_js", tests, dirs_exist_ok=True)
        told = results / "told.tsv"
        environment = endpoint.libpq("postgres") | {"PGSOCKET": str(endpoint.sockets), "TOLD": str(told)}
        # They want another server beside, to go there when a connection to the first has ended.
        with Cluster(PASSWORD, auth="scram-sha-256") as other:
            ports = {"5432": endpoint.port, "5433": other.start_primary()}
            text = (tests / "index.js").read_text()
            (tests / "index.js").write_text(re.sub("|".join(ports), lambda found: str(ports[found[0]]), text))
            run_logged(["node", "index.js"], tests, environment, results)
        return read_told(told)


def self_signed(directory):
    """The paths of a certificate for 127.0.0.1 and of its key."""
    certificate, key = directory / "server.crt", directory / "server.key"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "30",
                    "-out", certificate, "-keyout", key], check=True, stderr=subprocess.DEVNULL)
    return certificate, key


def failure_of(log, status):
    errors = re.findall(r"^.*Error.*$", log, re.M)
    return one_line(errors[0] if errors else f"ended with {status}: {log[-200:]}")


class OwnCases(Suite):
    """Our own cases for a driver, whose own tests may be published nowhere."""

    def __init__(self, driver, program):
        self.driver, self.program, self.kind = driver, program, pathlib.Path(program).suffix
        self.name = f"own-{driver}"

    def prepare(self):
        match self.kind:
            case ".py":
                prepare_python()
            case ".mjs":
                prepare_node()
            case ".java" if not JDBC.exists():
                raise RuntimeError(f"{JDBC} is wanted (libpostgresql-jdbc-java)")

    def run(self, endpoint, results):
        return self.run_at(endpoint.url("postgres"), results, endpoint.environment)

    def run_at(self, url, results, environment=None):
        program = HERE / "own" / self.program
        match self.kind:
            case ".py":
                command = [PYTHON, "-B", program, url]
            case ".mjs":
                # Node looks for packages beside the script, so the scripts are copied to where the packages are.
                for script in program.parent.glob("*.mjs"):
                    shutil.copy(script, WORK / "node")
                command = ["node", WORK / "node" / self.program, url]
            case ".java":
                command = ["java", "-cp", JDBC, program, url]
        status = run_logged(command, WORK, environment, results)
        lines = [line.split("\t") for line in (results / "output.txt").read_text().splitlines()]
        words = {"pass": "passed", "FAIL": "failed"}
        outcomes = {line[1]: (words[line[2]], "\t".join(line[3:]).replace("\t", " "))
                    for line in lines if len(line) > 2 and line[2] in words}
        # A driver that ends before its last case has not reported it.
        if status != 0 and all(outcome == "passed" for outcome, _ in outcomes.values()):
            outcomes["(all)"] = ("failed", f"ended early; see {results / 'output.txt'}")
        return outcomes


OWN = {"psycopg": "psycopg3.py", "psycopg-features": "psycopg3_features.py", "asyncpg": "asyncpg_driver.py",
       "node-postgres": "node_postgres.mjs", "postgres.js": "postgres_js.mjs"}
# A language that is not here is left out.
if shutil.which("javac"):
    OWN["jdbc"] = "Jdbc.java"


def own_cases(drivers=()):
    unknown = set(drivers) - OWN.keys()
    if unknown:
        sys.exit(f"drivers: no driver is called {', '.join(unknown)}; there are {', '.join(OWN)}")
    return [OwnCases(driver, OWN[driver]) for driver in drivers or OWN]


SUITES = [*own_cases(), NodePostgres(), Asyncpg(), Psycopg2(), TokioPostgres(), Pgx(), LibPq(),
          Sqlalchemy("psycopg", "test/engine"),
          # Six kinds of ranges are 1,228 tests each, and were all seen with psycopg.
          Sqlalchemy("asyncpg", "-k", "not RangeRoundTripTest or Int4RangeRoundTripTest"), Django()]
SUITES += [suite() for suite in (Psycopg3, PostgresJs) if suite.source]
NODE_PACKAGES = ["pg@8.23.1", "pg-pool@3.14.0", "pg-cursor@2.22.0", "pg-query-stream@4.17.0", "pg-copy-streams@7.0.0",
                 "postgres@3.4.9",
                 # What the snippets of docs/consistency.md use.
                 "express@5.3.0", "cookie-parser@1.4.7",
                 # What the tests of node-postgres use.
                 "mocha@10.8.2", "expect.js@0.3.1", "lodash@4.17.21", "co@4.6.0", "bluebird@3.7.2", "semver@7.7.3",
                 "async@0.9.0", "JSONStream@0.7.4", "concat-stream@1.0.1", "stream-spec@0.3.6", "through@2.3.8"]
NODE_SUITES = WORK / "node" / "suites"


def prepare_python():
    wanted, installed = HERE / "requirements.txt", WORK / "venv" / "installed"
    if installed.exists() and installed.read_text() == wanted.read_text():
        return
    if sys.version_info < (3, 11):
        sys.exit("drivers: python 3.11 or newer is needed")
    subprocess.run([sys.executable, "-m", "venv", WORK / "venv"], check=True)
    subprocess.run([PYTHON, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", wanted], check=True)
    shutil.copy(wanted, installed)


def prepare_node():
    installed = WORK / "node" / "installed"
    if installed.exists() and installed.read_text() == " ".join(NODE_PACKAGES):
        return
    installed.parent.mkdir(parents=True, exist_ok=True)
    (WORK / "node" / "package.json").write_text('{ "private": true }\n')
    subprocess.run(["npm", "install", "--prefix", WORK / "node", "--no-save", "--no-audit", "--no-fund",
                    "--loglevel", "error", *NODE_PACKAGES], check=True, stdout=sys.stderr)
    installed.write_text(" ".join(NODE_PACKAGES))


def unpack_npm(package, version):
    """The tests of a package, where they find today's; fetched once."""
    directory = NODE_SUITES / f"{package}-{version}"
    if not directory.exists():
        archive = NODE_SUITES / f"{package}-{version}.tgz"
        NODE_SUITES.mkdir(exist_ok=True)
        subprocess.run(["npm", "pack", "--silent", f"{package}@{version}"], cwd=NODE_SUITES, check=True,
                       stdout=subprocess.DEVNULL)
        with tarfile.open(archive) as packed:
            members = [member for member in packed.getmembers() if member.name.startswith(("package/test/", "package/script/"))]
            packed.extractall(directory.with_suffix(".new"), members, filter="data")
        (directory.with_suffix(".new") / "package" / "lib").mkdir()
        (directory.with_suffix(".new") / "package").rename(directory)
        directory.with_suffix(".new").rmdir()
    return directory


def go_environment(environment):
    """Packages from the distribution's place only. No password: pgx tests what it takes from the environment."""
    return {name: value for name, value in environment.items() if name != "PGPASSWORD"} | {
        "GO111MODULE": "off", "GOPATH": str(Go.place), "GOCACHE": str(WORK / "go-cache")}


def ended_early(said):
    """Whether a package of Go could not be built, or was ended by one of its tests."""
    return any(word in said for word in ("[build failed]", "[setup failed]", "panic: ", "signal: "))


def pinned(package):
    return re.search(rf"^{package}==(\S+)$", (HERE / "requirements.txt").read_text(), re.M)[1]


def fetch_sdist(package, version):
    """The unpacked source distribution; fetched once."""
    archives = WORK / "sdists"
    directory = archives / f"{package.lower()}-{version}"
    if not directory.exists():
        subprocess.run([PYTHON, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps",
                        "--no-binary", package, "--dest", archives, f"{package}=={version}"], check=True)
        with tarfile.open(f"{directory}.tar.gz") as archive:
            archive.extractall(archives, filter="data")
    return directory


def fetch_crate(crate, version):
    """The unpacked crate, where cargo keeps it."""
    package = WORK / f"fetch-{crate}"
    (package / "src").mkdir(parents=True, exist_ok=True)
    (package / "src" / "lib.rs").write_text("")
    (package / "Cargo.toml").write_text('[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n'
                                        f'[dependencies]\n{crate} = "={version}"\n[workspace]\n')
    told = subprocess.run(["cargo", "metadata", "--format-version=1", "--quiet"], cwd=package, check=True,
                          capture_output=True, text=True).stdout
    manifest = next(found["manifest_path"] for found in json.loads(told)["packages"] if found["name"] == crate)
    return pathlib.Path(manifest).parent


def pytest(arguments, directory, environment, results, python=PYTHON):
    report = results / "junit.xml"
    status = run_logged([python, "-m", "pytest", "-q", "-o", f"cache_dir={results / 'cache'}", f"--junitxml={report}",
                         f"--timeout={TEST_TIMEOUT_SECONDS}", *arguments], directory, environment, results)
    # Other ends than these two, "all passed" and "some failed", leave tests out.
    if status not in (0, 1):
        raise RuntimeError(f"pytest ended with {status}; see {results / 'output.txt'}")
    outcomes = {}
    for case in xml.etree.ElementTree.parse(report).iter("testcase"):
        test = f"{case.get('classname')}.{case.get('name')}".replace("\t", " ").replace("\n", " ")
        found = {child.tag: child for child in case}
        bad = found.get("failure", found.get("error"))
        if bad is not None:
            outcomes[test] = ("failed", one_line(bad.get("message", "") or (bad.text or "").strip()[-300:]))
        elif test not in outcomes:
            outcomes[test] = ("skipped", "") if "skipped" in found else ("passed", "")
    return outcomes


def read_told(file):
    lines = (line.split("\t") for line in file.read_text().splitlines())
    outcomes = {}
    for test, outcome, why in lines:
        # A subtest that fails is told before its test, which then counts as passed.
        if outcomes.get(test, ("",))[0] != "failed":
            outcomes[test] = (outcome, why)
    return outcomes


def run_logged(command, directory, environment, results):
    with open(results / "output.txt", "wb") as output:
        return subprocess.run(list(map(str, command)), cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                              stdout=output, stderr=subprocess.STDOUT, timeout=SUITE_TIMEOUT_SECONDS).returncode


def one_line(text):
    return " ".join(text.split())[:300]
