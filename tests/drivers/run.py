#!/usr/bin/env python3
"""Runs the test suites of drivers and frameworks directly and through Causeway, and compares test by test.

    tests/drivers/run.py [SUITE...]         the sides, each with a fresh cluster: primary and replicas
    tests/drivers/run.py URL [DRIVER...]    only our own cases, against any PostgreSQL or proxy
    tests/drivers/run.py --report           the table of the last runs again

The sides are `direct`, and Causeway in transaction mode at `session` and, if asked for, at `strong`. Not a
check of the drivers: a test that fails on all sides is the same. The reasons of differences stand in differences.toml.
Ends with 0 if every difference has its reason there, with 1 if not, with 2 if a suite could not run.
"""

import argparse
import fnmatch
import pathlib
import shutil
import signal
import subprocess
import sys
import tomllib

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from cluster import DEBUG_BUILD, Cluster  # noqa: E402
from suites import PASSWORD, SUITES, WORK, Endpoint, own_cases  # noqa: E402

HERE = pathlib.Path(__file__).resolve().parent
# Directly, and through Causeway at two levels of consistency.
SIDES = ("direct", "session", "strong")
USUAL_SIDES = ("direct", "session")
# SQLAlchemy, asyncpg and psycopg commit in two phases.
SETTINGS = "max_prepared_transactions = 20\nmax_connections = 200\n"


def main():
    # Whoever stops us stops what we have started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))
    arguments = parse_arguments()
    if arguments.names and "://" in arguments.names[0]:
        return against_url(*arguments.names)
    suites = [suite for suite in SUITES if not arguments.names or suite.name in arguments.names]
    unknown = set(arguments.names) - {suite.name for suite in SUITES}
    if unknown:
        print(f"drivers: no suite is called {', '.join(unknown)}", file=sys.stderr)
        return 2
    failures = []
    if not arguments.report:
        for suite in suites:
            try:
                run_sides(suite, arguments)
            except (OSError, subprocess.SubprocessError, RuntimeError) as error:
                failures.append(f"drivers: {suite.name}: {error}")
                print(failures[-1], file=sys.stderr)
    return report(suites) if not failures else 2


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="SUITE", help=", ".join(suite.name for suite in SUITES))
    parser.add_argument("--replicas", type=int, default=1, choices=range(0, 4))
    parser.add_argument("--only", action="append", choices=SIDES,
                        help="run this side only and compare with the last results of the others")
    parser.add_argument("--causeway", default=DEBUG_BUILD, type=pathlib.Path)
    parser.add_argument("--log", default="info", help="what Causeway logs; its log is kept with the results")
    parser.add_argument("--report", action="store_true", help="run nothing, print the table of the last runs")
    return parser.parse_args()


def run_sides(suite, arguments):
    suite.prepare()
    for side in arguments.only or USUAL_SIDES:
        print(f"running {suite.name} {side}", file=sys.stderr, flush=True)
        results = results_of(suite, side)
        shutil.rmtree(results, ignore_errors=True)
        results.mkdir(parents=True)
        with Cluster(PASSWORD, SETTINGS + suite.settings, "scram-sha-256", suite.hba, suite.tls) as cluster:
            try:
                outcomes = suite.run(endpoint(cluster, suite, side, arguments), results)
                if cluster.has_lost_one():
                    raise RuntimeError(f"a server ended during the run; its log is in {results}")
            finally:
                cluster.keep_logs(results)
        if not outcomes:
            raise RuntimeError(f"no test was run; see {results}")
        lines = ("\t".join((test, outcome, why)) + "\n" for test, (outcome, why) in sorted(outcomes.items()))
        (results / "outcomes.tsv").write_text("".join(lines))


def endpoint(cluster, suite, side, arguments):
    """Lays out what `suite` wants to find, and tells where it shall connect."""
    port = cluster.start_primary()
    for database, statements in suite.layout.items():
        cluster.run_sql(database, *statements)
    if side != "direct":
        for _ in range(arguments.replicas):
            cluster.add_replica()
        config = cluster.scratch / "causeway.toml"
        config.write_text("".join(f'[[users]]\nname = "{name}"\npassword = "{password}"\n'
                                  for name, password in suite.users.items()))
        if suite.tls:
            certificate, key = suite.tls
            with open(config, "a") as file:
                file.write(f'[client.tls]\ncertificate = "{certificate}"\nkey = "{key}"\n')
        port = cluster.start_causeway("--config", config, "--consistency", side,
                                      "--log", arguments.log, program=arguments.causeway)
    return Endpoint(port, cluster.client_environment(), cluster.scratch / "primary")


def against_url(url, *drivers):
    outcomes = {}
    for suite in own_cases(drivers):
        suite.prepare()
        results = WORK / "results" / suite.name / "url"
        results.mkdir(parents=True, exist_ok=True)
        outcomes |= {(suite.name, *case): outcome for case, outcome in suite.run_at(url, results).items()}
    for (suite, case), (outcome, why) in outcomes.items():
        print(f"{suite:<20} {case:<40} {outcome:<7} {why}")
    passed = sum(outcome == "passed" for outcome, _ in outcomes.values())
    print(f"\n{passed} of {len(outcomes)} cases passed")
    return 0 if passed == len(outcomes) else 1


def report(suites):
    """Prints the table and the differences. 1 if a difference has no reason."""
    reasons = tomllib.loads((HERE / "differences.toml").read_text())["difference"]
    print(f"{'suite':<22} {'tests':>6} {'passed direct':>14} {'at session':>11} {'at strong':>10} {'differ':>7}")
    listed, unexplained = [], 0
    for suite in suites:
        sides = {side: outcomes for side in SIDES if (outcomes := outcomes_of(suite, side))}
        tests = sorted(set().union(*sides.values()))
        passed = {side: sum(outcome == "passed" for outcome, _ in outcomes.values())
                  for side, outcomes in sides.items()}
        differing = [test for test in tests
                     if len({outcomes.get(test, MISSING)[0] for outcomes in sides.values()}) > 1]
        print(f"{suite.name:<22} {len(tests):>6} {passed.get('direct', '-'):>14} {passed.get('session', '-'):>11} "
              f"{passed.get('strong', '-'):>10} {len(differing):>7}")
        for test in differing:
            words = [f"{outcomes.get(test, MISSING)[0]} {side}" for side, outcomes in sides.items()]
            said = next(filter(None, (outcomes.get(test, MISSING)[1] for outcomes in sides.values())), "")
            why = reason_for(suite, test, said, reasons)
            unexplained += why is None
            listed.append(f"{suite.name}  {test}\n    {', '.join(words)}: {why or 'NO REASON KNOWN: ' + said}")
    print("\n" + "\n".join(listed) if listed else "\nno differences")
    return 1 if unexplained else 0


def reason_for(suite, test, said, reasons):
    """The first that fits the suite, the test and, if the reason names that, what the test said."""
    def fits(reason):
        return (fnmatch.fnmatchcase(suite.name, reason["suite"])
                and any(test == name or fnmatch.fnmatchcase(test, name) for name in reason["tests"])
                and any(word in said for word in reason.get("said", [""])))

    return next((reason["why"] for reason in reasons if fits(reason)), None)


MISSING = ("missing", "")


def outcomes_of(suite, side):
    file = results_of(suite, side) / "outcomes.tsv"
    if not file.exists():
        return None
    lines = (line.split("\t") for line in file.read_text().splitlines())
    return {test: (outcome, why) for test, outcome, why in lines}


def results_of(suite, side):
    return WORK / "results" / suite.name / side


if __name__ == "__main__":
    sys.exit(main())
