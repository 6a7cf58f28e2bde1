"""Compares Causeway with PgBouncer on this machine, in one run and in turn.

    cargo build --release && benches/compare.sh --replica

It starts a PostgreSQL cluster of its own and both proxies, all on 127.0.0.1 and below a temporary
directory, drives them with pgbench in interleaved rounds (A B A B, so that noise hits both), prints
Markdown on standard output and progress on standard error, and removes everything. It reads no
clock but its own machine's and judges nothing but the figures: it fails only if a run fails.
"""

import argparse
import contextlib
import json
import os
import pathlib
import platform
import resource
import signal
import subprocess
import sys
import tempfile

import measure
import report
from cluster import BenchError, Cluster, find_bin_directory, give_to, service_account
from measure import Load
from proxies import Causeway, Direct, PgBouncer, pgbouncer_program

KINDS = ("pgbouncer", "causeway", "direct")
MODES = ("simple", "extended", "prepared")
PARTS = ("select", "churn", "idle")
ROOT = pathlib.Path(__file__).resolve().parents[2]


def main():
    options = parse_arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end_by_signal)
    allow_many_files()
    try:
        results = compare(options)
    except BenchError as error:
        sys.exit(f"compare: {error}")
    except KeyboardInterrupt:
        sys.exit("compare: interrupted")
    print(report.markdown(results))
    if options.json:
        text = json.dumps(report.as_json(results), indent=2)
        pathlib.Path(options.json).write_text(text + "\n")


def compare(options):
    bin_directory = find_bin_directory(options.pg_bin)
    results = report.Results(options.names, describe(options, bin_directory))
    with contextlib.ExitStack() as stack:
        directory = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="causeway-compare-")))
        directory.chmod(0o711)
        give_to(directory, service_account())
        progress("starting PostgreSQL")
        cluster = stack.enter_context(Cluster(directory, bin_directory, options.scale, options.replica))

        def start(name):
            subject = start_subject(name, cluster, directory, options)
            stack.callback(subject.stop)
            return subject

        loads = wanted_loads(options)
        if loads:
            subjects = [start(name) for name in options.names]
            for load in loads:
                results.cases.append(measure_case(bin_directory, subjects, load, options))
            for subject in subjects:
                subject.stop()
        if "idle" in options.parts:
            for name in options.names:
                if kind_of(name) != "direct":
                    progress(f"{options.idle_clients} idle clients: {name}")
                    subject = start(name)
                    results.idle[name] = measure.idle_cost(subject, options.idle_clients)
                    subject.stop()
    return results


def measure_case(bin_directory, subjects, load, options):
    case = report.Case(load, runs={subject.name: [] for subject in subjects})
    for subject in subjects:
        measure.pgbench(bin_directory, subject, load, 1)  # fills pools and caches
    for number in range(options.rounds):
        for subject in subjects:
            run = measure.pgbench(bin_directory, subject, load, options.seconds)
            case.runs[subject.name].append(run)
            cost = "" if run.cpu_us_per_transaction is None else f", {run.cpu_us_per_transaction:.1f} µs CPU each"
            progress(f"{load.name}, round {number + 1}, {subject.name}: {run.transactions_per_second:.0f} tx/s{cost}")
    if options.system_calls and not load.churn:
        for subject in subjects:
            case.system_calls[subject.name] = measure.system_calls_per_transaction(bin_directory, subject, load, 2)
    return case


def wanted_loads(options):
    loads = []
    if "select" in options.parts:
        loads += [Load(mode, clients) for mode in options.modes for clients in options.clients]
    if "churn" in options.parts:
        loads.append(Load("simple", 8, churn=True))
    return loads


def start_subject(name, cluster, directory, options):
    match kind_of(name):
        case "pgbouncer":
            return PgBouncer(name, cluster, directory)
        case "causeway":
            return Causeway(name, cluster, directory, options.causeway)
        case _:
            return Direct(name, cluster)


def kind_of(name):
    return name.split("#")[0]


def describe(options, bin_directory):
    subjects = {kind_of(name) for name in options.names}
    description = {
        "machine": f"{os.cpu_count()} processors, {platform.system()} {platform.release()}, {platform.machine()}",
        "PostgreSQL": first_line(bin_directory / "postgres", "--version"),
    }
    if "pgbouncer" in subjects:
        description["PgBouncer"] = f"{first_line(pgbouncer_program(), '--version')}, primary only, no splitting"
    if "causeway" in subjects:
        splitting = "primary and one replica, reads and writes split" if options.replica else "primary only"
        description["Causeway"] = f"{first_line(options.causeway, '--version')}, {splitting}"
    description["run"] = f"{options.rounds} interleaved rounds of {options.seconds} s, scale {options.scale}, median"
    return description


def first_line(program, argument):
    try:
        done = subprocess.run([program, argument], capture_output=True, text=True, timeout=10)
    except OSError as error:
        raise BenchError(f"cannot run {program}: {error.strerror}") from error
    return (done.stdout or done.stderr).strip().split("\n")[0]


def allow_many_files():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def end_by_signal(*_):
    raise KeyboardInterrupt


def progress(text):
    print(text, file=sys.stderr, flush=True)


def parse_arguments():
    parser = argparse.ArgumentParser(prog="compare", description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="pgbouncer,causeway", help="what to compare, in this order, the first is "
                        "the base of the ratios: pgbouncer, causeway, direct; a name may be repeated")  # fmt: skip
    parser.add_argument("--replica", action="store_true", help="give Causeway a streaming replica: reads are split")
    parser.add_argument("--seconds", type=positive, default=5, help="length of one run (default 5)")
    parser.add_argument("--rounds", type=positive, default=3, help="runs of each proxy per case (default 3)")
    parser.add_argument("--clients", default="1,16,64", help="numbers of pgbench clients (default 1,16,64)")
    parser.add_argument("--modes", default=",".join(MODES), help="pgbench's protocols (default all three)")
    parser.add_argument("--parts", default=",".join(PARTS), help="select, churn, idle (default all)")
    parser.add_argument("--idle-clients", type=positive, default=2000, help="default 2000")
    parser.add_argument("--scale", type=positive, default=5, help="pgbench scale (default 5)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 1 s: a look, not a measurement")
    parser.add_argument("--no-system-calls", dest="system_calls", action="store_false", help="do not count them")
    parser.add_argument("--json", metavar="FILE", help="also write every single run as JSON")
    parser.add_argument("--causeway", type=pathlib.Path, default=ROOT / "target/release/causeway", metavar="PROGRAM")
    parser.add_argument("--pg-bin", metavar="DIRECTORY", help="PostgreSQL's server binaries")
    options = parser.parse_args()
    options.names = numbered(chosen(parser, options.only, KINDS))
    options.modes = chosen(parser, options.modes, MODES)
    options.parts = chosen(parser, options.parts, PARTS)
    try:
        options.clients = [positive(number) for number in options.clients.split(",")]
    except ValueError:
        parser.error("--clients takes positive numbers, separated by commas")
    if options.quick:
        options.seconds, options.rounds = 1, 2
    return options


def chosen(parser, text, known):
    names = text.split(",")
    for name in names:
        if name not in known:
            parser.error(f"{name!r} is none of {', '.join(known)}")
    return names


def numbered(names):
    """`pgbouncer,pgbouncer` becomes pgbouncer and pgbouncer#2: one proxy against itself shows the noise."""
    counts = [names[: at + 1].count(name) for at, name in enumerate(names)]
    return [name if count == 1 else f"{name}#{count}" for name, count in zip(names, counts)]


def positive(text):
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    main()
