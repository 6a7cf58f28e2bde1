"""What psycopg 3 has beyond the common, against DATABASE_URL: two-phase commits, pools, asyncio, its statement cache,
types that are looked up in the catalogue, pipelines in each other, COPY that breaks.

Its own suite is in no registry; these cases follow the chapters of its documentation.
"""

import asyncio
import concurrent.futures
import logging

import psycopg
from psycopg import pq, sql
from psycopg.rows import dict_row
from psycopg.types.composite import CompositeInfo, register_composite
from psycopg.types.enum import EnumInfo, register_enum
from psycopg.types.range import Range, RangeInfo, register_range
from psycopg_pool import AsyncConnectionPool, ConnectionPool

from cases import Failure, call_in_time, check, database_url, equal, raises, run

URL = database_url()
# What psycopg logs of an error that it also raises would only disturb the table.
for name in ("psycopg", "psycopg.pool"):
    logging.getLogger(name).addHandler(logging.NullHandler())


def connect(**options):
    return psycopg.connect(URL, **{"autocommit": True, "connect_timeout": 20, **options})


def fresh_table(connection, name, columns):
    connection.execute(f"DROP TABLE IF EXISTS drivers_features_{name}")
    connection.execute(f"CREATE TABLE drivers_features_{name} ({columns})")
    return f"drivers_features_{name}"


def one(connection, statement, parameters=None, **options):
    return connection.execute(statement, parameters, **options).fetchone()[0]


def commits_in_two_phases():
    with connect() as first, connect(autocommit=False) as second:
        table = fresh_table(first, "two_phases", "id int PRIMARY KEY")
        first.execute("SET causeway.consistency = 'strong'")
        for number, prepares, ends in ((1, False, "commit"), (2, True, "commit"), (3, True, "rollback")):
            second.tpc_begin(second.xid(7, f"drivers {number}", "branch"))
            second.execute(f"INSERT INTO {table} VALUES ({number})")
            if prepares:
                second.tpc_prepare()
                equal(one(first, f"SELECT count(*) FROM {table} WHERE id = {number}"), 0, "rows that are only prepared")
                found = [xid for xid in first.tpc_recover() if xid.gtrid == f"drivers {number}"]
                equal([(xid.format_id, xid.bqual) for xid in found], [(7, "branch")], "what can be recovered")
            getattr(second, f"tpc_{ends}")()
            seen = one(first, f"SELECT count(*) FROM {table} WHERE id = {number}")
            equal(seen, int(ends == "commit"), f"rows after {ends}")
        second.tpc_begin("drivers left")
        second.execute(f"INSERT INTO {table} VALUES (4)")
        second.tpc_prepare()
        second.close()
    with connect() as third:
        equal([xid.gtrid for xid in third.tpc_recover()], ["drivers left"], "what another session has left")
        third.tpc_rollback("drivers left")
        equal(one(third, f"SELECT count(*) FROM {table}"), 2, "rows in the end")
        third.execute(f"DROP TABLE {table}")


def pipelines_of_any_length():
    # None of them has a Sync before its end, and all of it does not fit into any buffer.
    with connect(prepare_threshold=None) as connection, connection.pipeline():
        cursors = [connection.execute("SELECT %s::int, %s", (number, "x" * (number % 100))) for number in range(30_000)]
        numbers = [cursor.fetchone()[0] for cursor in cursors]
    equal(numbers, list(range(30_000)), "answers in their order")


def pipelines_in_each_other():
    with connect(prepare_threshold=0) as connection:
        table = fresh_table(connection, "nested", "id int PRIMARY KEY")
        with connection.pipeline():
            with connection.transaction():
                connection.execute(f"INSERT INTO {table} VALUES (1)")
                with connection.pipeline():
                    inner = connection.execute(f"SELECT count(*) FROM {table}")
                equal(inner.fetchone(), (1,), "own row in the inner pipeline")
                connection.execute(f"INSERT INTO {table} VALUES (2)")
            equal(one(connection, f"SELECT count(*) FROM {table}"), 2, "rows behind the transaction")
            with raises("23505", "an error in a transaction of the pipeline"), connection.transaction():
                connection.execute(f"INSERT INTO {table} VALUES (3)")
                connection.execute(f"INSERT INTO {table} VALUES (1)")
            equal(one(connection, f"SELECT count(*) FROM {table}"), 2, "rows behind the error")
        with connection.pipeline() as pipeline:
            good = connection.execute("SELECT 1")
            bad, skipped = connection.execute("SELECT 1 / %s", (0,)), connection.execute("SELECT 3")
            with raises("22012", "the error of the pipeline"):
                pipeline.sync()
            again = connection.execute("SELECT 4")
            equal((good.fetchone(), again.fetchone()), ((1,), (4,)), "before the error, and behind the Sync")
            for cursor in (bad, skipped):
                try:
                    cursor.fetchone()
                except psycopg.Error:
                    continue
                raise Failure("a statement behind the error has a result")
        # Tables that come and go while statements over them are prepared.
        with connection.pipeline():
            for columns in ("a int", "a int, b text", "a text"):
                connection.execute("DROP TABLE IF EXISTS drivers_features_changing")
                connection.execute(f"CREATE TABLE drivers_features_changing ({columns})")
                cursor = connection.execute("SELECT * FROM drivers_features_changing")
                equal(cursor.fetchall(), [], f"rows of ({columns})")
                equal(len(cursor.description), columns.count(",") + 1, f"columns of ({columns})")
        connection.execute(f"DROP TABLE {table}, drivers_features_changing")


