"""psycopg 3 against DATABASE_URL. Each case opens its own connections and owns its own tables.

A case that reads on one connection what another has written asks for `strong`: by default a proxy
owes a connection only its own writes. On a plain PostgreSQL that setting is a harmless placeholder.
"""

import datetime
import decimal
import logging
import os
import socket
import threading
import uuid

import psycopg
from psycopg import pq, sql
from psycopg.types.json import Jsonb

from cases import LIMIT_SECONDS, Failure, call_in_time, check, database_url, equal, raises, run

URL = database_url()
LARGE = 5 * 1024 * 1024
# What psycopg logs of an error that it also raises would only disturb the table.
logging.getLogger("psycopg").addHandler(logging.NullHandler())


def connect(**options):
    return psycopg.connect(URL, **{"autocommit": True, "connect_timeout": 20, **options})


def fresh_table(connection, name, columns):
    connection.execute(f"DROP TABLE IF EXISTS drivers_psycopg_{name}")
    connection.execute(f"CREATE TABLE drivers_psycopg_{name} ({columns})")
    return f"drivers_psycopg_{name}"


def one(connection, statement, parameters=None, **options):
    return connection.execute(statement, parameters, **options).fetchone()[0]


def connects():
    with connect() as connection:
        equal(one(connection, "SELECT 1"), 1, "SELECT 1")
        check(connection.info.server_version >= 140000, f"server_version {connection.info.server_version}")
        equal(connection.info.parameter_status("client_encoding"), "UTF8", "client_encoding")
        equal(connection.info.parameter_status("in_hot_standby"), "off", "in_hot_standby")
        check(connection.info.backend_pid != 0, "a backend process id")


def refuses_bad_logins():
    # psycopg gives no SQLSTATE for a failed login, only the message.
    for options, words, what in (
        ({"password": "not the password"}, "password authentication failed", "a wrong password"),
        ({"user": "drivers_nobody", "password": "x"}, "password authentication failed", "an unknown user"),
        ({"dbname": "drivers_nowhere"}, 'database "drivers_nowhere" does not exist', "an unknown database"),
    ):
        try:
            connect(**options).close()
        except psycopg.OperationalError as error:
            check(words in str(error), f"{what}: {error}")
        else:
            raise Failure(f"{what}: logged in")


def speaks_the_newest_protocol():
    if pq.version() < 180000:
        return  # this libpq knows 3.0 only
    with connect(max_protocol_version="latest") as connection:
        equal(one(connection, "SELECT 1"), 1, "SELECT 1")
        expect_cancel(connection)


def reads_its_writes():
    with connect() as connection:
        table = fresh_table(connection, "ryw", "id int PRIMARY KEY, note text")
        for number in range(200):
            connection.execute(f"INSERT INTO {table} VALUES (%s, %s)", (number, f"note {number}"))
            equal(one(connection, f"SELECT note FROM {table} WHERE id = %s", (number,)), f"note {number}", "own insert")
            connection.execute(f"UPDATE {table} SET note = 'changed' WHERE id = {number}")
            equal(one(connection, f"SELECT note FROM {table} WHERE id = {number}"), "changed", "own update")
        connection.execute(f"DROP TABLE {table}")


def parameters_of_many_types():
    values = [
        7, 2**40, 1.5, decimal.Decimal("12.3400"), "text 'quoted' \\ %", True, None, [1, 2, None],
        datetime.datetime(2024, 2, 29, 12, 30, tzinfo=datetime.timezone.utc), uuid.UUID(int=5), b"\x00\xff",
    ]  # fmt: skip
    types = ["int4", "int8", "float8", "numeric", "text", "bool", "text", "int4[]", "timestamptz", "uuid", "bytea"]
    statement = "SELECT " + ", ".join(f"%s::{name}" for name in types)
    with connect() as connection:
        for binary in (False, True):
            for _ in range(3):
                row = connection.cursor(binary=binary).execute(statement, values).fetchone()
                equal(list(row), values, f"values with binary={binary}")
        equal(one(connection, "SELECT %s", (Jsonb({"a": [1, None]}),)), {"a": [1, None]}, "jsonb")


