#!/usr/bin/env python3
"""Runs the code of docs/consistency.md, as it stands there, against two Causeways.

Each piece of code below "In a web application" is put into a program of this directory, in place of its line
SNIPPET. The program writes through one Causeway and reads through the other, which prefers a replica whose
replay is paused. Without the token the read must miss what was written, or the test would prove nothing. With it, and
with a token that is refused, it must see it.

Ends with 0 if each piece did so, or could not run because its language is not here; with 1 if not.
"""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.request

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1]), str(HERE.parent)]
from cluster import ROOT, USER, Cluster, free_port  # noqa: E402
from suites import (JDBC, PASSWORD, PYTHON, WORK, Django, Go, Pgx, fetch_sdist, go_environment, prepare_node,  # noqa: E402
                    prepare_python)

DOCUMENT = ROOT / "docs" / "consistency.md"
SECTION = "### In a web application"
# Beside the packages of Node, so that its programs find them.
PLACE = WORK / "node" / "snippets"
START_SECONDS = 60
LIMIT_SECONDS = 300
# What is asked for, and how many of the one row that was written are seen.
WANTED = {"without": 0, "with": 1, "refused": 1}
NO_TOKEN = "c1.made.up"


class Skipped(Exception):
    """What is missing on this machine."""


def main():
    # Whoever stops us stops what we have started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    pieces = code_of(DOCUMENT.read_text())
    if sorted(pieces) != sorted(PROGRAMS):
        sys.exit(f"snippets: {DOCUMENT} has {sorted(pieces)}, and there are programs for {sorted(PROGRAMS)}")
    shutil.rmtree(PLACE, ignore_errors=True)
    results = {"passed": 0, "skipped": 0, "failed": 0}
    with Cluster(PASSWORD, auth="scram-sha-256") as cluster:
        urls = two_causeways(cluster)
        for number, (title, code) in enumerate(pieces.items()):
            try:
                said = PROGRAMS[title](code, *urls, f"visit {number}")
                told = "passed" if said == WANTED else "failed", f"rows seen: {said}"
            except Skipped as missing:
                told = "skipped", str(missing)
            except (OSError, RuntimeError, subprocess.SubprocessError) as error:
                told = "failed", str(error)
            results[told[0]] += 1
            print(f"{title:<24} {told[0]:<8} {told[1]}", flush=True)
    print(", ".join(f"{number} {word}" for word, number in results.items()))
    return 1 if results["failed"] or not results["passed"] else 0


def code_of(document):
    """The pieces of code in the section by the first words of the lines ahead of them, up to a comma."""
    section = document.split(f"\n{SECTION}\n")[1].split("\n## ")[0]
    found = re.findall(r"^(\w+)[^\n]*:\n\n```(\w+)\n(.*?)^```$", section, re.M | re.S)
    if section.count("\n```") != 2 * len(found):
        sys.exit("snippets: a piece of code has no line ahead of it that names it")
    return {title: code for title, _, code in found}


def two_causeways(cluster):
    """One beside the primary, and one beside a replica that lags from now on; gives their addresses."""
    cluster.start_primary()
    cluster.run_sql("postgres", "CREATE TABLE visits (key text PRIMARY KEY)")
    cluster.add_replica()
    key = cluster.scratch / "causeway.toml"
    key.write_text('[causal]\ntoken_key = "the same key for all Causeways of a cluster"\n')
    ports = [cluster.start_causeway("--config", key, "--region", region) for region in ("primary", "replica")]
    cluster.run_sql("postgres", "SELECT pg_wal_replay_pause()", port=cluster.replicas[0])
    paused = "SELECT pg_get_wal_replay_pause_state()"
    while cluster.run_sql("postgres", paused, port=cluster.replicas[0]) != "paused":
        time.sleep(0.05)
    return [f"postgresql://{USER}:{PASSWORD}@127.0.0.1:{port}/postgres" for port in ports]


def python(code, *arguments):
    prepare_python()
    return said_by([PYTHON, assemble("python.py", code), *arguments])


def node(code, *arguments):
    prepare_node()
    return said_by(["node", assemble("node.mjs", code), *arguments])