def prepares_by_threshold():
    with connect(prepare_threshold=3) as connection:
        connection.prepared_max = 4
        table = fresh_table(connection, "threshold", "id int PRIMARY KEY")
        for number in range(200):
            # Eight statements in a cache of four: each is prepared, dropped and prepared again.
            text = f"INSERT INTO {table} VALUES (%s) ON CONFLICT DO NOTHING RETURNING {number % 8}"
            for turn in range(4):
                row = connection.execute(text, (number * 4 + turn,)).fetchone()
                equal(row, (number % 8,), f"statement {number % 8}")
        equal(one(connection, f"SELECT count(*) FROM {table}"), 800, "rows")
        for words in ("DEALLOCATE ALL", "DISCARD ALL", "RESET ALL"):
            connection.execute(words)
            for _ in range(5):
                equal(one(connection, "SELECT %s::int", (5,)), 5, f"behind {words}")
        connection.execute(f"DROP TABLE {table}")
        # In a failed transaction the driver's Close must not be lost.
        for _ in range(10):
            with raises("22012", "a division"), connection.transaction():
                connection.execute("SELECT 1 / %s::int", (0,), prepare=True)
            equal(one(connection, "SELECT 1 / %s::int", (1,), prepare=True), 1, "the same statement")


def copies_that_break():
    with connect() as connection:
        table = fresh_table(connection, "broken", "id int PRIMARY KEY, note text")

        class Enough(Exception):
            pass

        try:
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for number in range(50_000):
                    copy.write_row((number, "x" * 50))
                raise Enough
        except Enough:
            pass
        equal(one(connection, f"SELECT count(*) FROM {table}"), 0, "rows of a COPY that its client gave up")
        with raises("22P02", "a line that is no row"):
            with connection.cursor().copy(f"COPY {table} FROM STDIN") as copy:
                for number in range(50_000):
                    copy.write(f"{'no number' if number == 100 else number}\tx\n")
        with connection.cursor().copy(f"COPY {table} (id, note) FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text"])
            for number in range(50_000):
                copy.write_row((number, None if number % 2 else "even"))
        try:
            with connection.cursor().copy(f"COPY {table} TO STDOUT") as copy:
                equal(copy.read_row(), ("0", "even"), "the first of many rows")
                raise Enough
        except Enough:
            pass
        equal(one(connection, f"SELECT count(note) FROM {table}"), 25_000, "after a COPY that was left")
        with connection.transaction():
            query = f"COPY (SELECT id FROM {table} WHERE id < %s ORDER BY id) TO STDOUT"
            with connection.cursor().copy(query, (3,)) as copy:
                copy.set_types(["int4"])
                equal(list(copy.rows()), [(0,), (1,), (2,)], "a COPY with a parameter")
        connection.execute(f"DROP TABLE {table}")