def transactions():
    with connect(autocommit=False) as connection, connect() as other:
        other.execute("SET causeway.consistency = 'strong'")
        connection.autocommit = True
        table = fresh_table(connection, "tx", "id int")
        connection.autocommit = False
        count = f"SELECT count(*) FROM {table}"
        connection.execute(f"INSERT INTO {table} VALUES (1)")
        equal(one(connection, count), 1, "inside the transaction")
        equal(one(other, count), 0, "outside, before the commit")
        connection.commit()
        equal(one(other, count), 1, "outside, after the commit")
        connection.execute(f"INSERT INTO {table} VALUES (2)")
        connection.rollback()
        equal(one(connection, count), 1, "after the rollback")
        connection.rollback()
        with connection.transaction():
            connection.execute(f"INSERT INTO {table} VALUES (3)")
            try:
                with connection.transaction():
                    connection.execute(f"INSERT INTO {table} VALUES (4)")
                    raise ZeroDivisionError
            except ZeroDivisionError:
                pass
        equal(one(connection, f"SELECT sum(id) FROM {table}"), 4, "after rolling back to a savepoint")
        connection.rollback()
        connection.execute(f"DROP TABLE {table}")
        connection.commit()


def transaction_modes():
    with connect(autocommit=False) as connection:
        for level in (psycopg.IsolationLevel.REPEATABLE_READ, psycopg.IsolationLevel.SERIALIZABLE):
            connection.isolation_level = level
            equal(one(connection, "SHOW transaction_isolation"), level.name.lower().replace("_", " "), "isolation")
            connection.rollback()
        connection.isolation_level = None
        connection.read_only = True
        equal(one(connection, "SHOW transaction_read_only"), "on", "read only")
        with raises("25006", "a write in a read-only transaction"):
            connection.execute("CREATE TABLE drivers_psycopg_never (id int)")
        connection.rollback()


def errors_have_their_sqlstate():
    with connect() as connection:
        table = fresh_table(connection, "errors", "id int PRIMARY KEY")
        connection.execute(f"INSERT INTO {table} VALUES (1)")
        with raises("23505", "unique violation"):
            connection.execute(f"INSERT INTO {table} VALUES (%s)", (1,))
        with raises("42601", "syntax error"):
            connection.execute("SELEC 1")
        with raises("42P01", "undefined table"):
            connection.execute("SELECT * FROM drivers_psycopg_undefined")
        with raises("22012", "division by zero"):
            connection.execute("SELECT 1 / %s::int", (0,))
        try:
            connection.execute(f"INSERT INTO {table} VALUES (1)")
        except psycopg.errors.UniqueViolation as error:
            equal(error.diag.constraint_name, f"{table}_pkey", "constraint_name")
            check("(id)=(1)" in error.diag.message_detail, f"DETAIL {error.diag.message_detail}")
        connection.autocommit = False
        with raises("42P01", "undefined table in a transaction"):
            connection.execute("SELECT * FROM drivers_psycopg_undefined")
        with raises("25P02", "a statement in a failed transaction"):
            connection.execute("SELECT 1")
        connection.rollback()
        equal(one(connection, "SELECT 1"), 1, "after the errors")
        connection.execute(f"DROP TABLE {table}")
        connection.commit()


def prepared_statements_beyond_the_cache():
    with connect(prepare_threshold=1) as connection:
        equal(connection.prepared_max, 100, "psycopg's cache of prepared statements")
        for _ in range(3):
            for number in range(250):
                statement = f"SELECT %s::int + {number}"
                for argument in (1, 2, 3):
                    equal(one(connection, statement, (argument,)), number + argument, statement)
        for argument in range(500):
            equal(one(connection, "SELECT %s::int * 2", (argument,), prepare=True), argument * 2, "the same statement")
        for sweep in ("DEALLOCATE ALL", "DISCARD ALL"):
            connection.execute(sweep)
            for argument in range(5):
                equal(one(connection, "SELECT %s::int * 3", (argument,), prepare=True), argument * 3, f"after {sweep}")


def prepared_statements_in_sql():
    with connect(prepare_threshold=None) as connection:
        connection.execute("PREPARE drivers_add (int, int) AS SELECT $1 + $2")
        for number in range(50):
            equal(one(connection, f"EXECUTE drivers_add ({number}, 1)"), number + 1, "EXECUTE")
        connection.execute("DEALLOCATE drivers_add")
        with raises("26000", "EXECUTE after DEALLOCATE"):
            connection.execute("EXECUTE drivers_add (1, 1)")