def java(code, writer, reader, key):
    if not shutil.which("javac"):
        raise Skipped("there is no javac")
    program = assemble("Main.java", code)
    run(["javac", "-d", program.parent, program])
    if not JDBC.exists():
        raise Skipped(f"it compiles; to run it {JDBC} is wanted (libpostgresql-jdbc-java)")
    urls = [f"jdbc:{url.replace(f'{USER}:{PASSWORD}@', '')}?user={USER}&password={PASSWORD}" for url in (writer, reader)]
    classes = os.pathsep.join(map(str, (program.parent, JDBC)))
    return said_by(["java", "-cp", classes, "Main", *urls, key])


def go(code, *arguments):
    if not shutil.which("go"):
        raise Skipped("there is no go")
    if not (Go.place / "src" / Pgx.packages[0]).is_dir():
        raise Skipped(f"{Pgx.debian} is wanted")
    return said_by(["go", "run", assemble("main.go", code), *arguments], env=go_environment(os.environ))


def fastapi(code, *arguments):
    prepare_python()
    return said_by_servers([PYTHON, assemble("server_fastapi.py", code)], *arguments)


def django(code, *arguments):
    prepare_python()
    path = {"PYTHONPATH": str(fetch_sdist("Django", Django.version))}
    return said_by_servers([PYTHON, assemble("server_django.py", code)], *arguments, environment=path)


def express(code, *arguments):
    prepare_node()
    functions = code_of(DOCUMENT.read_text())["Node"]
    return said_by_servers(["node", assemble("server_express.mjs", functions + code)], *arguments)


PROGRAMS = {"Python": python, "FastAPI": fastapi, "Django": django, "Node": node, "Express": express, "Go": go,
            "Java": java}


def assemble(name, code):
    """The program with the code in it, in a directory of its own."""
    directory = PLACE / pathlib.Path(name).stem
    directory.mkdir(parents=True, exist_ok=True)
    program, lines = directory / name, (HERE / name).read_text().split("\n")
    places = [index for index, line in enumerate(lines) if line.strip() in ("# SNIPPET", "// SNIPPET")]
    if len(places) != 1:
        raise RuntimeError(f"{name} has {len(places)} places for a snippet")
    lines[places[0]] = code
    program.write_text("\n".join(lines))
    return program


def said_by(command, **options):
    """What a program has printed that does it all itself."""
    lines = dict(line.split(" ", 1) for line in run(command, **options).splitlines())
    expect_token(lines.pop("token", ""))
    return {name: int(rows) for name, rows in lines.items()}


def said_by_servers(command, writer, reader, key, environment=None):
    """What two servers of the program answer to the requests of a browser, and of one without its cookie."""
    with Server(command, writer, environment) as there, Server(command, reader, environment) as here:
        path = f"visits/{urllib.request.quote(key)}"
        _, token = there.ask("POST", path, "")
        expect_token(token)
        said = {}
        for name, carried in (("without", ""), ("with", token), ("refused", NO_TOKEN)):
            said[name], renewed = here.ask("GET", path, carried)
            expect_token(renewed)
        return said


def expect_token(text):
    if not text.startswith("c1."):
        raise RuntimeError(f"wanted a token, got {text!r}")


class Server:
    """A web server of ours, which ends with its context."""

    def __init__(self, command, database, environment):
        self.port = free_port()
        command = list(map(str, [*command, self.port]))
        self.log = pathlib.Path(command[-2]).with_suffix(f".{self.port}.log")
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env=os.environ | {"DATABASE_URL": database} | (environment or {}))

    def __enter__(self):
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/visits/none"):
                    return self
            except urllib.error.HTTPError as error:
                self.__exit__()
                raise RuntimeError(f"the first request got {error.code}; see {self.log}") from error
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError(f"the server does not answer; see {self.log}") from None
                time.sleep(0.1)

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait()

    def ask(self, method, path, token):
        """The answer, and the cookie that comes with it."""
        headers = {"Cookie": f"causeway={token}"} if token else {}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=LIMIT_SECONDS) as response:
            cookie = re.match(r"causeway=([^;]*);.*HttpOnly", response.headers["Set-Cookie"] or "", re.I)
            body = response.read()
            return json.loads(body) if body else None, cookie[1] if cookie else ""


def run(command, **options):
    ended = subprocess.run(list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                           timeout=LIMIT_SECONDS, **options)
    if ended.returncode != 0:
        raise RuntimeError(f"{pathlib.Path(command[0]).name} ended with {ended.returncode}: {ended.stderr[-2000:]}")
    return ended.stdout


if __name__ == "__main__":
    sys.exit(main())