def cursors_of_all_kinds():
    with connect() as connection:
        with psycopg.ClientCursor(connection) as cursor:
            equal(cursor.execute("SELECT %s, %s; SELECT 3", (1, "two")).fetchone(), (1, "two"), "bound by the client")
        with psycopg.RawCursor(connection) as cursor:
            equal(cursor.execute("SELECT $1::int + $2", (1, 2)).fetchone(), (3,), "bound by number")
        with connection.cursor(row_factory=dict_row) as cursor:
            equal(cursor.execute("SELECT 1 AS a").fetchone(), {"a": 1}, "a row by name")
        with connection.transaction():
            with connection.cursor("drivers_one", binary=True) as one_, connection.cursor("drivers_two") as two:
                one_.itersize = 7
                one_.execute("SELECT n FROM generate_series(1, 100) AS n")
                two.execute("SELECT %s::text || n FROM generate_series(1, 100) AS n", ("t",))
                pairs = [(row[0], two.fetchone()[0]) for row in one_]
            equal(pairs, [(number, f"t{number}") for number in range(1, 101)], "two cursors by turns")
        with raises("34000", "a cursor behind its transaction"):
            with connection.transaction():
                cursor = connection.cursor("drivers_gone")
                cursor.execute("SELECT generate_series(1, 100)")
            cursor.fetchone()
        stream = connection.cursor().stream("SELECT generate_series(1, %s)", (50_000,), size=100)
        equal(sum(row[0] for row in stream), 50_000 * 50_001 // 2, "a stream in chunks")
        # A stream that is left half-way is cancelled.
        for row in connection.cursor().stream("SELECT generate_series(1, 10000000)"):
            if row[0] == 10:
                break
        equal(one(connection, "SELECT 'next'"), "next", "behind a stream that was left")


def blocks_of_transactions():
    with connect(autocommit=False) as connection:
        with connection.transaction():
            table = fresh_table(connection, "blocks", "id int PRIMARY KEY")
        with connection.transaction():
            for number in range(20):
                with raises("22012", "an inner block"), connection.transaction(f"inner {number}"):
                    connection.execute(f"INSERT INTO {table} VALUES ({number})")
                    with connection.transaction(force_rollback=True):
                        connection.execute(f"INSERT INTO {table} VALUES ({number} + 1000)")
                    equal(one(connection, f"SELECT count(*) FROM {table} WHERE id >= 1000"), 0, "rolled back by force")
                    connection.execute("SELECT 1 / 0")
                with connection.transaction():
                    connection.execute(f"INSERT INTO {table} VALUES ({number} + 100)")
                    if number % 2:
                        raise psycopg.Rollback()
        equal(one(connection, f"SELECT count(*) FROM {table}"), 10, "rows of the blocks that were not rolled back")
        connection.commit()
        for level in psycopg.IsolationLevel:
            for read_only in (False, True):
                connection.isolation_level, connection.read_only, connection.deferrable = level, read_only, True
                name = level.name.lower().replace("_", " ")
                got = [one(connection, f"SHOW transaction_{what}") for what in ("isolation", "read_only", "deferrable")]
                equal(got, [name, "on" if read_only else "off", "on"], f"{name}, read only {read_only}")
                if read_only:
                    with raises("25006", "a write in it"):
                        connection.execute(f"INSERT INTO {table} VALUES (-1)")
                connection.rollback()
        connection.isolation_level, connection.read_only, connection.deferrable = None, None, None
        connection.execute(f"DROP TABLE {table}")
        connection.commit()


def looks_up_types_that_it_has_made():
    # A statement that the driver has prepared would, directly too, not outlive its types.
    with connect(prepare_threshold=None) as connection:
        connection.execute("DROP TYPE IF EXISTS drivers_pair, drivers_mood, drivers_span")
        for turn in range(5):
            connection.execute("CREATE TYPE drivers_mood AS ENUM ('sad', 'glad')")
            connection.execute("CREATE TYPE drivers_pair AS (number int, mood drivers_mood)")
            connection.execute("CREATE TYPE drivers_span AS RANGE (subtype = float8)")
            mood = EnumInfo.fetch(connection, "drivers_mood")
            pair = CompositeInfo.fetch(connection, "drivers_pair")
            span = RangeInfo.fetch(connection, "drivers_span")
            check(mood and pair and span, "types that were just made")
            equal(list(mood.labels), ["sad", "glad"], "labels")
            register_enum(mood, connection)
            register_composite(pair, connection)
            register_range(span, connection)
            for binary in (False, True):
                cursor = connection.cursor(binary=binary)
                row = cursor.execute("SELECT ROW(%s, 'glad')::drivers_pair, drivers_span(0, 2.5)", (turn,)).fetchone()
                equal((row[0].number, row[0].mood.name, row[1]), (turn, "glad", Range(0.0, 2.5)), "a row of them")
            connection.execute("DROP TYPE drivers_pair, drivers_mood, drivers_span")


def is_notified():
    with connect() as connection, connect() as other:
        own = []
        connection.add_notify_handler(lambda note: own.append((note.channel, note.payload, note.pid)))
        connection.execute("LISTEN drivers_features")
        with connection.transaction():
            connection.execute("NOTIFY drivers_features, 'own'")
            equal(own, [], "ahead of the commit")
        equal(own, [("drivers_features", "own", connection.info.backend_pid)], "behind the commit")
        for number in range(50):
            other.execute("SELECT pg_notify('drivers_features', %s)", (str(number),))
        while len(own) < 51:
            equal(one(connection, "SELECT 1"), 1, "a question in between")
        equal([note[1] for note in own[1:]], [str(number) for number in range(50)], "those of another session, in order")


def pools():
    with connect() as connection:
        table = fresh_table(connection, "pool", "id int PRIMARY KEY, value int")

    def configure(connection):
        connection.autocommit = True
        connection.execute("SET application_name = 'drivers pool'")

    def reset(connection):
        connection.execute("RESET ALL")
        connection.execute("SET application_name = 'drivers pool'")

    def work(number):
        with pool.connection() as connection:
            equal(one(connection, "SHOW application_name"), "drivers pool", "the pool's setting")
            connection.execute("SET work_mem = '77kB'")
            connection.execute(f"INSERT INTO {table} VALUES (%s, %s)", (number, number))
            with connection.transaction():
                connection.execute(f"UPDATE {table} SET value = value + 1 WHERE id = %s", (number,))
            return one(connection, f"SELECT value FROM {table} WHERE id = %s", (number,))

    with ConnectionPool(URL, min_size=2, max_size=6, configure=configure, reset=reset,
                        check=ConnectionPool.check_connection) as pool:
        with concurrent.futures.ThreadPoolExecutor(16) as threads:
            equal(list(threads.map(work, range(400))), list(range(1, 401)), "own writes over a pool")
        with pool.connection() as connection:
            check(one(connection, "SHOW work_mem") != "77kB", "a setting that was reset")
        # One that is broken inside goes, and the pool goes on.
        with raises("57P01", "a server that is ended"), pool.connection() as connection:
            connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        with pool.connection() as connection:
            equal(one(connection, f"SELECT count(*) FROM {table}"), 400, "rows")
    with connect() as connection:
        connection.execute(f"DROP TABLE {table}")


def works_with_asyncio():
    async def everything():
        async with AsyncConnectionPool(URL, min_size=1, max_size=6, open=False, kwargs={"autocommit": True}) as pool:
            async with pool.connection() as connection:
                await connection.execute("DROP TABLE IF EXISTS drivers_features_async")
                await connection.execute("CREATE TABLE drivers_features_async (id int PRIMARY KEY)")

            async def work(number):
                async with pool.connection() as connection, connection.pipeline():
                    await connection.execute("INSERT INTO drivers_features_async VALUES (%s)", (number,))
                    cursor = await connection.execute("SELECT id FROM drivers_features_async WHERE id = %s", (number,))
                    return await cursor.fetchone()

            rows = await asyncio.gather(*(work(number) for number in range(300)))
            equal(rows, [(number,) for number in range(300)], "own rows in pipelines over a pool")
            async with pool.connection() as connection:
                # A task that is cancelled cancels its statement.
                for _ in range(5):
                    task = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
                    await asyncio.sleep(0.05)
                    task.cancel()
                    try:
                        await task
                    except (asyncio.CancelledError, psycopg.errors.QueryCanceled):
                        pass
                    cursor = await connection.execute("SELECT 'next'")
                    equal(await cursor.fetchone(), ("next",), "behind a statement that was cancelled")
                await connection.execute("DROP TABLE drivers_features_async")

    asyncio.run(everything())


def speaks_libpq_in_pipeline_mode():
    with connect() as connection:
        connection.execute("SELECT 1")
        pgconn = connection.pgconn
        pgconn.enter_pipeline_mode()
        pgconn.send_prepare(b"drivers_libpq", b"SELECT $1::int")
        pgconn.send_query_prepared(b"drivers_libpq", [b"1"])
        pgconn.send_describe_prepared(b"drivers_libpq")
        # Its answers come without a Sync.
        pgconn.send_flush_request()
        pgconn.flush()
        statuses = []
        while len(statuses) < 3:
            if (result := pgconn.get_result()) is not None:
                statuses.append(result.status)
        wanted = pq.ExecStatus
        equal(statuses, [wanted.COMMAND_OK, wanted.TUPLES_OK, wanted.COMMAND_OK], "behind a Flush")
        pgconn.send_query_params(sql.SQL("SELECT 1 / 0").as_bytes(connection), [])
        pgconn.send_query_prepared(b"drivers_libpq", [b"2"])
        pgconn.pipeline_sync()
        pgconn.send_query_prepared(b"drivers_libpq", [b"3"])
        pgconn.pipeline_sync()
        pgconn.flush()
        statuses = []
        while len(statuses) < 5:
            if (result := pgconn.get_result()) is not None:
                statuses.append(result.status)
        equal(statuses, [wanted.FATAL_ERROR, wanted.PIPELINE_ABORTED, wanted.PIPELINE_SYNC, wanted.TUPLES_OK,
                         wanted.PIPELINE_SYNC], "an error between two Syncs")
        pgconn.exit_pipeline_mode()
        equal(one(connection, "SELECT 5"), 5, "out of pipeline mode")


CASES = [
    commits_in_two_phases, pipelines_of_any_length, pipelines_in_each_other, prepares_by_threshold, copies_that_break,
    cursors_of_all_kinds, blocks_of_transactions, looks_up_types_that_it_has_made, is_notified, pools,
    works_with_asyncio, speaks_libpq_in_pipeline_mode,
]  # fmt: skip


run("psycopg-features", CASES, call_in_time)