def prepared_writes_and_reads():
    with connect(prepare_threshold=0) as connection:
        table = fresh_table(connection, "prepared", "id int PRIMARY KEY, value int")
        for number in range(200):
            connection.execute(f"INSERT INTO {table} VALUES (%s, %s)", (number, number))
            equal(one(connection, f"SELECT value FROM {table} WHERE id = %s", (number,)), number, "own prepared insert")
        connection.execute(f"DROP TABLE {table}")


def several_statements_in_one_string():
    with connect() as connection:
        cursor = connection.execute("SELECT 1; SELECT 2, 3; SELECT 4 WHERE false")
        equal(cursor.fetchall(), [(1,)], "first result")
        check(cursor.nextset(), "a second result")
        equal(cursor.fetchall(), [(2, 3)], "second result")
        check(cursor.nextset(), "a third result")
        equal(cursor.fetchall(), [], "third result")
        check(not cursor.nextset(), "no fourth result")
        equal(connection.execute("").statusmessage, None, "the empty query")
        equal(one(connection, "SELECT 1"), 1, "after the empty query")


def pipelines():
    with connect() as connection:
        table = fresh_table(connection, "pipeline", "id int PRIMARY KEY, value text")
        with connection.pipeline() as pipeline:
            cursors = []
            for number in range(300):
                connection.execute(f"INSERT INTO {table} VALUES (%s, %s)", (number, str(number)))
                cursors.append(connection.execute(f"SELECT value FROM {table} WHERE id = %s", (number,)))
                if number % 50 == 0:
                    pipeline.sync()
        equal(
            [cursor.fetchone()[0] for cursor in cursors],
            [str(number) for number in range(300)],
            "reads in the pipeline",
        )
        with connection.cursor() as cursor:
            cursor.executemany(
                f"INSERT INTO {table} VALUES (%s, 'many') RETURNING id",
                [(number,) for number in range(300, 1300)],
                returning=True,
            )
            returned = [cursor.fetchone()[0]]
            while cursor.nextset():
                returned.append(cursor.fetchone()[0])
        equal(returned, list(range(300, 1300)), "executemany RETURNING")
        with raises("23505", "an error inside a pipeline"), connection.pipeline() as pipeline:
            connection.execute("SELECT 1")
            connection.execute(f"INSERT INTO {table} VALUES (1, 'again')")
            connection.execute(f"INSERT INTO {table} VALUES (9999, 'never')")
            pipeline.sync()
        equal(one(connection, f"SELECT count(*) FROM {table}"), 1300, "rows after the failed pipeline")
        connection.execute(f"DROP TABLE {table}")


def copy_in_and_out():
    rows = [(number, f"row {number}\t\\ü", None if number % 3 else "x") for number in range(20000)]
    with connect() as connection:
        table = fresh_table(connection, "copy", "id int, note text, nothing text")
        for binary in ("", " (FORMAT binary)"):
            connection.execute(f"TRUNCATE {table}")
            with connection.cursor().copy(f"COPY {table} FROM STDIN{binary}") as copy:
                copy.set_types(["int4", "text", "text"])
                for row in rows:
                    copy.write_row(row)
            equal(one(connection, f"SELECT count(*) FROM {table}"), 20000, f"rows copied in{binary}")
            with connection.cursor().copy(f"COPY (SELECT * FROM {table} ORDER BY id) TO STDOUT{binary}") as copy:
                copy.set_types(["int4", "text", "text"])
                equal(list(copy.rows()), rows, f"rows copied out{binary}")
        with raises("22P02", "COPY of a value that is no number"):
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write("one\ttwo\tthree\n")
        try:
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                copy.write_row((0, "never", None))
                raise ZeroDivisionError
        except ZeroDivisionError:
            pass
        equal(one(connection, f"SELECT count(*) FROM {table}"), 20000, "rows after two failed copies")
        connection.execute(f"DROP TABLE {table}")


