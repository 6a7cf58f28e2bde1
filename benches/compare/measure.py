"""The measurements: one pgbench run, CPU time, system calls and memory of a process.

CPU time is the kernel's clock of the whole process, in nanoseconds: user and system, all threads,
ended ones included. It is sampled while pgbench runs, and pgbench's log says when each transaction
ended, so that the window leaves out what comes before the first and after the last: above all the
log-ins. Counting system calls slows the process down, so that has runs of its own.
"""

import bisect
import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass

import client
from cluster import PASSWORD, USER, BenchError

SAMPLE_INTERVAL_SECONDS = 0.01


@dataclass(frozen=True)
class Load:
    """What pgbench does. `mode` is simple, extended or prepared; `churn` logs in anew for each SELECT."""

    mode: str
    clients: int
    churn: bool = False

    @property
    def name(self):
        if self.churn:
            return f"churn, {self.clients} clients"
        return f"{self.mode}, {self.clients} client{'s' if self.clients > 1 else ''}"


@dataclass(frozen=True)
class Run:
    """The outcome of one pgbench run, inside its window. Without a proxy there is no CPU time."""

    transactions: int
    transactions_per_second: float
    p50_ms: float
    p95_ms: float
    cpu_us_per_transaction: float | None


def pgbench(bin_directory, subject, load, seconds):
    """Runs the load against the subject. Logging in comes on top of the seconds."""
    with tempfile.TemporaryDirectory(prefix="pgbench-") as logs:
        with CpuSampler(subject.pid) as sampler:
            output = _run_pgbench(bin_directory, subject, load, seconds, pathlib.Path(logs))
        ends_and_latencies = sorted(_log_lines(pathlib.Path(logs)))
    subject.check()
    if len(ends_and_latencies) < 2:
        raise BenchError(f"{subject.name}, {load.name}: no transactions\n{output}")
    first_end, first_latency = ends_and_latencies[0]
    opened, cpu_opened, closed, cpu_closed = sampler.window(first_end - first_latency, ends_and_latencies[-1][0])
    inside = [latency for end, latency in ends_and_latencies if opened < end <= closed]
    if not inside:
        raise BenchError(f"{subject.name}, {load.name}: the run was too short\n{output}")
    latencies = sorted(inside)
    return Run(
        transactions=len(inside),
        transactions_per_second=len(inside) / (closed - opened),
        p50_ms=latencies[len(latencies) // 2] * 1e3,
        p95_ms=latencies[len(latencies) * 95 // 100] * 1e3,
        cpu_us_per_transaction=None if cpu_opened is None else (cpu_closed - cpu_opened) * 1e6 / len(inside),
    )


class CpuSampler:
    """Notes (time of day, CPU time of the process) every few milliseconds while its block runs."""

    def __init__(self, pid):
        self._pid = pid
        self._samples = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()

    def window(self, start, end):
        """The largest span between two samples inside start..end: its times and the CPU times at them."""
        times = [moment for moment, _ in self._samples]
        opened = bisect.bisect_left(times, start)
        closed = bisect.bisect_right(times, end) - 1
        if closed <= opened:
            raise BenchError("the run was too short to take its CPU time")
        return *self._samples[opened], *self._samples[closed]

    def _sample(self):
        while True:
            self._samples.append((time.time(), cpu_seconds(self._pid)))
            if self._ended.wait(SAMPLE_INTERVAL_SECONDS):
                return


def cpu_seconds(pid):
    """CPU time of a process so far; None without a process. See clock_getcpuclockid(3)."""
    if pid is None:
        return None
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError as error:
        raise BenchError(f"process {pid} has ended") from error


def system_calls_per_transaction(bin_directory, subject, load, seconds):
    """None without a proxy. Needs perf (with the right to count) or strace. The log-ins are in it: some
    forty calls per client, one or two in a hundred with 64 clients on a busy machine."""
    if subject.pid is None:
        return None
    with system_call_counter(subject.pid) as counter, tempfile.TemporaryDirectory(prefix="pgbench-") as logs:
        output = _run_pgbench(bin_directory, subject, load, seconds, pathlib.Path(logs))
        calls = counter.stop()
    return calls / _number(r"number of transactions actually processed: (\d+)", output)


def system_call_counter(pid):
    return PerfCounter(pid) if perf_can_count() else StraceCounter(pid)


def perf_can_count():
    if shutil.which("perf") is None:
        return False
    command = ["perf", "stat", "-e", "raw_syscalls:sys_enter", "--", "true"]
    return subprocess.run(command, capture_output=True, timeout=20).returncode == 0


class PerfCounter:
    """`perf stat` on a running process. It counts from the moment that perf acknowledges."""

    def __init__(self, pid):
        control_read, self._control = os.pipe()
        self._acknowledge, acknowledge_write = os.pipe()
        self._child = subprocess.Popen(
            [
                "perf", "stat", "--field-separator", ";", "-e", "raw_syscalls:sys_enter", "-p", str(pid),
                "--delay", "-1", "--control", f"fd:{control_read},{acknowledge_write}",
            ],
            pass_fds=(control_read, acknowledge_write),
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip
        os.close(control_read)
        os.close(acknowledge_write)

    def __enter__(self):
        self._order("enable")
        return self

    def __exit__(self, *_):
        _end(self._child, signal.SIGINT)
        os.close(self._control)
        os.close(self._acknowledge)

    def stop(self):
        """Ends the count and returns it."""
        self._order("disable")
        self._child.send_signal(signal.SIGINT)
        _, output = self._child.communicate(timeout=20)
        for line in output.splitlines():
            if "sys_enter" in line:
                return int(line.split(";")[0])
        raise BenchError(f"perf stat did not count:\n{output}")

    def _order(self, word):
        os.write(self._control, f"{word}\n".encode())
        if not os.read(self._acknowledge, 16).startswith(b"ack"):
            raise BenchError(f"perf stat did not {word}:\n{self._child.communicate()[1]}")


class StraceCounter:
    """`strace -c` on a running process: the same number, for machines where perf may not count."""

    def __init__(self, pid):
        if shutil.which("strace") is None:
            raise BenchError("system calls need perf or strace; leave them out with --no-system-calls")
        self._summary = tempfile.NamedTemporaryFile(mode="r", prefix="strace-")
        self._child = subprocess.Popen(
            ["strace", "-c", "-f", "-o", self._summary.name, "-p", str(pid)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    def __enter__(self):
        line = self._child.stderr.readline()
        if "attached" not in line:
            raise BenchError(f"strace could not attach: {line}")
        return self

    def __exit__(self, *_):
        _end(self._child, signal.SIGINT)
        self._child.stderr.close()
        self._summary.close()

    def stop(self):
        _end(self._child, signal.SIGINT)
        text = pathlib.Path(self._summary.name).read_text()
        totals = [line.split() for line in text.splitlines() if line.endswith("total")]
        if not totals:
            raise BenchError(f"strace did not count:\n{text}")
        return int(totals[-1][3])


@dataclass(frozen=True)
class IdleCost:
    """Resident bytes per idle client: as logged in, and after each has run one query."""

    clients: int
    bytes_after_login: float
    bytes_after_query: float
    logins_per_cpu_second: float


def idle_cost(subject, clients):
    """Opens many clients on a fresh process. Ten that have worked before are the zero line."""
    database = subject.database("simple")

    def connect():
        return stack.enter_context(client.Client(subject.port, USER, PASSWORD, database))

    with contextlib.ExitStack() as stack:
        for _ in range(10):
            connect().query("SELECT 1")
        empty, cpu_before = resident_bytes(subject.pid), cpu_seconds(subject.pid)
        opened = [connect() for _ in range(clients)]
        cpu_after, logged_in = cpu_seconds(subject.pid), resident_bytes(subject.pid)
        for connection in opened:
            connection.query("SELECT 1")
        queried = resident_bytes(subject.pid)
        subject.check()
    return IdleCost(
        clients=clients,
        bytes_after_login=(logged_in - empty) / clients,
        bytes_after_query=(queried - empty) / clients,
        logins_per_cpu_second=clients / (cpu_after - cpu_before),
    )


def resident_bytes(pid):
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) * 1024
    raise BenchError(f"/proc/{pid}/smaps_rollup has no line Rss")


def _run_pgbench(bin_directory, subject, load, seconds, logs):
    # pgbench counts the time that it takes to log all clients in, about 20 ms each on a busy machine.
    seconds_in_all = seconds + load.clients // 16
    command = [
        bin_directory / "pgbench", "--no-vacuum", "--select-only", "--protocol", load.mode,
        "--client", load.clients, "--jobs", min(load.clients, 2), "--time", seconds_in_all,
        "--log", "--log-prefix", logs / "log",
        "--host", "127.0.0.1", "--port", subject.port, "--username", USER,
    ]  # fmt: skip
    command += ["--connect"] if load.churn else []
    command = [str(part) for part in (*command, subject.database(load.mode))]
    environment = {**os.environ, "PGPASSWORD": PASSWORD, "PGSSLMODE": "disable", "PGGSSENCMODE": "disable"}
    limit = seconds_in_all + 60
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"{subject.name}, {load.name}: pgbench hangs\n{error.stderr or ''}") from error
    failed = re.search(r"number of failed transactions: (\d+)", done.stdout)
    if done.returncode != 0 or "error:" in done.stderr or (failed and failed.group(1) != "0"):
        subject.check()
        raise BenchError(f"{subject.name}, {load.name}: pgbench failed\n{done.stderr.strip()}\n{done.stdout.strip()}")
    return done.stdout


def _log_lines(directory):
    """(end as seconds since 1970, latency in seconds) of each transaction."""
    for path in directory.iterdir():
        with path.open() as lines:
            for line in lines:
                _, _, latency_us, _, epoch_seconds, microseconds = line.split()[:6]
                yield int(epoch_seconds) + int(microseconds) / 1e6, int(latency_us) / 1e6


def _number(pattern, text):
    found = re.search(pattern, text)
    if found is None:
        raise BenchError(f"pgbench's output has no {pattern!r}:\n{text}")
    return float(found.group(1))


def _end(child, how):
    if child.poll() is None:
        child.send_signal(how)
        try:
            child.wait(timeout=20)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
