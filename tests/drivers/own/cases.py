"""Runs the cases of one Python driver and prints a line for each: driver, case, pass or FAIL, why.

Not a test framework: a case is a function, it fails by raising, and it gets a time limit, because
the way in which a proxy breaks a driver is often that nothing happens any more.
"""

import faulthandler
import pathlib
import signal
import sys
import time
import traceback

LIMIT_SECONDS = 60


class Failure(Exception):
    """An expectation that did not hold."""


def equal(got, wanted, what):
    if got != wanted:
        raise Failure(f"{what}: got {shorten(got)}, wanted {shorten(wanted)}")


def check(condition, what):
    if not condition:
        raise Failure(what)


def shorten(value):
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}... ({len(text)} characters)"


class raises:
    """`with raises("23505", "what"):` fails unless the block raises an error with this SQLSTATE."""

    def __init__(self, sqlstate, what):
        self._sqlstate = sqlstate
        self._what = what

    def __enter__(self):
        return self

    def __exit__(self, kind, error, _):
        if error is None:
            raise Failure(f"{self._what}: no error, wanted SQLSTATE {self._sqlstate}")
        if not hasattr(error, "sqlstate"):
            return False
        if error.sqlstate != self._sqlstate:
            raise Failure(f"{self._what}: SQLSTATE {error.sqlstate} ({error}), wanted {self._sqlstate}") from error
        return True


def call_in_time(case):
    """Of drivers that wait in the main thread, where a signal interrupts them."""

    def out_of_time(*_):
        raise Failure(f"no end after {LIMIT_SECONDS} s")

    signal.signal(signal.SIGALRM, out_of_time)
    signal.alarm(LIMIT_SECONDS)
    try:
        case()
    finally:
        signal.alarm(0)


def run(driver, cases, call):
    """Calls `call(case)` for each case and ends the process: 0 if all of them passed, else 1.

    A case that neither `call` nor the driver can interrupt ends the process with all stacks.
    """
    wanted = sys.argv[2:]
    failed = 0
    for case in cases:
        name = case.__name__
        if wanted and name not in wanted:
            continue
        faulthandler.dump_traceback_later(LIMIT_SECONDS + 10, exit=True)
        started = time.monotonic()
        try:
            call(case)
        except Exception as error:
            failed += 1
            print(driver, name, "FAIL", describe(error), sep="\t", flush=True)
        else:
            print(driver, name, "pass", f"{time.monotonic() - started:.2f} s", sep="\t", flush=True)
        finally:
            faulthandler.cancel_dump_traceback_later()
    sys.exit(1 if failed else 0)


def describe(error):
    script = pathlib.Path(sys.argv[0]).name
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename.endswith(script)]
    sqlstate = getattr(error, "sqlstate", None)
    kind = type(error).__name__ + (f" {sqlstate}" if sqlstate else "")
    message = " ".join(str(error).split()) or "no message"
    return f"{kind}: {message} ({script}:{lines[-1] if lines else '?'})"


def database_url():
    if len(sys.argv) < 2:
        sys.exit(f"usage: {sys.argv[0]} DATABASE_URL [CASE...]")
    return sys.argv[1]