def cancels():
    with connect() as connection:
        for begin in (None, "BEGIN"):
            if begin:
                connection.execute(begin)
            expect_cancel(connection)
            if begin:
                connection.execute("ROLLBACK")
            for number in range(20):
                equal(one(connection, f"SELECT {number}"), number, "after the cancel")
        connection.execute("SET statement_timeout = '150ms'")
        with raises("57014", "statement_timeout"):
            connection.execute("SELECT pg_sleep(50)")
        connection.execute("RESET statement_timeout")
        equal(one(connection, "SELECT 1"), 1, "after statement_timeout")


def cancels_only_its_own():
    with connect() as cancelled, connect() as untouched:
        outcome = []

        def sleep():
            try:
                untouched.execute("SELECT pg_sleep(1)")
                outcome.append("finished")
            except psycopg.Error as error:
                outcome.append(error)

        sleeper = threading.Thread(target=sleep)
        sleeper.start()
        for _ in range(3):
            expect_cancel(cancelled)
        sleeper.join()
        equal(outcome, ["finished"], "a query of another connection while this one's are cancelled")


def expect_cancel(connection):
    done = threading.Event()
    canceller = threading.Thread(target=cancel_until, args=(connection, done))
    canceller.start()
    try:
        with raises("57014", "a cancelled pg_sleep"):
            connection.execute("SELECT pg_sleep(50)")
    finally:
        done.set()
        canceller.join()


def cancel_until(connection, done):
    """A cancel that comes before its query does nothing, so it is repeated until the query has ended."""
    while not done.wait(0.1):
        connection.cancel_safe()


def server_side_cursors():
    with connect(autocommit=False) as connection:
        with connection.cursor(name="drivers_numbers") as cursor:
            cursor.execute("SELECT n FROM generate_series(1, 10000) AS n ORDER BY n")
            equal(cursor.fetchone(), (1,), "first row")
            equal(cursor.fetchmany(10), [(number,) for number in range(2, 12)], "ten more")
            equal(one(connection, "SELECT 'between'"), "between", "another statement between two fetches")
            equal(cursor.fetchmany(2), [(12,), (13,)], "two more")
        equal(one(connection, "SELECT 1"), 1, "after closing a cursor that was read in part")
        connection.commit()
        with connection.cursor(name="drivers_scroll", scrollable=True) as cursor:
            cursor.execute("SELECT n FROM generate_series(0, 99) AS n")
            cursor.scroll(90, mode="absolute")
            equal(cursor.fetchone(), (90,), "after scrolling")
        connection.commit()
        held = connection.cursor(name="drivers_held", withhold=True)
        held.execute("SELECT n FROM generate_series(0, 99) AS n ORDER BY n")
        equal(held.fetchmany(3), [(0,), (1,), (2,)], "rows of a held cursor")
        connection.commit()
        equal(held.fetchmany(2), [(3,), (4,)], "rows of a held cursor after the commit")
        held.close()
        connection.commit()


def large_results():
    with connect() as connection:
        total = sum(row[0] for row in connection.cursor().stream("SELECT generate_series(1, 100000)"))
        equal(total, 100000 * 100001 // 2, "single-row mode")
        rows = connection.execute("SELECT n, repeat('x', 100) FROM generate_series(1, 200000) AS n").fetchall()
        equal((len(rows), rows[-1][0]), (200000, 200000), "a large result")


def values_of_all_kinds():
    everything = bytes(range(256))
    unicode = "naïve Ελλάδα 日本語 🐘 \u0001 \\ ' \""
    with connect() as connection:
        table = fresh_table(connection, "values", "id int, t text, b bytea")
        cases = [
            (1, None, None),
            (2, "", b""),
            (3, unicode, everything),
            (4, "é" * (LARGE // 2), everything * (LARGE // 256)),
        ]
        for row in cases:
            connection.execute(f"INSERT INTO {table} VALUES (%s, %s, %s)", row)
            for binary in (False, True):
                cursor = connection.cursor(binary=binary)
                equal(cursor.execute(f"SELECT * FROM {table} WHERE id = %s", row[:1]).fetchone(), row, f"row {row[0]}")
        literal = sql.SQL("SELECT length({})").format(sql.Literal("y" * LARGE))
        equal(one(connection, literal), LARGE, "length of a 5 MB literal")
        connection.execute(f"DROP TABLE {table}")


def listen_and_notify():
    with connect() as listener, connect() as notifier:
        listener.execute("LISTEN drivers_psycopg")
        notifier.execute("NOTIFY drivers_psycopg, 'from elsewhere: é'")
        got = list(listener.notifies(timeout=20, stop_after=1))
        equal([note.payload for note in got], ["from elsewhere: é"], "a notification from another connection")
        notifier.execute("SELECT pg_notify('drivers_psycopg', %s)", ("two",))
        equal([note.payload for note in listener.notifies(timeout=20, stop_after=1)], ["two"], "pg_notify")
        equal(one(listener, "SELECT 1"), 1, "a query on the listening connection")
        listener.execute("UNLISTEN *")
        equal(one(listener, "SELECT count(*) FROM pg_listening_channels()"), 0, "channels after UNLISTEN")


def notices():
    with connect() as connection:
        seen = []
        connection.add_notice_handler(lambda notice: seen.append((notice.severity, notice.message_primary)))
        connection.execute("DO $$ BEGIN RAISE WARNING 'careful: %', 1; END $$")
        equal(seen, [("WARNING", "careful: 1")], "notices")


def settings_do_not_leak():
    errors = []
    barrier = threading.Barrier(8)

    def worker(number):
        try:
            with connect() as connection:
                connection.execute(f"SET statement_timeout = {20001 + number}")
                connection.execute(f"SET application_name = 'drivers {number}'")
                connection.execute("SELECT set_config('drivers.number', %s, false)", (str(number),))
                barrier.wait(timeout=LIMIT_SECONDS)
                for _ in range(60):
                    wanted = (f"{20001 + number}ms", f"drivers {number}", str(number))
                    got = connection.execute(
                        "SELECT current_setting('statement_timeout'), current_setting('application_name'),"
                        " current_setting('drivers.number')"
                    ).fetchone()
                    equal(got, wanted, f"settings of connection {number}")
                connection.execute("RESET statement_timeout")
                equal(one(connection, "SHOW statement_timeout"), "0", "after RESET")
        except Exception as error:
            barrier.abort()
            errors.append(error)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise next((error for error in errors if not isinstance(error, threading.BrokenBarrierError)), errors[0])


def settings_follow_transactions():
    with connect(options="-c statement_timeout=12345", application_name="drivers start") as connection:
        equal(one(connection, "SHOW statement_timeout"), "12345ms", "a startup option")
        equal(one(connection, "SHOW application_name"), "drivers start", "a startup parameter")
        with connection.transaction():
            connection.execute("SET LOCAL statement_timeout = 777")
            equal(one(connection, "SHOW statement_timeout"), "777ms", "SET LOCAL")
        equal(one(connection, "SHOW statement_timeout"), "12345ms", "after SET LOCAL's transaction")
        with connection.transaction(force_rollback=True):
            connection.execute("SET statement_timeout = 888")
        equal(one(connection, "SHOW statement_timeout"), "12345ms", "after SET was rolled back")
        connection.execute("SET TimeZone = 'Asia/Kolkata'")
        equal(connection.info.parameter_status("TimeZone"), "Asia/Kolkata", "ParameterStatus after SET")
        equal(
            one(connection, "SELECT '2024-01-01 00:00+00'::timestamptz::text"),
            "2024-01-01 05:30:00+05:30",
            "TimeZone in use",
        )
        with raises("22023", "SET to a value that is not allowed"):
            connection.execute("SET TimeZone = 'Nowhere/Land'")
        connection.execute("RESET ALL")
        equal(one(connection, "SHOW statement_timeout"), "12345ms", "after RESET ALL")


def temporary_tables():
    with connect() as connection, connect() as other:
        connection.execute("CREATE TEMPORARY TABLE drivers_temporary (id int)")
        for number in range(20):
            connection.execute("INSERT INTO drivers_temporary VALUES (%s)", (number,))
        equal(one(connection, "SELECT count(*) FROM drivers_temporary"), 20, "rows of a temporary table")
        with raises("42P01", "another connection's temporary table"):
            other.execute("SELECT * FROM drivers_temporary")
        with connection.transaction():
            connection.execute("CREATE TEMPORARY TABLE drivers_short (id int) ON COMMIT DROP")
            equal(one(connection, "SELECT count(*) FROM drivers_short"), 0, "rows before the commit")
        with raises("42P01", "a table that was dropped on commit"):
            connection.execute("SELECT * FROM drivers_short")
    with connect() as connection:
        with raises("42P01", "a temporary table of a connection that has ended"):
            connection.execute("SELECT * FROM drivers_temporary")


def a_vanished_client_leaves_nothing():
    with connect() as connection:
        table = fresh_table(connection, "vanished", "id int PRIMARY KEY, value int")
        connection.execute(f"INSERT INTO {table} VALUES (1, 0)")
        connection.execute("SET lock_timeout = '20s'")
        for number in range(5):
            vanishing = connect()
            vanishing.execute("BEGIN")
            vanishing.execute(f"UPDATE {table} SET value = -1")
            with socket.socket(fileno=os.dup(vanishing.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)  # no Terminate message, as when a process is killed
            connection.execute(f"UPDATE {table} SET value = value + 1")  # waits until the other's lock is gone
            equal(one(connection, f"SELECT value FROM {table}"), number + 1, "the value after a client that vanished")
        connection.execute(f"DROP TABLE {table}")


def large_objects():
    content = bytes(range(256)) * 4096
    with connect(autocommit=False) as connection:
        identity = one(connection, "SELECT lo_from_bytea(0, %s)", (content,))
        descriptor = one(connection, "SELECT lo_open(%s, x'40000'::int)", (identity,))
        equal(one(connection, "SELECT loread(%s, 300)", (descriptor,)), content[:300], "loread")
        equal(one(connection, "SELECT loread(%s, 10)", (descriptor,)), content[300:310], "the next loread")
        connection.commit()
        equal(one(connection, "SELECT lo_get(%s)", (identity,)), content, "lo_get")
        equal(one(connection, "SELECT lo_unlink(%s)", (identity,)), 1, "lo_unlink")
        connection.commit()


def session_advisory_locks():
    key = 7_203_001
    with connect() as waiter:
        with connect() as holder:
            holder.execute("SELECT pg_advisory_lock(%s)", (key,))
            equal(one(waiter, "SELECT pg_try_advisory_lock(%s)", (key,)), False, "the lock while it is held")
            equal(one(holder, "SELECT pg_advisory_unlock(%s)", (key,)), True, "unlock by the holder")
            equal(one(waiter, "SELECT pg_try_advisory_lock(%s)", (key,)), True, "the lock when it is free")
            equal(one(waiter, "SELECT pg_advisory_unlock(%s)", (key,)), True, "unlock by the second")
            holder.execute("SELECT pg_advisory_lock(%s)", (key,))
        waiter.execute("SET lock_timeout = '20s'")
        waiter.execute("SELECT pg_advisory_lock(%s)", (key,))  # released because its holder has gone
        equal(one(waiter, "SELECT pg_advisory_unlock(%s)", (key,)), True, "unlock at the end")


def describes_without_running():
    with connect() as connection:
        result = connection.pgconn.prepare(b"drivers_described", b"SELECT $1::int AS n, $2::text AS t")
        equal(result.status, pq.ExecStatus.COMMAND_OK, "Parse")
        described = connection.pgconn.describe_prepared(b"drivers_described")
        equal((described.nparams, described.nfields), (2, 2), "parameters and columns")
        equal([described.param_type(0), described.ftype(1)], [23, 25], "types")
        for number in range(20):
            result = connection.pgconn.exec_prepared(b"drivers_described", [str(number).encode(), b"x"])
            equal(result.get_value(0, 0), str(number).encode(), "an execution")


CASES = [
    connects, refuses_bad_logins, speaks_the_newest_protocol, reads_its_writes, parameters_of_many_types,
    transactions, transaction_modes,
    errors_have_their_sqlstate, prepared_statements_beyond_the_cache, prepared_statements_in_sql,
    prepared_writes_and_reads, several_statements_in_one_string, pipelines, copy_in_and_out, cancels,
    cancels_only_its_own,
    server_side_cursors, large_results, values_of_all_kinds, listen_and_notify, notices,
    settings_do_not_leak, settings_follow_transactions, temporary_tables, session_advisory_locks,
    a_vanished_client_leaves_nothing, large_objects, describes_without_running,
]  # fmt: skip


run("psycopg", CASES, call_in_time)
